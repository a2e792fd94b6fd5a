"""Signalling over a channel of the application's own, where nothing is sealed: whoever is at its other end, or in its
middle, says what they like."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.mutation import mutate
from fuzz.targets.messages import SIGNAL, WORDS
from fuzz.targets.session import Channel, hear
from quice import Endpoint
from quice.errors import ConnectError, ConnectTimeoutError, HandshakeError, SignallingError, SignallingViolationError
from quice.ice import Candidate
from quice.identity import Identity
from quice.signal.manual import WrittenAnswer
from quice.signal.messages import Answer, Bye, CandidateFound, Message, Offer, Refuse, RefuseReason, encode
from quice.signal.queues import QueueSignalling, signalling_pair
from quice.sim.simulation import Simulation
from quice.sim.world import World
from quice.wire import Address
from tests.security.hostile import ALPN, PWD, offer

ANSWER = Answer(ufrag="peer", pwd=PWD)
OFFER = next(word for word in WORDS if isinstance(word, Offer))

JUNK: st.SearchStrategy[Any] = (
    st.none() | st.integers() | st.text(max_size=5) | st.binary(max_size=5) | st.just(object())
)
DECODED = st.sampled_from(WORDS)
UNCHECKED = DECODED.flatmap(
    lambda word: (
        st.just(word)
        if not word.__struct_fields__
        else st.builds(
            lambda field, junk: msgspec.structs.replace(word, **{field: junk}),
            st.sampled_from(word.__struct_fields__),
            JUNK,
        )
    )
)
BYTES = st.integers(0, 1 << 32).map(lambda seed: mutate(random.Random(seed), SIGNAL))
RAISED = st.sampled_from((OSError, ValueError, RecursionError, EOFError)).map(lambda kind: kind("gone"))
SAID = st.lists(DECODED | BYTES | UNCHECKED | JUNK | RAISED, min_size=1, max_size=12)


@settings(deadline=None)
@given(said=SAID, answered=st.booleans(), fails=st.sampled_from((None, OSError, KeyError)))
def test_whatever_comes_from_a_channel_leads_to_public_errors_alone(
    said: list[object], answered: bool, fails: type[Exception] | None
) -> None:
    """Of who connects, and of who answers; `hear` raises whatever else is raised, reported, or left behind."""
    assert isinstance(hear(Channel([ANSWER] * answered + said, fails), initiates=True), ConnectError)
    hear(Channel([OFFER] * answered + said, fails), initiates=False)


@pytest.mark.parametrize(
    "unread",
    [
        ANSWER,
        msgspec.structs.replace(ANSWER, ufrag=7),
        msgspec.structs.replace(ANSWER, candidates=(("192.0.2.1", 1),)),
        CandidateFound(
            candidate=Candidate(kind="host", address=Address("no address", 1 << 20), priority=-1, foundation="é")  # type: ignore[arg-type]
        ),
        None,
        b"\x80",
    ],
    ids=str,
)
def test_what_a_carrier_has_not_looked_at_is_looked_at_all_the_same(unread: Any) -> None:
    """One with a codec of its own, that gives messages as it finds them."""
    error = hear(Channel([ANSWER, unread]), initiates=True)
    if unread is ANSWER:
        assert isinstance(error, ConnectTimeoutError)
    else:
        assert isinstance(error, SignallingError)


def test_what_is_no_message_is_told_as_a_failure_of_signalling() -> None:
    error = hear(Channel([b"nothing of the kind"]), initiates=True)
    assert isinstance(error, SignallingError)
    assert "was not understood" in str(error)


def test_an_offer_of_another_version_is_refused_and_nothing_else_is_said() -> None:
    later = Channel([encode(msgspec.structs.replace(OFFER, version=2))])
    assert hear(later, initiates=False) is None
    assert later.sent == [Refuse(reason=RefuseReason.VERSION)]


def test_an_offer_of_another_application_is_refused() -> None:
    other = Channel([encode(msgspec.structs.replace(OFFER, alpn="other/1"))])
    assert hear(other, initiates=False) is None
    assert other.sent == [Refuse(reason=RefuseReason.ALPN)]


@pytest.mark.parametrize("more", [ANSWER, CandidateFound(candidate=offer([Address("192.0.2.1", 9)]).candidates[0])])
def test_who_never_ends_is_heard_for_a_fixed_number_of_messages(more: Message) -> None:
    channel = Channel([ANSWER, *[more] * 5000])
    assert isinstance(hear(channel, initiates=True), SignallingViolationError)
    assert channel.sent[-1] == Bye()
    assert len(channel.sent) < 10


@pytest.mark.parametrize("takes", [0, 1, 2])
@pytest.mark.parametrize("initiates", [True, False])
def test_a_channel_that_takes_no_more_holds_nobody_up(takes: int, initiates: bool) -> None:
    """As an HTTP API whose server does not answer."""
    said = [ANSWER] if initiates else [OFFER]
    assert hear(Channel(said, takes=takes), initiates=initiates) is not None


# Somebody in the middle of it.


class Repeating(QueueSignalling):
    """A carrier that brings everything three times, and each candidate once more whenever something else comes."""

    def __init__(self, carrier: QueueSignalling) -> None:
        super().__init__()
        self._carrier = carrier

    async def send(self, message: Message) -> None:
        for _ in range(3):
            await self._carrier.send(message)

    async def receive(self) -> Message:
        return await self._carrier.receive()

    async def close(self) -> None:
        await self._carrier.close()


@contextlib.asynccontextmanager
async def three(world: World) -> AsyncIterator[list[Endpoint]]:
    """Endpoints of alice, bob, and eve, on hosts of their own."""
    async with contextlib.AsyncExitStack() as stack:
        endpoints = []
        for name in ("alice", "bob", "eve"):
            with world.host(name):
                endpoints.append(await stack.enter_async_context(Endpoint.bind(alpns=[ALPN])))
        with world.hosts["alice"]:
            yield endpoints


async def test_a_channel_that_repeats_everything_connects_all_the_same(simulation: Simulation, world: World) -> None:
    async with three(world) as (alice, bob, _):
        ours, theirs = map(Repeating, signalling_pair())
        responding = asyncio.create_task(bob.respond(alice.peer, theirs))
        connection = await alice.connect(bob.peer, alpn=ALPN, signalling=ours)
        await responding
        assert connection.peer == bob.peer


async def test_a_channel_that_puts_its_owner_in_the_place_of_who_answers_connects_nobody(
    simulation: Simulation, world: World
) -> None:
    async with three(world) as (alice, bob, eve):
        ours, theirs = signalling_pair()
        accepting = asyncio.create_task(eve.accept())
        responding = asyncio.create_task(eve.respond(alice.peer, theirs))
        with pytest.raises(HandshakeError):
            await alice.connect(bob.peer, alpn=ALPN, signalling=ours)
        assert not accepting.done()
        for task in (accepting, responding):
            task.cancel()
        await asyncio.wait([accepting, responding])


async def test_a_channel_that_puts_its_owner_in_the_place_of_who_calls_connects_nobody(
    simulation: Simulation, world: World
) -> None:
    async with three(world) as (alice, bob, eve):
        ours, theirs = signalling_pair()
        accepting = asyncio.create_task(bob.accept())
        calling = asyncio.create_task(eve.connect(bob.peer, alpn=ALPN, signalling=ours))
        with pytest.raises(ConnectError):
            await bob.respond(alice.peer, theirs)
        assert not accepting.done()
        accepting.cancel()
        await asyncio.wait([accepting, calling])
        # Nobody but bob knows whom he expects: to eve it looked like a connection, until he refused it.
        assert calling.result().is_closed


async def test_a_text_that_was_replaced_is_told_by_the_peer_in_it(simulation: Simulation, world: World) -> None:
    """Whoever carries two texts can be the peer of both sides: only who compares the ids finds out."""
    async with (
        three(world) as (alice, bob, eve),
        await alice.offer(alpn=ALPN) as offered,
        await eve.offer(alpn=ALPN) as forged,
        await bob.answer(forged.description) as answered,
        await eve.answer(offered.description) as false,
    ):
        assert answered.peer == eve.peer != alice.peer
        assert (await offered.complete(false.description)).peer == eve.peer != bob.peer
        assert (await forged.complete(answered.description)).peer == bob.peer
        assert (await answered.connected()).peer == eve.peer


async def test_a_text_in_which_only_the_peer_was_replaced_connects_nobody(simulation: Simulation, world: World) -> None:
    """With the addresses of the true one, so that nobody need be in the way later."""
    async with (
        three(world) as (alice, bob, _),
        await alice.offer(alpn=ALPN) as offered,
        await bob.answer(offered.description) as answered,
    ):
        true = WrittenAnswer.parse(answered.description)
        false = WrittenAnswer(Identity(b"e" * 32).peer, true.answer, true.tag)
        with pytest.raises(HandshakeError):
            await offered.complete(str(false))


@pytest.mark.parametrize("establish", ["simultaneous", "highest-address"])
async def test_who_answers_and_makes_the_connection_finds_out_too(
    simulation: Simulation, world: World, establish: Any
) -> None:
    async with three(world) as (_, bob, eve):
        ours, theirs = signalling_pair()
        # Of two that open at once the greater key makes the connection, of two addresses the lower.
        false = Identity(bytes(32)).peer if establish == "simultaneous" else Identity(b"a" * 32).peer
        calling = asyncio.create_task(eve.connect(bob.peer, alpn=ALPN, signalling=ours, establish=establish))
        with pytest.raises(HandshakeError):
            await bob.respond(false, theirs)
        calling.cancel()
        await asyncio.wait([calling])
