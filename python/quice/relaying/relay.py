"""One relay of an endpoint: an allocation by the first way that works, kept, and renewed when it is lost.

UDP from the best local address goes first; others, and TCP and TLS for networks that let no UDP out, follow a moment
later unless something has been heard by then, and ask for an allocation only if UDP is still silent when they could.
What has an allocation first stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from quice import turn
from quice.errors import RelayError
from quice.ice import Base, Candidate, CandidateKind
from quice.ice.candidate import MAX_LOCAL_PREFERENCE, foundation, priority
from quice.ice.gather import ranked, usable
from quice.pump import Pump
from quice.reasons import reason_of
from quice.relaying.link import Link
from quice.relaying.server import RelayServer
from quice.tunnel import open_tunnel
from quice.turn.uri import ServerUri, Transport
from quice.wire import Address, Random

logger = logging.getLogger(__name__)

_STAGGER = 0.01
"""Seconds between two ways that are tried: what answers within them spares a relay a stream and us a handshake."""
_LIMIT = 10.0
"""Seconds that all ways together have."""
_FAIR_TIME = 0.5
"""Seconds that they have at least before all are tried anew."""
_BACKOFF = (0.5, 30.0)
"""Seconds before the first and, doubled each time, at most before a later try to get an allocation."""
_LINGER = 5.0
"""Seconds for which QUIC may go on through an allocation that the relay does not let us keep, at most."""
MAX_WAYS = 8
"""Ways to a server that are tried if somebody else has named it: its name may stand for any number of addresses."""
_FAMILIES = (4, 6)


class CandidateSink(Protocol):
    """What is told of relayed candidates."""

    def add(self, candidate: Candidate) -> None:
        """Peers can reach us here."""

    def withdraw(self, candidate: Candidate) -> None:
        """No longer."""


@dataclass(frozen=True)
class _Way:
    """One way to a server: from a local address by UDP, or by TCP or TLS from where the system likes."""

    uri: ServerUri
    server: Address
    source: Address | None = None


class Relay:
    """Has an allocation at one server, or tries to, until it is closed."""

    def __init__(
        self,
        server: RelayServer,
        pump: Pump,
        rng: Random,
        bases: Callable[[], Sequence[Base]],
        sink: CandidateSink,
        concluded: Callable[[], None],
        allocated: Callable[[Link], None],
        replaced: Callable[[], None],
    ) -> None:
        """`concluded`: called once the first try has succeeded or failed. `allocated`: called with each allocation,
        before sessions are told of its addresses; `replaced`: after that, if there was another before."""
        self.server = server
        self.link: Link | None = None
        """The way to the allocation that there is."""
        self.problem: str | None = None
        """Why there is none."""
        self._pump = pump
        self._rng = rng
        self._bases = bases
        self._sink = sink
        self._concluded = concluded
        self._allocated = allocated
        self._replaced = replaced
        self._had_one = False
        self._loop = asyncio.get_running_loop()
        self._candidates: list[Candidate] = []
        self._trying: dict[Link, asyncio.Future[Link]] = {}
        self._lingering: list[Link] = []
        self._settled = asyncio.Event()
        """A way has come to its end."""
        self._lost = asyncio.Event()
        self._hurry = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="quice relay")

    @property
    def links(self) -> list[Link]:
        """All that the server may send to."""
        return [*self._trying, *self.routes]

    @property
    def routes(self) -> list[Link]:
        """All that QUIC may use: that of the allocation first, and those of former ones."""
        return [*([self.link] if self.link is not None else []), *self._lingering]

    def check(self) -> None:
        """The network may have changed: see whether the allocation is still there, and get another if not."""
        if self.link is None:
            self._hurry.set()
        elif self.link.is_from_here(base.address for base in self._bases()):
            self.link.check()
        else:
            self._drop_link()

    def close(self) -> None:
        """Give the allocation back."""
        self._task.cancel()
        for link in self.links:
            link.close()
        self._lingering.clear()
        self._withdraw()

    async def _run(self) -> None:
        pause, longest = _BACKOFF
        while True:
            self._lost.clear()
            self._hurry.clear()
            try:
                link = await asyncio.wait_for(self._find_anew(), _LIMIT)
            except (RelayError, OSError, ValueError, asyncio.TimeoutError) as error:
                self.problem = f"{self.server.uris[0]}: {reason_of(error)}"
                logger.info("no allocation at the relay %s", self.problem)
                self._conclude()
                jitter = 1 + self._rng.getrandbits(8) / 256
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._hurry.wait(), pause * jitter)
                pause = min(2 * pause, longest)
            else:
                pause, _ = _BACKOFF
                self.problem = None
                self._use(link)
                self._conclude()
                await self._lost.wait()

    def _conclude(self) -> None:
        concluded, self._concluded = self._concluded, lambda: None
        concluded()

    async def _find_anew(self) -> Link:
        """`_find`, begun again when there is reason to do so and nobody answers: the requests of one that has lasted
        are far apart, and may leave from where we are not any more. Raises what it does."""
        while True:
            again = self._loop.time() + _FAIR_TIME
            finding = asyncio.create_task(self._find(), name="quice relay search")
            hurry = asyncio.create_task(self._hurry.wait(), name="quice relay hurry")
            try:
                await asyncio.wait((finding, hurry), return_when=asyncio.FIRST_COMPLETED)
                await asyncio.wait((finding,), timeout=max(0.0, again - self._loop.time()))
                if finding.done() or any(link.is_heard for link in self._trying):
                    return await finding
            finally:
                self._hurry.clear()
                finding.cancel()
                hurry.cancel()
                await asyncio.gather(finding, hurry, return_exceptions=True)

    async def _find(self) -> Link:
        """An allocation, by the first way that gets one. Raises why there is none."""
        waiting = await self._ways()
        tasks: list[asyncio.Task[Link]] = []
        error: Exception = RelayError("no local address reaches the relay")
        try:
            while waiting or tasks:
                if waiting and not any(link.is_heard for link in self._trying):
                    way = waiting.pop(0)
                    tasks.append(asyncio.create_task(self._try(way), name="quice relay way"))
                done, _ = await asyncio.wait(
                    tasks, timeout=_STAGGER if waiting else None, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    tasks.remove(task)
                    if (failure := task.exception()) is None:
                        return task.result()
                    if not isinstance(failure, RelayError | OSError | ValueError):
                        raise failure
                    error = failure
            raise error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _ways(self) -> list[_Way]:
        """The ways there are: one of each kind first, then those from other local addresses."""
        first: list[_Way] = []
        others: list[_Way] = []
        bases = [base.address for base, _ in ranked(usable(self._bases()))]
        for uri in self.server.uris:
            if uri.transport is not Transport.UDP:
                if await self._may_be_reached(uri):
                    first.append(_Way(uri, Address(uri.host, uri.port)))
                continue
            for server in await self._resolve(uri):
                if not self.server.may_be_at(server.host):
                    continue
                ways = [_Way(uri, server, base) for base in bases if _can_reach(base, server)]
                first += ways[:1]
                others += ways[1:]
        ways = first + others
        return ways if self.server.named_at is None else ways[:MAX_WAYS]

    async def _may_be_reached(self, uri: ServerUri) -> bool:
        """Whether a stream may be opened there: not if a stranger's name for it is that of a machine close to us."""
        if self.server.named_at is None:
            return True
        try:
            return all(self.server.may_be_at(server.host) for server in await self._resolve(uri))
        except OSError:
            # A proxy may know the name better than we do.
            return True

    async def _resolve(self, uri: ServerUri) -> list[Address]:
        found = await self._loop.getaddrinfo(uri.host, uri.port, type=socket.SOCK_DGRAM)
        hosts = dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found)
        return [Address(host, uri.port) for host in hosts]

    async def _try(self, way: _Way) -> Link:
        if way.source is None:
            host, port, secure = way.uri.host, way.uri.port, way.uri.transport is Transport.TLS
            tunnel = await open_tunnel(host, port, tls=secure, timeout=_LIMIT)
            try:
                await self._let_others_finish()
            except BaseException:
                tunnel.abort()
                raise
            server, source = tunnel.remote, tunnel.local
        else:
            tunnel, server, source = None, way.server, way.source
        allocated: asyncio.Future[Link] = self._loop.create_future()
        link = Link(self._pump, self._rng, self, server, source, self.server.credentials, tunnel)
        self._trying[link] = allocated
        link.start()
        try:
            return await allocated
        except BaseException:
            link.close()
            raise
        finally:
            self._trying.pop(link, None)
            self._settled.set()

    async def _let_others_finish(self) -> None:
        """Wait for what the server has answered already."""
        while any(link.is_heard for link in self._trying):
            self._settled.clear()
            await self._settled.wait()

    def on_allocated(self, link: Link) -> None:
        """See `LinkObserver`."""
        if (allocated := self._trying.get(link)) is not None and not allocated.done():
            allocated.set_result(link)

    def on_ended(self, link: Link, event: turn.Failed | turn.Lost) -> None:
        """See `LinkObserver`."""
        if link is self.link:
            logger.info("the allocation at the relay was lost")
            if event.code == turn.Code.WRONG_CREDENTIALS:
                self._lingering.append(link)
                self._loop.call_later(_LINGER, self._let_go, link)
            self._forget_link()
        elif (allocated := self._trying.get(link)) is not None and not allocated.done():
            allocated.set_exception(RelayError(event.reason))

    def _use(self, link: Link) -> None:
        self.link = link
        if not link.relayed:
            # It was lost in the same moment.
            self._drop_link()
            return
        self._allocated(link)
        rank = int(not link.is_datagram)
        for number, address in enumerate(link.relayed):
            preference = MAX_LOCAL_PREFERENCE - len(_FAMILIES) * rank - number
            candidate = Candidate(
                kind=CandidateKind.RELAYED,
                address=address,
                base=address,
                related_address=link.mapped,
                priority=priority(CandidateKind.RELAYED, preference),
                foundation=foundation(CandidateKind.RELAYED, address.host, link.server.host),
            )
            self._candidates.append(candidate)
            self._sink.add(candidate)
        had_one, self._had_one = self._had_one, True
        if had_one:
            self._replaced()

    def _drop_link(self) -> None:
        if self.link is not None:
            self.link.close()
        self._forget_link()

    def _forget_link(self) -> None:
        self.link = None
        self._withdraw()
        self._lost.set()

    def _let_go(self, link: Link) -> None:
        if link in self._lingering:
            self._lingering.remove(link)
            link.close()

    def _withdraw(self) -> None:
        candidates, self._candidates = self._candidates, []
        for candidate in candidates:
            self._sink.withdraw(candidate)


def _can_reach(base: Address, server: Address) -> bool:
    here, there = base.without_zone.ip, server.without_zone.ip
    return here.version == there.version and (there.is_loopback or not here.is_loopback)
