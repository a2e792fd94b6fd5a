"""Which QUIC paths a connection has: that of the pair which the checks have selected, a relay's in reserve, and for a
while another.

The side that made the connection sees to it, for only a client opens paths, and the other side does as it says
(draft-ietf-quic-multipath §3.3). One path is enough as long as it works; when none does, and the checks find another
pair, the path moves there. Another is opened when the checks select another pair, and when nothing comes back any
more: with two of them, the engine leaves the one on which nothing is answered within `path_idle_timeout`. A new path is
validated before the old one is left. A path through a relay stays beside a direct one, so that there is somewhere to go
at once. Others that the engine has opened may stay for as long as they are compared.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Protocol, cast

from quice import _native
from quice.checks import ConnectivityChecks
from quice.hearing import Hearing
from quice.ice import CandidatePair
from quice.surroundings import Surroundings
from quice.wire import Address

_SUSPICION = 1.0
"""Seconds without any answer to what was sent, after which another way is tried: a congested link can be as slow."""
_CUT_OFF = 0.5
"""Seconds without any answer after which a path is moved to the pair that the checks have found, rather than left for
another: what was lost on it is sent again at once then."""
_SETTLING = 1.0
"""Seconds that another pair has to show that it works before a third is tried. So long after a path has moved no other
is opened where it was, as what comes from there is for the one that has moved."""
_TRIAL = 2.5
"""Seconds for which another path is tried beside the silent one."""
_HOPE = 20.0
"""Seconds of silence after which no other is tried, since each puts off the idle timeout."""

Way = tuple[Address, Address]
"""The base and the peer's address."""


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


