"""A client of the TURN service on an event loop, real or simulated: it allocates, and keeps what comes."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator
from typing import Any, cast

from quice.machine import this_machine
from quice.server import Server
from quice.stun.auth import LongTerm
from quice.turn.allocation import AddressFamilies
from quice.turn.client import Client
from quice.turn.credentials import time_limited
from quice.turn.events import Event, Received
from quice.turn.framing import Splitter, framed
from quice.wire import Address

SECRET = "a secret of tests"


def credentials(name: str = "peer", *, lifetime: float = 600.0) -> LongTerm:
    """What the rendezvous would give a peer."""
    return time_limited(SECRET, this_machine().unix_time() + lifetime, name)


class RelayedPeer(asyncio.Protocol, asyncio.DatagramProtocol):
    """See `quice.turn.Client`."""

    def __init__(self, server: Address, account: LongTerm, *, tcp: bool = False, **options: Any) -> None:
        self.events: list[Event] = []
        self.happened = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._server = server
        self._account = account
        self._tcp = tcp
        self._options = options
        self._splitter = Splitter()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)
        self._source = Address(*transport.get_extra_info("sockname")[:2])
        rng = random.Random(self._source.port)
        now = self._loop.time()
        self.client = Client(self._server, self._source, self._account, rng, now, reliable=self._tcp, **self._options)
        self.settle()

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self.client.receive(data, Address(*addr[:2]), self._source, self._loop.time())
        self.settle()

    def data_received(self, data: bytes) -> None:
        for message in self._splitter.feed(data):
            self.client.receive(message, self._server, self._source, self._loop.time())
        self.settle()

    def connection_lost(self, exc: Exception | None) -> None:
        self.happened.set()

    def settle(self) -> None:
        """Send and note what the client wants."""
        for transmit in self.client.transmits():
            if self._tcp:
                cast("asyncio.Transport", self._transport).write(framed(transmit.data))
            else:
                self._transport.sendto(transmit.data, tuple(transmit.destination))
        events = list(self.client.events())
        if events:
            self.events += events
            self.happened.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        when = self.client.timeout()
        if when is not None:
            self._timer = self._loop.call_at(when, self._on_timer)

    def close(self, *, release: bool = True) -> None:
        """Leave; without a word to the server if not to `release`."""
        if release:
            self.client.close(self._loop.time())
            self.settle()
        if self._timer is not None:
            self._timer.cancel()
        self._transport.close()

    @property
    def relayed(self) -> tuple[Address, ...]:
        """The relayed addresses."""
        assert self.client.allocation is not None
        return self.client.allocation.relayed

    async def event(self, kind: type[Event]) -> Any:
        """The next event of a kind, out of those not taken yet."""
        while True:
            for event in self.events:
                if isinstance(event, kind):
                    self.events.remove(event)
                    return event
            self.happened.clear()
            await self.happened.wait()

    async def received(self) -> tuple[bytes, Address]:
        """The next data, and from whom."""
        event: Received = await self.event(Received)
        return event.data, event.peer

    def permit(self, *peers: Address) -> None:
        """Ask for permissions."""
        self.client.permit([peer.host for peer in peers], self._loop.time())
        self.settle()

    def bind(self, peer: Address) -> None:
        """Ask for a channel."""
        self.client.bind(peer, self._loop.time())
        self.settle()

    def send(self, data: bytes, peer: Address) -> None:
        """Send to a peer."""
        assert self.client.send(data, peer, self._loop.time())
        self.settle()

    def _on_timer(self) -> None:
        self._timer = None
        self.client.handle_timeout(self._loop.time())
        self.settle()


@contextlib.asynccontextmanager
async def relayed_peer(
    server: Server | Address,
    account: LongTerm | None = None,
    *,
    tcp: bool = False,
    local: tuple[str, int] | None = None,
    families: AddressFamilies = AddressFamilies.IPV4,
) -> AsyncIterator[RelayedPeer]:
    """A client that has begun to allocate."""
    at = server if isinstance(server, Address) else server.stun
    loop = asyncio.get_running_loop()
    peer = RelayedPeer(at, account or credentials(), tcp=tcp, families=families)
    if tcp:
        await loop.create_connection(lambda: peer, at.host, at.port)
    else:
        local = local or (("::1", 0) if ":" in at.host else ("127.0.0.1", 0))
        await loop.create_datagram_endpoint(lambda: peer, local)
    try:
        yield peer
    finally:
        peer.close()


@contextlib.asynccontextmanager
async def sink(host: str = "127.0.0.1") -> AsyncIterator[tuple[socket.socket, Address]]:
    """A peer without TURN: a UDP socket."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as plain:
        plain.setblocking(False)
        plain.bind((host, 0))
        yield plain, Address(*plain.getsockname()[:2])
