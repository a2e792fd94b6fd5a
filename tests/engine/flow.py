"""Bytes that flow through one stream of a pair, checked by digest at the far end."""

from __future__ import annotations

import hashlib
import random

from quice import _native
from tests.engine.pair import Pair

# Its length is odd, so that packets never fall on the same bytes of it twice in a row.
BLOCK = random.Random(1).randbytes((1 << 20) - 17)


class Flow:
    """`size` bytes from the one to the other, from the client to the server unless `down`, on a stream of their own.

    `push` writes what the engine takes, `pull` reads what has come, `run` does both for each instant until
    the end has been read.
    """

    def __init__(
        self, pair: Pair, near: _native.Connection, far: _native.Connection, size: int, *, down: bool = False
    ) -> None:
        stream = near.open(unidirectional=True)
        assert stream is not None
        self.stream = stream
        self.size = size
        self.written = 0
        self.read = 0
        self.ended = False
        self._pair = pair
        self._at = pair.client if down else pair.server
        self._near = near
        self._far = far
        self._finished = False
        self._opened = False
        self._digest = hashlib.sha256()
        self._buffer = memoryview(bytearray(1 << 20))

    def push(self) -> None:
        """Write until the engine takes no more, and finish after the last byte."""
        while self.written < self.size:
            start = self.written % len(BLOCK)
            wanted = min(len(BLOCK) - start, self.size - self.written)
            taken = self._near.write(self.stream, memoryview(BLOCK)[: start + wanted], start)
            self.written += taken
            if taken < wanted:
                return
        if not self._finished:
            self._near.finish(self.stream)
            self._finished = True

    def pull(self, limit: int | None = None) -> None:
        """Read what there is, at most `limit` bytes."""
        if not self._opened:
            events = self._at.seen(_native.Event.Opened)
            self._opened = any(event.stream == self.stream for event in events)
        if self.ended or not self._opened:
            return
        left = self.size if limit is None else limit
        while left > 0:
            count = self._far.readinto(self.stream, self._buffer[:left])
            if count is None:
                return
            if count == 0:
                self.ended = True
                return
            self._digest.update(self._buffer[:count])
            self.read += count
            left -= count

    def run(self, *, within: float) -> None:
        """Everything, within so many virtual seconds."""

        def done() -> bool:
            self.push()
            self.pull()
            return self.ended

        self._pair.drive(done, within=within)

    def check(self) -> None:
        """What was read is what was written, to the last byte."""
        expected = hashlib.sha256()
        whole, rest = divmod(self.size, len(BLOCK))
        for _ in range(whole):
            expected.update(BLOCK)
        expected.update(BLOCK[:rest])
        assert self.read == self.size
        assert self._digest.digest() == expected.digest()
