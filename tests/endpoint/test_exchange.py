"""A session with a peer that says what has no place: over a channel of the application's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import msgspec
import pytest

from quice import Connection, Endpoint, Identity, Policy
from quice.errors import ConnectTimeoutError, SignallingClosedError, SignallingError, SignallingViolationError
from quice.signal import signalling_pair
from quice.signal.interface import Signalling
from quice.signal.messages import Answer, Bye, CandidateFound, EndOfCandidates, Message, Offer
from quice.signal.session import MAX_CANDIDATES
from quice.wire import Address
from tests.endpoint.conftest import ALPN
from tests.signal.test_messages import HOST, PWD

ANSWER = Answer(ufrag="peer", pwd=PWD)


@asynccontextmanager
async def offered(timeout: float = 5.0) -> AsyncIterator[tuple[Signalling, Offer, asyncio.Task[Connection]]]:
    """A peer that was offered a connection: its signalling, the offer, and what becomes of who connects."""
    ours, theirs = signalling_pair()
    async with Endpoint.bind(host="127.0.0.1") as endpoint:
        peer = Identity.generate().peer
        connecting = asyncio.create_task(endpoint.connect(peer, alpn=ALPN, signalling=ours, timeout=timeout))
        offer = await theirs.receive()
        assert isinstance(offer, Offer)
        yield theirs, offer, connecting
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)


async def words_of(signalling: Signalling) -> list[Message]:
    """What is said until the session is over."""
    said: list[Message] = []
    with suppress(SignallingClosedError):
        while True:
            said.append(await asyncio.wait_for(signalling.receive(), 5))
    return said


@pytest.mark.parametrize("misplaced", [CandidateFound(candidate=HOST), EndOfCandidates()])
async def test_what_may_not_come_before_the_answer_ends_the_session(misplaced: Message) -> None:
    async with offered() as (theirs, _, connecting):
        await theirs.send(misplaced)
        with pytest.raises(SignallingViolationError, match=type(misplaced).__name__):
            await connecting
        assert (await words_of(theirs))[-1] == Bye()


async def test_an_offer_in_answer_to_an_offer_ends_the_session() -> None:
    async with offered() as (theirs, offer, connecting):
        await theirs.send(offer)
        with pytest.raises(SignallingViolationError, match="Offer"):
            await connecting


async def test_an_answer_that_the_carrier_repeats_is_ignored() -> None:
    async with offered() as (theirs, offer, connecting):
        for message in (ANSWER, ANSWER, CandidateFound(candidate=HOST), ANSWER, offer):
            await theirs.send(message)
        with pytest.raises(SignallingViolationError, match="Offer"):
            await connecting


async def test_another_answer_than_the_first_ends_the_session() -> None:
    async with offered() as (theirs, _, connecting):
        await theirs.send(ANSWER)
        await theirs.send(msgspec.structs.replace(ANSWER, ufrag="else"))
        with pytest.raises(SignallingViolationError, match="Answer"):
            await connecting


async def test_a_flood_of_candidates_ends_the_session() -> None:
    async with offered() as (theirs, _, connecting):
        await theirs.send(ANSWER)
        for port in range(1, MAX_CANDIDATES + 2):
            found = msgspec.structs.replace(HOST, address=Address("192.0.2.1", port))
            await theirs.send(CandidateFound(candidate=found))
        with pytest.raises(SignallingViolationError, match="CandidateFound"):
            await connecting
        assert (await words_of(theirs))[-1] == Bye()


async def test_who_hangs_up_without_an_answer_is_not_waited_for() -> None:
    async with offered(timeout=60) as (theirs, _, connecting):
        await theirs.send(Bye())
        with pytest.raises(SignallingClosedError):
            await asyncio.wait_for(connecting, 5)


class Broken:
    """A carrier whose author has not thought of everything."""

    def __init__(self, *, sends: bool) -> None:
        self._sends = sends

    async def send(self, message: Message) -> None:
        if not self._sends:
            raise OSError("no route to the broker")

    async def receive(self) -> Message:
        raise OSError("no route to the broker")

    async def close(self) -> None:
        raise OSError("no route to the broker")


@pytest.mark.parametrize("sends", [False, True])
async def test_whatever_a_carrier_raises_is_a_failure_of_signalling(sends: bool) -> None:
    async with Endpoint.bind(host="127.0.0.1") as endpoint:
        connecting = endpoint.connect(Identity.generate().peer, alpn=ALPN, signalling=Broken(sends=sends), timeout=60)
        with pytest.raises(SignallingError, match="no route to the broker"):
            await asyncio.wait_for(connecting, 5)


async def test_a_session_that_is_closed_before_it_has_answered_answers_no_more() -> None:
    ours, theirs = signalling_pair()
    offer = Offer(version=1, ufrag="peer", pwd=PWD, alpn=ALPN)
    async with Endpoint.bind(alpns=[ALPN]) as endpoint:
        _, session = endpoint._introductions.meet(Identity.generate().peer, ALPN, ours, Policy.AUTO, offer)
        await session.close()
        with pytest.raises(SignallingClosedError):
            await session.respond()
        assert await words_of(theirs) == [Bye()]


async def test_candidates_after_goodbye_are_ignored() -> None:
    async with offered(timeout=0.5) as (theirs, _, connecting):
        await theirs.send(ANSWER)
        await theirs.send(Bye())
        for port in range(1, MAX_CANDIDATES + 9):
            found = msgspec.structs.replace(HOST, address=Address("192.0.2.1", port))
            await theirs.send(CandidateFound(candidate=found))
        # Were they held against the peer, this would be a violation.
        with pytest.raises(ConnectTimeoutError):
            await connecting