class PathKeeper:
    """Keeps one connection on the pairs that work. It observes the checks, such as the connection's session."""

    def __init__(
        self,
        native: _native.Connection,
        surroundings: Surroundings,
        first: CandidatePair,
        checks: ConnectivityChecks,
        hearing: Hearing,
    ) -> None:
        """`first`: the pair that the connection was made on. hearing: of the connection; who has it calls `on_tick`."""
        self._native = native
        self._surroundings = surroundings
        self._pump = surroundings.pump
        self._relays = surroundings.relays
        self._checks = checks
        self._hearing = hearing
        self._loop = asyncio.get_running_loop()
        self._paths: dict[int, CandidatePair] = {0: first}
        self._validated = {0}
        self._left: Way | None = None
        """Where one was before it moved, and until when that is not settled."""
        self._settled = float("-inf")
        self.selected = first
        """The pair that is to carry data."""
        self.on_ranked: Callable[[], None] = unheard
        self._agreed = False
        self._compared: dict[int, CandidatePair] = {}
        self._trial: CandidatePair | None = None
        self._trial_ends = 0.0
        self._closed = False

    def follow(self, checks: ConnectivityChecks) -> None:
        """Take other checks' word from now on."""
        self._checks = checks

    def on_pairs(self, pairs: Iterable[CandidatePair]) -> None:
        """There may be new pairs: they are checked, and selected if one is better."""

    def on_valid(self, pair: CandidatePair) -> None:
        """Another pair works, too."""

    def on_selected(self, pair: CandidatePair) -> None:
        """The checks have chosen this pair."""
        self.select(pair, urgent=False)

    def select(self, pair: CandidatePair, *, urgent: bool) -> None:
        """Have this pair carry data. urgent: what carried it does not work any more, as one side has found."""
        if pair.relays and not urgent and self._is_direct:
            self._keep()
            return
        former, self.selected, self._agreed = self.selected, pair, True
        # The peer is heard on it after a round trip at least.
        self._trial, self._trial_ends = None, self._loop.time() + _SETTLING
        # Since then it may have come back, or be another one already.
        is_cut_off = self._is_cut_off or (urgent and self._hearing.pause >= _CUT_OFF)
        with contextlib.suppress(_native.ConnectionGone, _native.PathRefused):
            if self._path_of(pair) is None:
                self._go(former, pair, is_cut_off=is_cut_off)
            elif is_cut_off:
                self._native.nudge()
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
        pair = self._paths.get(path)
        if pair is not None and self._trial is not None and _way(pair) == _way(self._trial):
            # It works, where the other is silent.
            with contextlib.suppress(_native.ConnectionGone, _native.PathRefused):
                before = self._path_of(self.selected)
                if before is not None and self._paths[before].remote.address == pair.remote.address:
                    self._move(before, pair)
                self.selected, self._trial = pair, None
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
            left = min(self._paths, key=lambda path: path not in self._validated, default=None)
            self.selected = self._paths[left] if left is not None else self.selected
            self._trial = None
            self._report_lost(pair)
        self._keep()

    def on_named(self) -> None:
        """See `PathObserver`: the checks have what they need from elsewhere."""

    def close(self) -> None:
        """See `PathObserver`."""
        self._closed = True
        self._relays.release(self)

    def on_tick(self) -> None:
        """Some time has passed: see whether the peer answers, and do what could not be done before."""
        if self._closed:
            return
        now, silence = self._loop.time(), self._hearing.silence
        if silence < _SUSPICION:
            # What was silent is not any more.
            self._trial = None
        if now >= self._trial_ends:
            self._trial = None
            if _SUSPICION <= silence <= _HOPE:
                self._try_another(now)
        if any(self._path_of(pair) is None for pair in self._wanted) or len(self._paths) > 1:
            self._keep()

    @property
    def _is_direct(self) -> bool:
        """Whether what is in use needs no relay, and works. Checks may not know of it: without a STUN server nobody can
        name where a NAT lets packets in by now. Where they know of no direct pair at all, one side hides."""
        if self.selected.relays or self._is_cut_off or self._path_of(self.selected) not in self._validated:
            return False
        return any(not pair.relays for pair in self._checks.pairs)

    @property
    def _is_settling(self) -> bool:
        return self._loop.time() < self._settled

    def _try_another(self, now: float) -> None:
        used = [_way(pair) for pair in self._paths.values()]
        self._trial_ends = now + _TRIAL
        valid = (pair for pair in self._checks.pairs if pair.is_valid and _way(pair) not in used)
        self._trial = next((pair for pair in valid if self._moved_from(pair) is None), None)
        if self._trial is None and self._agreed:
            # None is known: all of them are checked again, this one too.
            self._report_lost(self.selected)

    def _report_lost(self, pair: CandidatePair) -> None:
        if (known := self._known(pair)) is not None:
            instead = self._known(self.selected)
            self._checks.pair_lost(known, instead if instead is not known else None)

    def _known(self, pair: CandidatePair) -> CandidatePair | None:
        """What the checks have for this pair, which they may know from an earlier session's by its addresses alone."""
        return next((each for each in self._checks.pairs if _way(each) == _way(pair)), None)

    def _keep(self) -> None:
        """Open what is missing, send over the selected pair once its path is validated, and close what is left over."""
        with contextlib.suppress(_native.ConnectionGone, _native.PathRefused):
            if not self._native.multipath():
                return
            wanted = self._wanted
            for pair in wanted:
                if self._path_of(pair) is None and not (_way(pair) == self._left and self._is_settling):
                    self._open(pair)
            self._rank([_way(pair) for pair in wanted])
            self._pump.wake()

    @property
    def _is_cut_off(self) -> bool:
        """Whether no path works, as far as is known here."""
        here = {base.address.host for base in self._surroundings.bases}
        bases = [pair.base for pair in self._paths.values()]
        gone = not any(base.host in here or self._relays.is_relayed(base) for base in bases)
        return gone or self._hearing.silence >= _CUT_OFF

    def _go(self, former: CandidatePair, pair: CandidatePair, *, is_cut_off: bool) -> None:
        """Let a path go on over this pair, if that is better than another path beside it."""
        path = self._moved_from(pair)
        if path is None and is_cut_off:
            path = self._movable(former)
        if path is not None:
            self._move(path, pair)

    def _movable(self, former: CandidatePair) -> int | None:
        """The path to go on with elsewhere, in a silence. On one that is not validated the peer may have no connection
        ids to answer with: those for later paths may have been lost with earlier ones."""
        paths = sorted(self._paths, key=lambda path: (path not in self._validated, path != self._path_of(former)))
        return next(iter(paths), None)

    def _move(self, path: int, pair: CandidatePair) -> None:
        """Let a path go on over this pair, and no other."""
        self._relays.open(pair.base, pair.remote.address, self)
        self._native.move_path(path, pair.remote.address, self._relays.host_of(pair.base))
        self._left, self._settled = _way(self._paths[path]), self._loop.time() + _SETTLING
        self._paths = {path: pair}
        self._validated.add(path)
        self._compared.clear()
        self._pump.wake()

    @property
    def _wanted(self) -> list[CandidatePair]:
        """The pairs that there are to be paths of."""
        pairs = (self.selected, self._trial, self._reserve)
        return [pair for pair in pairs if pair is not None]

    @property
    def _reserve(self) -> CandidatePair | None:
        """A pair through a relay, beside a direct one that is in use: one that has a path and is still valid, if there
        is one. A relay that was restarted has other addresses than before, and nobody tells."""
        if self.selected.relays:
            return None
        valid = [pair for pair in self._checks.pairs if pair.is_valid and pair.relays]
        valid = [pair for pair in valid if self._moved_from(pair) is None]
        open_ = [pair for pair in self._paths.values() if pair.relays]
        ways = [_way(pair) for pair in valid]
        confirmed = [pair for pair in open_ if _way(pair) in ways]
        return next(iter((*confirmed, *valid, *open_)), None)

    def _moved_from(self, pair: CandidatePair) -> int | None:
        """The path that was over this pair, and is so yet to the engine: none can be opened there beside it."""
        with contextlib.suppress(_native.ConnectionGone):
            return self._native.moved_from(pair.remote.address, self._relays.host_of(pair.base))
        return None

    def _open(self, pair: CandidatePair) -> None:
        remote = pair.remote.address
        self._relays.open(pair.base, remote, self)
        # None when it can't be yet: the next tick tries again.
        path = self._native.open_path(remote, self._relays.host_of(pair.base), backup=True)
        if path is not None:
            self._paths[path] = pair

    def _rank(self, wanted: list[Way]) -> None:
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
            if path not in self._compared and _way(pair) not in wanted:
                self._native.close_path(path)
        self._relays.release(self, {remote for _, remote in (*wanted, *map(_way, self._paths.values()))})
        self.on_ranked()

    def _path_of(self, pair: CandidatePair) -> int | None:
        way = _way(pair)
        return next((path for path, each in self._paths.items() if _way(each) == way), None)


def unheard() -> None:
    """Nobody wants to know."""


def _way(pair: CandidatePair) -> Way:
    return pair.base, pair.remote.address
