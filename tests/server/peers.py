"""A server on loopback, and peers that speak its protocol frame by frame, correctly or not."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from quice.identity import Identity, PeerId
from quice.server import Server
from quice.signal import protocol
from quice.signal.protocol import Challenge, Deliver, Delivered, Register, Registered, RelayServer, ToPeer, ToServer

SESSION = b"s" * protocol.SESSION_LENGTH


@dataclass
class RawPeer:
    """A WebSocket connection to a server, and the key that is registered on it."""

    socket: ClientConnection
    identity: Identity = field(default_factory=Identity.generate)
    relays: tuple[RelayServer, ...] = ()

    @property
    def peer(self) -> PeerId:
        return self.identity.peer

    async def send(self, message: ToServer | bytes | str) -> None:
        await self.socket.send(message if isinstance(message, (bytes, str)) else protocol.encode(message))

    async def receive(self) -> ToPeer:
        return protocol.decode_to_peer(await self.socket.recv())

    async def register(self, **changes: Any) -> None:
        """Answer the challenge, with a registration that may differ from a correct one."""
        challenge = await self.receive()
        assert isinstance(challenge, Challenge)
        signature = self.identity.sign(protocol.signed_text(challenge.nonce, self.peer))
        values: dict[str, Any] = {"version": protocol.VERSION, "peer": self.peer.key, "signature": signature}
        await self.send(Register(**values | changes))

    async def registered(self) -> RawPeer:
        await self.register()
        registered = await self.receive()
        assert isinstance(registered, Registered)
        self.relays = registered.relays
        return self

    async def deliver(self, to: PeerId, body: bytes) -> None:
        await self.send(Deliver(to=to.key, session=SESSION, body=body))

    async def body(self) -> bytes:
        message = await self.receive()
        assert isinstance(message, Delivered)
        return message.body

    async def ended(self) -> tuple[int | None, str | None]:
        """The code and reason with which the server ends the connection."""
        with contextlib.suppress(Exception):
            while True:
                await self.socket.recv()
        return self.socket.close_code, self.socket.close_reason


@contextlib.asynccontextmanager
async def raw_peer(server: Server, identity: Identity | None = None, **options: Any) -> AsyncIterator[RawPeer]:
    """A connection that has not registered yet."""
    async with connect(server.url, compression=None, proxy=None, close_timeout=0.5, **options) as socket:
        yield RawPeer(socket, identity or Identity.generate())


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that no event tells of; the test's own timeout is the limit."""
    while not condition():
        await asyncio.sleep(0.005)


async def interrupted_everywhere(attempt: Callable[[], Awaitable[object]]) -> int:
    """Begin the attempt again and again, and cancel it one turn of the loop later each time, until it is over
    before that. Returns at how many turns it was cancelled.
    """
    turns = 0
    while True:
        task = asyncio.ensure_future(attempt())
        for _ in range(turns):
            await asyncio.sleep(0)
        if task.done():
            await task
            return turns
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        turns += 1


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server("127.0.0.1", 0, 0) as server:
        yield server


@pytest.fixture(autouse=True)
async def no_failure_goes_unseen() -> AsyncIterator[None]:
    """No exception in a callback, and none in a task that nobody awaits."""
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    yield
    gc.collect()
    await asyncio.sleep(0)
    assert failures == []
