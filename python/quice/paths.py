"""Which QUIC paths a connection has: that of the pair which the checks have selected, and for a while another.

The side that made the connection sees to it, for only a client opens paths, and the other side does as it says
(draft-ietf-quic-multipath §3.3). One path is enough as long as it works. Another is opened when the checks select
another pair, and when nothing comes back any more: with two of them, the engine leaves the one on which nothing is
answered within `path_idle_timeout`. A new path is validated before the old one is left. Others that the engine has
opened may stay for as long as they are compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import Callable, Iterable
from typing import Protocol, cast

from quice import _native
from quice.checks import ConnectivityChecks
from quice.ice import CandidatePair
from quice.pump import Pump
from quice.wire import Address

_TICK = 0.5
"""Seconds between two looks at what has come."""
_IDLE_TICK = 8.0
"""The same, after a while in which nothing was sent and nothing came: each time twice as long, and at most this."""
_SUSPICION = 1.5
"""Seconds without any answer to what was sent, after which another way is tried: a congested link can be as slow."""
_TRIAL = 2.5
"""Seconds for which another path is tried beside the silent one."""
_HOPE = 6.0
"""Seconds of silence after which no other is tried, since each puts off the idle timeout."""

Way = tuple[str, Address]
"""The local address and the peer's."""


class PathObserver(Protocol):
    """What looks after a connection's paths: it is told of what the engine says of them."""

    on_ranked: Callable[[], None]
    """To be called when it has given paths another status."""

    def on_opened(self, path: int) -> None:
        """A path was validated."""

    def on_lost(self, path: int) -> None:
        """A path was given up."""

    def on_named(self) -> None:
        """The peer has named other addresses for NAT traversal than before."""

    def close(self) -> None:
        """The connection is over."""


class _Hearing(enum.Enum):
    """What is known of the peer."""

    HEARD = "heard"
    """Something came since we last sent, or we sent nothing."""
    WAITING = "waiting"
    """We have sent and hear nothing."""


