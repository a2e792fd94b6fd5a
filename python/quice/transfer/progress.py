"""How far a transfer has come, on either side."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with the bytes done, those skipped included, and the bytes in all."""


class Tally:
    """Counts the bytes of a transfer, and tells `progress` of every change."""

    def __init__(self, progress: Progress, total: int, done: int = 0) -> None:
        """`done`: bytes that need no transfer."""
        self._progress = progress
        self._total = total
        self._done = done
        self.moved = 0
        """Bytes that went over the network."""

    def advance(self, there: int, fresh: int) -> None:
        """Count the bytes that were there already, and those that went over the network."""
        self._done += there + fresh
        self.moved += fresh
        self.tell()

    def tell(self) -> None:
        """Tell how far it is."""
        self._progress(self._done, self._total)
