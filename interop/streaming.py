"""Our TURN client over TCP or TLS, on asyncio."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from quice.stun.auth import LongTerm
from quice.tunnel import Tunnel, open_tunnel
from quice.turn import AddressFamilies, Client, Event, Redirected, Splitter
from quice.wire import Address

EventT = TypeVar("EventT")


class Streaming:
    """A client at the other end of a tunnel, and what it has told."""

    def __init__(
        self,
        tunnel: Tunnel,
        server: Address,
        credentials: LongTerm,
        families: AddressFamilies,
        context: ssl.SSLContext | None,
    ) -> None:
        self.tunnel = tunnel
        self._context = context
        self._moving: asyncio.Task[None] | None = None
        self.told: list[Event] = []
        self.ended = False
        self._loop = asyncio.get_running_loop()
        self._splitter = Splitter()
        self._changed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        rng = random.SystemRandom()
        self.client = Client(
            server, tunnel.local, credentials, rng, self._loop.time(), families=families, reliable=True
        )
        tunnel.on_data = self._take
        tunnel.on_closed = self._end
        self.flush()

    def flush(self) -> None:
        """Write what the client has to send, take what it tells, and set its timer."""
        told = list(self.client.events())
        self.told += told
        for event in told:
            if isinstance(event, Redirected):
                self.tunnel.abort()
                self._moving = asyncio.ensure_future(self._move(event))
        if self._moving is None:
            for transmit in self.client.transmits():
                self.tunnel.send(transmit.data)
        self._changed.set()
        if self._timer is not None:
            self._timer.cancel()
        due = self.client.timeout()
        self._timer = None if due is None else self._loop.call_at(due, self._wake)

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait until something is so."""
        while not done():
            self._changed.clear()
            await self._changed.wait()

    async def wait_for(self, kind: type[EventT]) -> EventT:
        """The first event of this class."""
        await self.until(lambda: any(isinstance(event, kind) for event in self.told))
        return next(event for event in self.told if isinstance(event, kind))

    async def close(self) -> None:
        """Release the allocation, then end the stream."""
        self.client.close(self._loop.time())
        self.flush()
        await self.until(lambda: self.client.is_over or self.ended)
        self.tunnel.abort()
        if self._timer is not None:
            self._timer.cancel()

    async def _move(self, to: Redirected) -> None:
        """Open a stream to the server that was named. To the client, its own address is the same as before."""
        host, port = to.server
        name = to.domain or "127.0.0.1"
        self.tunnel = await open_tunnel(
            host, port, tls=self._context is not None, ssl_context=self._context, server_hostname=name
        )
        self._splitter = Splitter()
        self.tunnel.on_data, self.tunnel.on_closed = self._take, self._end
        self._moving = None
        self.flush()

    def _take(self, data: bytes) -> None:
        for message in self._splitter.feed(data):
            self.client.receive(message, self.client.server, self.client.source, self._loop.time())
        self.flush()

    def _wake(self) -> None:
        self.client.handle_timeout(self._loop.time())
        self.flush()

    def _end(self, error: Exception | None) -> None:
        self.ended = True
        self._changed.set()


@asynccontextmanager
async def streaming(
    host: str,
    port: int,
    credentials: LongTerm,
    *,
    context: ssl.SSLContext | None = None,
    families: AddressFamilies = AddressFamilies.IPV4,
) -> AsyncIterator[Streaming]:
    """A client over TLS if there is a context, else over TCP, for as long as the block."""
    tunnel = await open_tunnel(host, port, tls=context is not None, ssl_context=context)
    client = Streaming(tunnel, tunnel.remote, credentials, families, context)
    try:
        yield client
    finally:
        await client.close()
