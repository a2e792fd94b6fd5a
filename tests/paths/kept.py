"""A path keeper among fakes: an engine, surroundings, a hearing and checks that do what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import cast

from quice import _native
from quice.hearing import Hearing
from quice.ice import Base, Candidate, CandidateKind, CandidatePair, PairState
from quice.paths import PathKeeper
from quice.sim.simulation import Simulation
from quice.surroundings import Surroundings
from quice.wire import Address

Ends = tuple[Address, str]
"""The peer's address, and the local host as the engine calls it."""

RELAY_HOST = "fd71:7569:6365::1"
"""What the engine calls our relay."""
TICK = 0.25


def candidate(kind: CandidateKind, host: str, port: int = 4433) -> Candidate:
    return Candidate(kind=kind, address=Address(host, port), priority=1, foundation=host)


HOME = candidate(CandidateKind.HOST, "192.168.1.2")
MOBILE = candidate(CandidateKind.HOST, "10.9.0.7")
OUR_RELAY = candidate(CandidateKind.RELAYED, "203.0.113.9", 49160)
PEER_AT_HOME = candidate(CandidateKind.HOST, "192.168.1.3")
PEER_MAPPED = candidate(CandidateKind.SERVER_REFLEXIVE, "198.51.100.3")
PEER_RELAY = candidate(CandidateKind.RELAYED, "203.0.113.20", 50001)

WAYS = {
    "lan": (HOME, PEER_AT_HOME),
    "mapped": (HOME, PEER_MAPPED),
    "mobile": (MOBILE, PEER_MAPPED),
    "our relay": (OUR_RELAY, PEER_MAPPED),
    "their relay": (HOME, PEER_RELAY),
}


def pair(way: str, state: PairState = PairState.SUCCEEDED) -> CandidatePair:
    return CandidatePair(*WAYS[way], state)


def ends_of(way: str) -> Ends:
    local, remote = WAYS[way]
    return remote.address, RELAY_HOST if local is OUR_RELAY else local.address.host


NAMES = {ends_of(way): way for way in WAYS}


@dataclass(frozen=True)
class EnginePath:
    ends: Ends
    known: Ends
    """What QUIC takes the ends for, wherever the path was moved to."""
    status: str = "backup"


@dataclass
class Engine:
    """A client's connection in the engine: its paths, which nothing but the test validates or loses."""

    open: dict[int, EnginePath]
    most: int = 4
    """Paths that the peer allows at once."""
    has_multipath: bool = True
    is_gone: bool = False
    refuses: bool = False
    nudges: int = 0
    statuses: int = 0
    """How often a status was set, of which the peer is told."""
    closed: list[int] = field(default_factory=list)
    """Paths that were closed and not yet told to be lost."""
    opened: int = 1

    def multipath(self) -> bool:
        self._live()
        return self.has_multipath

    def open_path(self, remote: Address, local: str, *, backup: bool) -> int | None:
        self._live()
        if self.refuses:
            raise _native.PathRefused
        if len(self.open) >= self.most:
            return None
        path, self.opened = self.opened, self.opened + 1
        self.open[path] = EnginePath((remote, local), (remote, local), "backup" if backup else "available")
        return path

    def move_path(self, path: int, remote: Address, local: str) -> None:
        self._live()
        moved = self._path(path)
        for other in [each for each in self.open if each != path]:
            self.close_path(other)
        self.open[path] = replace(moved, ends=(remote, local))

    def moved_from(self, remote: Address, local: str) -> int | None:
        self._live()
        ends = (remote, local)
        return next((number for number, path in self.open.items() if path.known == ends != path.ends), None)

    def set_path_status(self, path: int, *, backup: bool) -> None:
        self._live()
        self.statuses += 1
        self.open[path] = replace(self._path(path), status="backup" if backup else "available")

    def close_path(self, path: int) -> None:
        self._live()
        self._path(path)
        if len(self.open) == 1:
            raise _native.PathRefused
        del self.open[path]
        self.closed.append(path)

    def paths(self) -> list[dict[str, object]]:
        return [{"id": number, "status": path.status} for number, path in self.open.items()]

    def nudge(self) -> None:
        self._live()
        self.nudges += 1

    def _live(self) -> None:
        if self.is_gone:
            raise _native.ConnectionGone

    def _path(self, path: int) -> EnginePath:
        if self.refuses or path not in self.open:
            raise _native.PathRefused
        return self.open[path]


