"""Connectivity checks by QUIC itself: path challenges to the peer's addresses, within a connection that there is.

Both sides name their candidates' addresses in noq's NAT traversal frames (after draft-seemann-quic-nat-traversal). Then
both probe each other's, as often as the client says: each is a round, which opens NATs as ICE's checks do. The engine
makes a path of each address that answers, and keeps probes away from where a peer must not send us. The client compares
the new paths with the one in use, by the rules that the ICE agent has for pairs, and moves to a better one.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ipaddress
from collections.abc import Iterator
from typing import Protocol, cast

from quice import _native
from quice.checks import Checks
from quice.config import TransportConfig
from quice.discovery import Discovery
from quice.discovery import Event as DiscoveryEvent
from quice.hearing import Hearing
from quice.ice import Candidate, CandidateKind, CandidatePair, PairState
from quice.ice.controlling import NOMINATION_PATIENCE
from quice.ice.preference import Preference, is_promising
from quice.paths import PathKeeper, PathObserver, unheard
from quice.surroundings import Surroundings
from quice.wire import Address

_PAUSES = (5.0, 10.0, 20.0, 40.0)
"""Seconds between rounds that find nothing better. One lasts four."""
_LEAST_PAUSE = 0.05
"""Seconds between two rounds at least, however often the peer names other addresses."""
_PROBATION = 2.0
"""Seconds after a move for which the paths left, and others, stay as backups: until the new one has proven itself, and
what the round still finds does not open them again."""
_COMPARISON = 1.0
"""Seconds for which a path is measured at least."""
_CHALLENGE_COUNTS = 0.5
"""Seconds after it was opened in which a path's round-trip time is still that of its challenge."""
_TICK = 0.25
"""Seconds between two looks at paths that are compared."""
_MOST_NAMED = 8
"""What peers take, and noq's own limit for each side."""
_MOST_PAIRS = 16
"""Pairs that are remembered. A peer makes up as many as it has ports."""
_FIRST_PATH = 0
# RFC 6598 §7: within carriers, neither private nor public.
_SHARED = ipaddress.ip_network("100.64.0.0/10")


class Improvement(Protocol):
    """How a connection that was made gets better paths: one of `IMPROVEMENTS`."""

    def configured(self, config: TransportConfig) -> TransportConfig:
        """The settings that it needs."""

    def lead(self, native: _native.Connection, surroundings: Surroundings) -> PathObserver | None:
        """Begin, as the client of the connection. None when the peer does not take part."""

    def follow(self, native: _native.Connection, surroundings: Surroundings) -> PathObserver | None:
        """Likewise as the server."""


class NoImprovement:
    """Leave that to the session, if there is one."""

    def configured(self, config: TransportConfig) -> TransportConfig:
        """See `Improvement`."""
        return config

    def lead(self, native: _native.Connection, surroundings: Surroundings) -> PathObserver | None:
        """See `Improvement`."""
        return None

    follow = lead


class Challenging:
    """By path challenges."""

    def configured(self, config: TransportConfig) -> TransportConfig:
        """See `Improvement`."""
        return dataclasses.replace(config, nat_traversal=True)

    def lead(self, native: _native.Connection, surroundings: Surroundings) -> PathObserver | None:
        """See `Improvement`."""
        return Challenger(native, surroundings) if _is_spoken(native) else None

    def follow(self, native: _native.Connection, surroundings: Surroundings) -> PathObserver | None:
        """See `Improvement`."""
        return Challenged(native, surroundings) if _is_spoken(native) else None


IMPROVEMENTS: dict[Checks, Improvement] = {Checks.STUN: NoImprovement(), Checks.QUIC: Challenging()}


class Naming:
    """Tells the peer the addresses of our candidates: as the server at once, as the client with the next round."""

    def __init__(self, native: _native.Connection, discovery: Discovery) -> None:
        self._native = native
        self._discovery = discovery
        self._named: dict[Address, None] = {}

    def renew(self) -> bool:
        """Name what is new, take back what is true no more. Returns whether there was anything."""
        wanted = dict.fromkeys(_nameable(self._discovery.candidates))
        before = list(self._named)
        for address in before:
            if address not in wanted:
                self._native.remove_nat_traversal_address(address)
                del self._named[address]
        for address in wanted:
            if address not in self._named:
                # The peer may take fewer: then the best are with it.
                with contextlib.suppress(_native.NatTraversalRefused):
                    self._native.add_nat_traversal_address(address)
                    self._named[address] = None
        return list(self._named) != before