class PathKeeper:
    """Keeps one connection on the pairs that work. It observes the checks, such as the connection's session."""

    def __init__(
        self,
        native: _native.Connection,
        pump: Pump,
        first: CandidatePair,
        checks: ConnectivityChecks,
    ) -> None:
        """`first`: the pair that the connection was made on."""
        self._native = native
        self._pump = pump
        self._checks = checks
        self._loop = asyncio.get_running_loop()
        self._paths: dict[int, CandidatePair] = {0: first}
        self._validated = {0}
        self.selected = first
        """The pair that is to carry data."""
        self.on_ranked: Callable[[], None] = unheard
        self._agreed = False
        self._compared: dict[int, CandidatePair] = {}
        self._trial: CandidatePair | None = None
        self._trial_ends = 0.0
        self._hearing = _Hearing.HEARD
        self._since = 0.0
        self._sent = self._received = 0
        self._pause = _TICK
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(_TICK, self._tick)

    def on_pairs(self, pairs: Iterable[CandidatePair]) -> None:
        """There may be new pairs: they are checked, and selected if one is better."""

    def on_valid(self, pair: CandidatePair) -> None:
        """Another pair works, too."""

    def on_selected(self, pair: CandidatePair) -> None:
        """The checks have chosen this pair."""
        self.selected, self._agreed = pair, True
        self._keep()

    def on_failed(self, error: Exception) -> None:
        """No pair passes checks any more; whether QUIC does, QUIC says."""

    @property
    def compared(self) -> dict[int, CandidatePair]:
        """Paths that may stay beside the selected pair's until they were compared with it, and their pairs."""
        return dict(self._compared)

    def pair_of(self, path: int) -> CandidatePair | None:
        """The pair that a path leads over, None for a path that is not known here."""
        return self._paths.get(path)

    def compare(self, path: int, pair: CandidatePair) -> None:
        """Keep a path that the engine has opened, until `end_comparison`."""
        self._paths[path] = self._compared[path] = pair

    def replace(self, pair: CandidatePair) -> None:
        """Select a pair that has been compared; the path of the one before is compared with it from now on."""
        chosen, before = self._path_of(pair), self._path_of(self.selected)
        if chosen is not None:
            self._compared.pop(chosen, None)
        if before is not None:
            self._compared[before] = self.selected
        self.on_selected(pair)

    def end_comparison(self, path: int) -> None:
        """Keep the path no longer."""
        self._compared.pop(path, None)
        self._keep()

    def on_opened(self, path: int) -> None:
        """See `PathObserver`."""
        self._validated.add(path)
        self._keep()

    def on_lost(self, path: int) -> None:
        """See `PathObserver`."""
        self._validated.discard(path)
        self._compared.pop(path, None)
        pair = self._paths.pop(path, None)
        if pair is None:
            return
        if self._path_of(pair) is None and (_way(pair) == _way(self.selected)):
            # What is left is in use from now on, whether the agents agree yet or not.
            self.selected = next(iter(self._paths.values()), self.selected)
            self._trial = None
            self._checks.pair_lost(pair)
        self._keep()

    def on_named(self) -> None:
        """See `PathObserver`: the checks have what they need from elsewhere."""

    def close(self) -> None:
        """See `PathObserver`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = None
        try:
            idle = not self._listen()
        except _native.ConnectionGone:
            return
        settled = len(self._paths) == 1 and self._trial is None and self._path_of(self.selected) is not None
        self._pause = min(2 * self._pause, _IDLE_TICK) if idle and settled else _TICK
        self._timer = self._loop.call_later(self._pause, self._tick)
        if not settled:
            self._keep()

    def _listen(self) -> bool:
        """Look whether the peer answers, and try another pair if not. Returns whether anything happens."""
        stats, now = self._native.stats(), self._loop.time()
        sent, received = stats["sent_datagrams"], stats["received_datagrams"]
        active = (sent, received) != (self._sent, self._received) or self._hearing is _Hearing.WAITING
        if received != self._received:
            self._hearing = _Hearing.HEARD
        elif sent != self._sent and self._hearing is _Hearing.HEARD:
            self._hearing, self._since = _Hearing.WAITING, now
            self._ask()
        self._sent, self._received = sent, received
        if now >= self._trial_ends:
            self._trial = None
            if self._hearing is _Hearing.WAITING and _SUSPICION <= now - self._since <= _HOPE:
                self._try_another(now)
        return active

    def _ask(self) -> None:
        """Have the peer answer: what was sent last may have been an acknowledgement, which is not answered."""
        path = self._path_of(self.selected)
        if path is not None:
            with contextlib.suppress(_native.PathRefused):
                self._native.ping_path(path)
                self._pump.wake()

    def _try_another(self, now: float) -> None:
        used = [_way(pair) for pair in self._paths.values()]
        self._trial_ends = now + _TRIAL
        self._trial = next((pair for pair in self._checks.pairs if pair.is_valid and _way(pair) not in used), None)
        if self._trial is None and self._agreed:
            # None is known: all of them are checked again, this one too.
            self._checks.pair_lost(self.selected)

    def _keep(self) -> None:
        """Open what is missing, send over the selected pair once its path is validated, and close what is left over."""
        with contextlib.suppress(_native.ConnectionGone, _native.PathRefused):
            if not self._native.multipath():
                return
            for pair in (self.selected, self._trial):
                if pair is not None and self._path_of(pair) is None:
                    self._open(pair)
            self._rank()
            self._pump.wake()

    def _open(self, pair: CandidatePair) -> None:
        # None when it can't be yet: the next tick tries again.
        path = self._native.open_path(pair.remote.address, pair.base.host, backup=True)
        if path is not None:
            self._paths[path] = pair

    def _rank(self) -> None:
        chosen = self._path_of(self.selected)
        if chosen is None or chosen not in self._validated:
            return
        status = {cast("int", path["id"]): path["status"] for path in self._native.paths()}
        if status.get(chosen) == "backup":
            self._native.set_path_status(chosen, backup=False)
        for path, pair in list(self._paths.items()):
            if path == chosen:
                continue
            if status.get(path) == "available":
                self._native.set_path_status(path, backup=True)
            if path not in self._compared and (self._trial is None or _way(pair) != _way(self._trial)):
                self._native.close_path(path)
        self.on_ranked()

    def _path_of(self, pair: CandidatePair) -> int | None:
        way = _way(pair)
        return next((path for path, each in self._paths.items() if _way(each) == way), None)


def unheard() -> None:
    """Nobody wants to know."""


def _way(pair: CandidatePair) -> Way:
    return pair.base.host, pair.remote.address