@dataclass
class Pump:
    wakes: int = 0

    def wake(self) -> None:
        self.wakes += 1


@dataclass
class Relays:
    """One relay of ours, and whom it lets in for whom."""

    let_in: dict[object, set[Address]] = field(default_factory=dict)

    def is_relayed(self, address: Address) -> bool:
        return address == OUR_RELAY.address

    def host_of(self, base: Address) -> str:
        return RELAY_HOST if self.is_relayed(base) else base.host

    def open(self, base: Address, peer: Address, owner: object) -> None:
        if self.is_relayed(base):
            self.let_in.setdefault(owner, set()).add(peer)

    def release(self, owner: object, keep: Collection[Address] = ()) -> None:
        self.let_in[owner] = self.let_in.get(owner, set()) & set(keep)


@dataclass
class Around:
    """What a keeper asks of its surroundings."""

    pump: Pump = field(default_factory=Pump)
    relays: Relays = field(default_factory=Relays)
    bases: list[Base] = field(default_factory=lambda: [Base(HOME.address), Base(MOBILE.address)])


@dataclass
class Heard:
    silence: float = 0.0
    pause: float = 0.0


@dataclass
class Checks:
    """The pairs that checks know, the best first, and those they were told are lost, with what is used instead."""

    pairs: list[CandidatePair] = field(default_factory=list)
    lost: list[tuple[CandidatePair, CandidatePair | None]] = field(default_factory=list)

    def pair_lost(self, pair: CandidatePair, instead: CandidatePair | None) -> None:
        self.lost.append((pair, instead))


class Kept:
    """A keeper that is on the path 0 over a pair which the checks know, too, and what is around it."""

    def __init__(self, simulation: Simulation, first: str) -> None:
        self._simulation = simulation
        self.engine = Engine({0: EnginePath(ends_of(first), ends_of(first), "available")})
        self.around = Around()
        self.hearing = Heard()
        self.checks = Checks()
        self.find(first)
        self.keeper = PathKeeper(
            cast("_native.Connection", self.engine),
            cast("Surroundings", self.around),
            pair(first),
            self.checks,
            cast("Hearing", self.hearing),
        )

    @property
    def paths(self) -> dict[int, str]:
        """The engine's paths: what they lead over, and their status."""
        return {number: f"{NAMES[path.ends]}, {path.status}" for number, path in self.engine.open.items()}

    @property
    def selected(self) -> str:
        selected = self.keeper.selected
        return next(way for way, ends in WAYS.items() if ends == (selected.local, selected.remote))

    def find(self, way: str) -> CandidatePair:
        """The checks find that this pair works, and like it less than those that they know."""
        known = next((each for each in self.checks.pairs if (each.local, each.remote) == WAYS[way]), None)
        if known is None:
            known = pair(way)
            self.checks.pairs.append(known)
        return known

    def follow(self, *ways: str) -> list[CandidatePair]:
        """Other checks, which have found these pairs to work, are asked from now on."""
        self.checks = Checks()
        self.keeper.follow(self.checks)
        return [self.find(way) for way in ways]

    def select(self, way: str, *, urgent: bool = False) -> CandidatePair:
        """The checks find a pair and select it."""
        found = self.find(way)
        self.keeper.select(found, urgent=urgent)
        return found

    def compare(self, way: str) -> CandidatePair:
        """The engine opens a path over this pair by itself, which is to be compared."""
        path = self.engine.open_path(*ends_of(way), backup=True)
        assert path is not None
        found = self.find(way)
        self.keeper.compare(path, found)
        self.keeper.on_opened(path)
        return found

    def lose(self, path: int) -> None:
        """A path is given up."""
        del self.engine.open[path]
        self.keeper.on_lost(path)

    def hear_of_closed(self) -> None:
        """The engine tells that the paths that were closed are no more."""
        closed, self.engine.closed = self.engine.closed, []
        for path in closed:
            self.keeper.on_lost(path)

    def wait(self, seconds: float) -> None:
        """Time passes, and the hearing ticks meanwhile."""
        for _ in range(round(seconds / TICK)):
            self._simulation.run(asyncio.sleep(TICK))
            self.keeper.on_tick()
            self.hear_of_closed()
