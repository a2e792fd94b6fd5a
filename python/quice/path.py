"""A connection's network paths as its user sees them, and what happens to them."""

from __future__ import annotations

import asyncio
import enum
import ipaddress
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

from quice._native import PathLoss
from quice.wire import Address

_MOST_KEPT = 256
"""Events that wait for one reader; of more, the oldest are dropped."""


class PathKind(str, enum.Enum):
    """What lies between the two ends of a path."""

    DIRECT = "direct"
    LAN = "lan"
    RELAY = "relay"

    @classmethod
    def of(cls, remote: Address) -> PathKind:
        """The kind of a path without a relay, by the peer's address: `LAN` for one of a private network."""
        return cls.LAN if remote.is_private else cls.DIRECT


@dataclass(frozen=True)
class Path:
    """One network path of a connection, as it is now. Times in seconds, sizes in bytes.

    `id` means this path as long as the connection lives. `status`: data goes over a "backup" only while no path is
    "available". `validated`: whether the peer has answered on it. `local` is None until a packet has come back; on a
    path through a relay of ours, it is the address that the relay has for us.
    """

    id: int
    kind: PathKind
    status: str
    validated: bool
    local: Address | None
    remote: Address
    rtt: float
    mtu: int
    congestion_window: int
    sent_packets: int
    lost_packets: int
    sent_bytes: int
    received_bytes: int

    @property
    def loss(self) -> float:
        """The share of the packets sent on it that got lost, 0.0 to 1.0."""
        return self.lost_packets / self.sent_packets if self.sent_packets else 0.0

    def __str__(self) -> str:
        return f"{self.kind.value} path to {self.remote}"


@dataclass(frozen=True)
class PathOpened:
    """Packets pass in both directions on another path. `time`: on the event loop's clock, in all events."""

    time: float
    path: Path


@dataclass(frozen=True)
class PathClosed:
    """A path was given up. `path`: as it was last seen. `reason`: "closed", "closed by the peer", "timed out" or
    "network changed"."""

    time: float
    path: Path
    reason: str


@dataclass(frozen=True)
class PathStatusChanged:
    """A path has become "available", or a "backup"."""

    time: float
    path: Path


@dataclass(frozen=True)
class PathChanged:
    """Data goes over another path than before, or the path's own ends are others than before."""

    time: float
    before: Path
    after: Path


PathEvent = PathOpened | PathClosed | PathStatusChanged | PathChanged


# What the engine calls its routes through relays: addresses that no network has.
_ROUTES = ipaddress.ip_network("fd71:7569:6365::/48")


@dataclass(frozen=True)
class Places:
    """What lies behind the addresses that the engine has for a path's ends.

    relayed: the relayed address of ours that stands behind a local one, as this peer address sees it; None if none
    does. is_relayed: whether an address of the peer's is at a relay.
    """

    relayed: Callable[[Address, Address], Address | None] = lambda local, remote: None
    is_relayed: Callable[[Address], bool] = lambda remote: False

    def path(self, values: dict[str, object]) -> Path:
        """A path as the engine tells it."""
        remote = Address(*cast("tuple[str, int]", values.pop("remote")))
        bound = cast("tuple[str, int] | None", values.pop("local"))
        local = Address(*bound) if bound is not None else None
        through_relay = local is not None and local.ip in _ROUTES
        if through_relay and local is not None:
            # None once the relay is gone, and its path about to follow.
            local = self.relayed(local, remote)
        kind = PathKind.RELAY if through_relay or self.is_relayed(remote) else PathKind.of(remote)
        return Path(kind=kind, local=local, remote=remote, **values)  # type: ignore[arg-type]


def carrying(paths: Iterable[Path]) -> Path | None:
    """The path that data goes over; None while none is validated."""
    validated = [path for path in paths if path.validated]
    return min(validated, key=lambda path: (path.status != "available", path.id), default=None)


class PathEvents:
    """What happens to a connection's paths from now on: an async iterator, which ends with the connection."""

    def __init__(self, wait: Callable[[], None]) -> None:
        """`wait`: called before it waits for an event."""
        self._wait = wait
        self._events: deque[PathEvent] = deque(maxlen=_MOST_KEPT)
        self._news = asyncio.Event()
        self._is_over = False

    def __aiter__(self) -> PathEvents:
        return self

    async def __anext__(self) -> PathEvent:
        while not self._events:
            if self._is_over:
                raise StopAsyncIteration
            self._news.clear()
            self._wait()
            await self._news.wait()
        return self._events.popleft()

    def _add(self, event: PathEvent) -> None:
        self._events.append(event)
        self._news.set()

    def _end(self) -> None:
        self._is_over = True
        self._news.set()


def _differ(before: Path, after: Path) -> bool:
    """Whether data goes another way now. That the local address has become known is nothing new."""
    if (before.id, before.remote) != (after.id, after.remote):
        return True
    return None not in (before.local, after.local) and before.local != after.local


class PathLog:
    """Finds out what has happened to a connection's paths, by what they were before; while somebody wants to know."""

    def __init__(self) -> None:
        self._readers: weakref.WeakSet[PathEvents] = weakref.WeakSet()
        self._known: dict[int, Path] = {}
        self._carrying: Path | None = None

    def add(self, reader: PathEvents, paths: Iterable[Path]) -> None:
        """Tell this reader of what happens from now on."""
        if not self._readers:
            self._known, self._carrying = {}, None
            self.update(paths, 0.0)
        self._readers.add(reader)

    @property
    def is_read(self) -> bool:
        """Whether anybody wants to know."""
        return bool(self._readers)

    def update(self, paths: Iterable[Path], now: float) -> None:
        """Something may have happened: these are the paths now."""
        validated = [path for path in paths if path.validated]
        for path in validated:
            before = self._known.get(path.id)
            self._known[path.id] = path
            if before is None:
                self._tell(PathOpened(now, path))
            elif before.status != path.status:
                self._tell(PathStatusChanged(now, path))
        before, after = self._carrying, carrying(validated)
        if after is None:
            return
        self._carrying = after
        if before is not None and _differ(before, after):
            self._tell(PathChanged(now, before, after))

    def lose(self, path: int, loss: PathLoss, now: float) -> None:
        """A path was given up."""
        known = self._known.pop(path, None)
        if known is not None:
            self._tell(PathClosed(now, known, _REASONS[loss]))

    def close(self) -> None:
        """The connection is over."""
        for reader in self._readers:
            reader._end()
        self._readers.clear()

    def _tell(self, event: PathEvent) -> None:
        for reader in self._readers:
            reader._add(event)


_REASONS = {
    PathLoss.Closed: "closed",
    PathLoss.ClosedByPeer: "closed by the peer",
    PathLoss.TimedOut: "timed out",
    PathLoss.NetworkChanged: "network changed",
}
