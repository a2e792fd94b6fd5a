"""A long stream is watched closely: every block, every pause, and what it comes over."""

from __future__ import annotations

from typing import Any

import pytest

from lab.streaming import BLOCK, Receiver
from lab.timeline import Timeline


class Arriving:
    """A stream of which pieces come at certain times, and the clock for that."""

    def __init__(self, *pieces: tuple[float, bytes]) -> None:
        self._pieces = list(pieces)
        self._now = 0.0

    async def read(self, n: int) -> bytes:
        if not self._pieces:
            return b""
        self._now, piece = self._pieces.pop(0)
        return piece

    def clock(self) -> float:
        return self._now


def _block(number: int) -> bytes:
    return number.to_bytes(8, "big") + bytes(BLOCK - 8)


async def _received(*pieces: tuple[float, bytes]) -> Timeline:
    timeline, stream = Timeline(), Arriving(*pieces)

    def say(event: str, **told: Any) -> None:
        timeline.take({"event": event, **told})

    await Receiver(say, stream.clock).receive(stream)  # type: ignore[arg-type]
    return timeline


async def test_pauses_and_bytes_are_told() -> None:
    timeline = await _received((0.01, _block(0)[:9]), (1.01, _block(0)[9:]), (1.02, _block(1)), (3.0, _block(2)))
    assert timeline.pauses == [(0.01, 1.01), (1.02, 3.0)]
    assert timeline.bytes == 3 * BLOCK
    assert timeline.last == 3.0


async def test_a_block_out_of_turn_is_no_success() -> None:
    with pytest.raises(ValueError, match="block 1 of the stream came as 2"):
        await _received((0.0, _block(0) + _block(2)))


async def test_blocks_may_come_in_pieces_of_any_size() -> None:
    stream = b"".join(map(_block, range(5)))
    timeline = await _received(*((0.0, stream[at : at + 50_001]) for at in range(0, len(stream), 50_001)))
    assert timeline.bytes == len(stream)


def test_a_pause_counts_from_when_it_was_caused() -> None:
    timeline = Timeline(pauses=[(1.0, 2.0), (2.5, 6.0)], last=6.5)
    assert timeline.longest_pause(since=2.2, now=6.6) == 3.5
    assert timeline.longest_pause(since=5.0, now=6.6) == 1.0
    assert timeline.longest_pause(since=6.0, now=6.6) == 0.0


def test_a_pause_that_does_not_end_counts() -> None:
    timeline = Timeline(pauses=[(1.0, 2.0)], last=3.0)
    assert timeline.longest_pause(since=2.0, now=9.0) == 6.0


def test_who_carried_the_data_and_when_that_changed_is_known() -> None:
    timeline = Timeline()
    for at, kind in ((1.0, "direct"), (2.0, "relay"), (4.0, "direct")):
        timeline.take({"event": "path", "at": at, "kind": kind, "local": "a:1", "remote": "b:2"})
    assert timeline.carrier_at(0.5) is None
    carrier = timeline.carrier_at(3.0)
    assert carrier is not None
    assert carrier.kind == "relay"
    assert timeline.came_back(1.5, "direct") == 2.5
    assert timeline.came_back(4.5, "direct") is None


def test_a_reserve_that_is_the_same_as_before_is_no_new_one() -> None:
    timeline = Timeline()
    for at, ids in ((1.0, [3]), (2.0, []), (3.0, [3]), (5.0, [3, 4])):
        timeline.take({"event": "reserve", "at": at, "ids": ids})
    assert timeline.new_reserve(1.5) == 3.5
    assert timeline.new_reserve(0.5) == 0.5
    assert timeline.new_reserve(5.5) is None
