"""Offers and answers that people carry, on loopback: what becomes of them when somebody gives up."""

from __future__ import annotations

import asyncio

import pytest

from quice import Endpoint
from quice.errors import EndpointClosedError, SignallingClosedError
from quice.signal.manual import MAX_ALPN, MAX_TEXT, WrittenOffer
from tests.endpoint.conftest import ALPN


async def test_two_texts_make_a_connection() -> None:
    async with Endpoint.bind() as alice, Endpoint.bind(alpns=[ALPN]) as bob:
        async with await alice.offer(alpn=ALPN) as offer, await bob.answer(offer.description) as answer:
            near, far = await asyncio.gather(offer.complete(answer.description), answer.connected())
        # Leaving the block takes nothing away from who has got it.
        stream = await near.open_stream()
        await stream.write(b"token")
        assert await (await far.accept_stream()).readexactly(5) == b"token"
        assert WrittenOffer.parse(offer.description).peer == far.peer == alice.peer


async def test_a_connection_that_nobody_has_asked_for_is_closed_with_its_answer() -> None:
    async with Endpoint.bind() as alice, Endpoint.bind(alpns=[ALPN]) as bob:
        async with await alice.offer(alpn=ALPN) as offer, await bob.answer(offer.description) as answer:
            near = await offer.complete(answer.description)
        await asyncio.wait_for(near.wait_closed(), 5)


@pytest.mark.parametrize("turns", [0, 3])
async def test_who_waits_is_told_when_another_task_gives_up(turns: int) -> None:
    async with Endpoint.bind() as alice, Endpoint.bind(alpns=[ALPN]) as bob:
        offer = await alice.offer(alpn=ALPN)
        answer = await bob.answer(offer.description)
        waiting = asyncio.create_task(answer.connected())
        for _ in range(turns):
            await asyncio.sleep(0)
        await answer.close()
        assert bob._surroundings._receivers == []
        with pytest.raises(SignallingClosedError):
            await asyncio.wait_for(waiting, 5)
        await bob.close()
        completing = asyncio.create_task(offer.complete(answer.description))
        for _ in range(turns):
            await asyncio.sleep(0)
        await offer.close()
        assert alice._surroundings._receivers == []
        with pytest.raises(SignallingClosedError):
            await asyncio.wait_for(completing, 5)


async def test_closing_the_endpoint_ends_what_it_has_offered_and_answered() -> None:
    alice, bob = await Endpoint.bind(), await Endpoint.bind(alpns=[ALPN])
    offer, other = await alice.offer(alpn=ALPN), await bob.offer(alpn=ALPN)
    answer = await bob.answer(offer.description)
    waiting = asyncio.create_task(answer.connected())
    await asyncio.sleep(0)
    await alice.close()
    await bob.close()
    with pytest.raises(SignallingClosedError):
        await asyncio.wait_for(waiting, 5)
    with pytest.raises(SignallingClosedError):
        await offer.complete(answer.description)
    for act in (bob.offer(alpn=ALPN), bob.answer(other.description)):
        with pytest.raises(EndpointClosedError):
            await act
    await answer.close()


async def test_a_name_that_leaves_no_room_for_candidates_is_not_offered() -> None:
    async with Endpoint.bind(host="127.0.0.1") as endpoint:
        async with await endpoint.offer(alpn="a" * MAX_ALPN) as offer:
            assert len(offer.description) <= MAX_TEXT
            assert WrittenOffer.parse(offer.description).offer.candidates
        with pytest.raises(ValueError, match="64 bytes"):
            await endpoint.offer(alpn="a" * (MAX_ALPN + 1))


async def test_a_name_that_is_reserved_is_not_offered() -> None:
    async with Endpoint.bind() as alice:
        with pytest.raises(ValueError, match="reserved"):
            await alice.offer(alpn="quice/1+test")