class Challenged:
    """The server's part: it names its addresses. The engine answers challenges, and probes when the client asks."""

    def __init__(self, native: _native.Connection, surroundings: Surroundings) -> None:
        self.on_ranked = unheard
        self._discovery = discovery = surroundings.discovery
        self._naming = Naming(native, discovery)
        self._pump = surroundings.pump
        discovery.listen(self._on_discovery)
        self._renew()

    def on_opened(self, path: int) -> None:
        """See `PathObserver`: the client says what to do with it."""

    def on_lost(self, path: int) -> None:
        """Likewise."""

    def on_named(self) -> None:
        """A server is told the client's addresses with each round alone."""

    def close(self) -> None:
        """See `PathObserver`."""
        self._discovery.unlisten(self._on_discovery)

    def _on_discovery(self, event: DiscoveryEvent) -> None:
        self._renew()

    def _renew(self) -> None:
        with contextlib.suppress(_native.ConnectionGone):
            if self._naming.renew():
                self._pump.wake()


class Rounds:
    """Has both sides probe each other's addresses: when there is something new, and a few times more."""

    def __init__(self, native: _native.Connection, surroundings: Surroundings, naming: Naming) -> None:
        self._native = native
        self._pump = surroundings.pump
        self._discovery = discovery = surroundings.discovery
        self._naming = naming
        self._loop = asyncio.get_running_loop()
        self._pauses: Iterator[float] = iter(())
        self._last = float("-inf")
        self._timer: asyncio.TimerHandle | None = None
        discovery.listen(self._on_discovery)

    def start(self) -> None:
        """Begin a round, and more of them until `stop`."""
        self._pauses = iter(_PAUSES)
        # Even if at once, not before all is known that has come now.
        self._next_at(max(self._loop.time(), self._last + _LEAST_PAUSE))

    def stop(self) -> None:
        """Begin no more, until there is something new."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """The connection is over."""
        self._discovery.unlisten(self._on_discovery)
        self.stop()

    def _on_discovery(self, event: DiscoveryEvent) -> None:
        self.start()

    def _next_at(self, when: float) -> None:
        self.stop()
        self._timer = self._loop.call_at(when, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._last = self._loop.time()
        try:
            self._naming.renew()
            self._native.initiate_nat_traversal_round()
        except _native.ConnectionGone:
            return
        except _native.NatTraversalRefused:
            # We have no address yet.
            pass
        self._pump.wake()
        pause = next(self._pauses, None)
        if pause is not None:
            self._next_at(self._last + pause)


class Challenger:
    """The client's part: it moves to what rounds have found, if that is better. Implements `ConnectivityChecks`."""

    def __init__(self, native: _native.Connection, surroundings: Surroundings) -> None:
        self._native = native
        self._surroundings = surroundings
        self._loop = asyncio.get_running_loop()
        self.on_ranked = unheard
        self._naming = Naming(native, surroundings.discovery)
        self._rounds = Rounds(native, surroundings, self._naming)
        self._known: list[CandidatePair] = []
        # Once there is a second path: before there is no choice, nor is it known where packets leave from.
        self._keeper: PathKeeper | None = None
        self._hearing: Hearing | None = None
        self._preference = Preference()
        self._moved_at = float("-inf")
        self._opened: dict[int, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._rounds.start()

    @property
    def pairs(self) -> list[CandidatePair]:
        """See `ConnectivityChecks`."""
        return sorted(self._known, key=_order)

    def pair_lost(self, pair: CandidatePair, instead: CandidatePair | None) -> None:
        """See `ConnectivityChecks`."""
        pair.move(PairState.FAILED)
        self._preference.forget(pair)
        self._rounds.start()

    def on_opened(self, path: int) -> None:
        """See `PathObserver`."""
        with contextlib.suppress(_native.ConnectionGone):
            ends = _ends(self._native)
            if self._keeper is None:
                if _FIRST_PATH not in ends:
                    # Given up at the same time: what is left needs no keeper.
                    return
                first = self._pair_between(*ends[_FIRST_PATH])
                self._hearing = Hearing(self._native, self._surroundings.pump, self._on_tick)
                self._keeper = PathKeeper(self._native, self._surroundings, first, self, self._hearing)
                self._keeper.on_ranked = self.on_ranked
            if path in ends and self._keeper.pair_of(path) is None:
                self._keeper.compare(path, self._pair_between(*ends[path]))
                self._opened[path] = self._loop.time()
            self._keeper.on_opened(path)
            # Others may open in the same moment, and there is no haste: data flows.
            self._compare_in(NOMINATION_PATIENCE, self._keeper)

    def on_lost(self, path: int) -> None:
        """See `PathObserver`."""
        self._opened.pop(path, None)
        if self._keeper is not None:
            self._keeper.on_lost(path)

    def on_named(self) -> None:
        """See `PathObserver`."""
        self._rounds.start()

    def close(self) -> None:
        """See `PathObserver`."""
        self._rounds.close()
        if self._keeper is not None:
            self._keeper.close()
        if self._hearing is not None:
            self._hearing.close()
        if self._timer is not None:
            self._timer.cancel()

    def _on_tick(self) -> None:
        if self._keeper is not None:
            self._keeper.on_tick()

    def _pair_between(self, local: Address, remote: Address) -> CandidatePair:
        """The pair of a path that is validated."""
        known = next((each for each in self._known if (each.base, each.remote.address) == (local, remote)), None)
        if known is None:
            known = _pair(local, remote)
            self._known = [*self._known[-_MOST_PAIRS + 1 :], known]
        elif not known.is_valid:
            known.move(PairState.WAITING)
            known.move(PairState.SUCCEEDED)
        return known

    def _compare_in(self, seconds: float, keeper: PathKeeper) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(seconds, self._compare, keeper)

    def _compare(self, keeper: PathKeeper) -> None:
        self._timer = None
        try:
            self._measure(keeper)
        except _native.ConnectionGone:
            return
        now = self._loop.time()
        better = [pair for pair in keeper.compared.values() if self._preference.replaces(pair, keeper.selected, now)]
        if better:
            self._move(min(better, key=_order), now, keeper)
        for path, pair in keeper.compared.items():
            due = max(self._moved_at + _PROBATION, self._opened.get(path, float("-inf")) + _COMPARISON)
            if now >= due and not is_promising(pair, keeper.selected):
                keeper.end_comparison(path)
        if keeper.compared:
            self._ask(keeper)
            self._compare_in(_TICK, keeper)

    def _ask(self, keeper: PathKeeper) -> None:
        """Have the engine measure the paths that are compared: nothing else is sent over them."""
        for path in keeper.compared:
            with contextlib.suppress(_native.ConnectionGone, _native.PathRefused):
                self._native.ping_path(path)
        self._surroundings.pump.wake()

    def _move(self, pair: CandidatePair, now: float, keeper: PathKeeper) -> None:
        self._moved_at = now
        self._preference.select(now)
        keeper.replace(pair)
        # What was looked for is found.
        self._rounds.stop()

    def _measure(self, keeper: PathKeeper) -> None:
        rtts = {cast("int", path["id"]): cast("float", path["rtt"]) for path in self._native.paths()}
        now = self._loop.time()
        for path, rtt in rtts.items():
            pair = keeper.pair_of(path)
            if pair is not None:
                is_own = pair is keeper.selected or now < self._opened.get(path, float("-inf")) + _CHALLENGE_COUNTS
                pair.rtt = rtt if is_own else _unmixed(rtt, keeper.selected.rtt or rtt)


def _unmixed(rtt: float, used: float) -> float:
    """The round-trip time of a backup path. What is acknowledged of it comes back on the path in use: its way there and
    that one's way back is what was measured."""
    return max(0.0, 2 * rtt - used)


def _order(pair: CandidatePair) -> tuple[int, float]:
    """The best first."""
    return pair.detour, pair.rtt or 0.0


def _is_spoken(native: _native.Connection) -> bool:
    """Whether both sides have NAT traversal on, and the connection lives."""
    try:
        # Taking back what was never named tells the peer nothing.
        native.remove_nat_traversal_address(("192.0.2.0", 1))
    except (_native.NatTraversalRefused, _native.ConnectionGone):
        return False
    return True


def _nameable(candidates: list[Candidate]) -> list[Address]:
    """The addresses to name, the most promising first. Half of them may be public ones, for many interfaces must not
    push them out."""
    usable = [each for each in candidates if _is_nameable(each)]
    usable.sort(key=lambda candidate: -candidate.priority)
    host = [each.address for each in usable if each.kind is CandidateKind.HOST]
    other = [each.address for each in usable if each.kind is not CandidateKind.HOST]
    some = host[: max(_MOST_NAMED // 2, _MOST_NAMED - len(other))]
    return list(dict.fromkeys(some + other))[:_MOST_NAMED]


def _is_nameable(candidate: Candidate) -> bool:
    """Not an IPv6 link-local one, for the frames can't say on which link, nor a relay's, which lets in none but those
    that it was told of."""
    is_link_local = ":" in candidate.address.host and candidate.address.ip.is_link_local
    return not is_link_local and candidate.kind is not CandidateKind.RELAYED


def _ends(native: _native.Connection) -> dict[int, tuple[Address, Address]]:
    """The local and the remote address of each path that is known to have both."""
    paths = cast("list[dict[str, tuple[str, int] | None]]", native.paths())
    return {
        cast("int", path["id"]): (Address(*path["local"]), Address(*path["remote"]))
        for path in paths
        if path["local"] is not None and path["remote"] is not None
    }


def _pair(local: Address, remote: Address) -> CandidatePair:
    """A pair that works. The frames don't say what kind of candidate an address is of, but where it means something."""
    kind = CandidateKind.HOST if _realm(local) == _realm(remote) else CandidateKind.SERVER_REFLEXIVE
    ours = Candidate(kind=CandidateKind.HOST, address=local.without_zone, priority=0, foundation="", base=local)
    theirs = Candidate(kind=kind, address=remote, priority=0, foundation="")
    return CandidatePair(ours, theirs, PairState.SUCCEEDED)


def _realm(address: Address) -> str:
    """Between two addresses of one realm there is no NAT (RFC 2663 §2.1), as far as they tell."""
    if address.is_private:
        return "private"
    ip = address.without_zone.ip
    return "shared" if ip.version == 4 and ip in _SHARED else "public"
