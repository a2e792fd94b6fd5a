"""Signalling within one process."""

from __future__ import annotations

import asyncio

import pytest

from quice.errors import SignallingClosedError
from quice.ice.candidate import Candidate, CandidateKind
from quice.signal.messages import Bye, CandidateFound, EndOfCandidates, Refuse, RefuseReason
from quice.signal.queues import signalling_pair
from quice.wire import Address

FOUND = CandidateFound(
    candidate=Candidate(kind=CandidateKind.HOST, address=Address("192.0.2.1", 1), priority=1, foundation="1")
)


async def test_messages_arrive_in_order_both_ways() -> None:
    one, other = signalling_pair()
    for message in (FOUND, EndOfCandidates(), Bye()):
        await one.send(message)
    await other.send(Refuse(reason=RefuseReason.BUSY))
    assert [await other.receive() for _ in range(3)] == [FOUND, EndOfCandidates(), Bye()]
    assert await one.receive() == Refuse(reason=RefuseReason.BUSY)


async def test_receive_waits_for_a_message() -> None:
    one, other = signalling_pair()
    waiting = asyncio.create_task(other.receive())
    await asyncio.sleep(0)
    assert not waiting.done()
    await one.send(Bye())
    assert await waiting == Bye()


async def test_closing_ends_every_receive_of_both_sides() -> None:
    one, other = signalling_pair()
    waiting = [asyncio.create_task(side.receive()) for side in (one, other, other)]
    await asyncio.sleep(0)
    await one.close()
    for task in waiting:
        with pytest.raises(SignallingClosedError):
            await task
    for side in (one, other):
        with pytest.raises(SignallingClosedError):
            await side.receive()


async def test_what_was_sent_before_the_end_still_comes() -> None:
    one, other = signalling_pair()
    await one.send(Bye())
    await one.close()
    assert await other.receive() == Bye()
    with pytest.raises(SignallingClosedError):
        await other.receive()


async def test_nothing_can_be_sent_after_the_end() -> None:
    one, other = signalling_pair()
    await other.close()
    await other.close()
    for side in (one, other):
        with pytest.raises(SignallingClosedError):
            await side.send(Bye())
        with pytest.raises(SignallingClosedError):
            await side.receive()


async def test_a_cancelled_receive_takes_no_message_with_it() -> None:
    one, other = signalling_pair()
    waiting = asyncio.create_task(other.receive())
    await asyncio.sleep(0)
    await one.send(Bye())
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert await other.receive() == Bye()
