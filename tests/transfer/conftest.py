"""Two endpoints on loopback, and transfers between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from quice import Address, Connection, Endpoint, Stream
from quice.transfer.messages import ALPN
from quice.transfer.receiver import Received, fetch
from quice.transfer.sender import serve_stream
from quice.transfer.sources import collect

Side = Callable[[Stream], Coroutine[Any, Any, Any]]


@dataclass
class Outcome:
    """What each side of a transfer returned or raised."""

    sent: Any
    received: Any


@dataclass
class Loopback:
    """A sending and a receiving endpoint. Each transfer has a connection of its own."""

    sender: Endpoint
    receiver: Endpoint
    skipped: list[tuple[Path, str]] = field(default_factory=list)

    async def connect(self) -> tuple[Connection, Connection]:
        """A new connection, as the receiver and as the sender see it."""
        address = Address("127.0.0.1", self.sender.port)
        near = await self.receiver.connect(self.sender.peer, alpn=ALPN, address=address)
        return near, await self.sender.accept()

    async def play(self, send: Side, receive: Side) -> Outcome:
        """Run both sides on a new stream, each to its end."""
        near, far = await self.connect()

        async def sending() -> Any:
            async with far:
                result = await send(await far.accept_stream())
                await asyncio.wait_for(far.wait_closed(), 10)
                return result

        async def receiving() -> Any:
            async with near:
                return await receive(await near.open_stream())

        sent, received = await asyncio.wait_for(asyncio.gather(sending(), receiving(), return_exceptions=True), 40)
        return Outcome(sent, received)

    async def transfer(self, paths: Sequence[Path], out: Path, *, overwrite: bool = False) -> tuple[int, Received]:
        """Send these to the folder `out`, and expect that to succeed."""
        sources = collect(paths, lambda path, why: self.skipped.append((path, why)))
        outcome = await self.play(
            lambda stream: serve_stream(stream, sources, nothing),
            lambda stream: fetch(stream, out, nothing, overwrite=overwrite),
        )
        assert isinstance(outcome.sent, int), outcome.sent
        assert isinstance(outcome.received, Received), outcome.received
        assert outcome.sent == outcome.received.bytes
        return outcome.sent, outcome.received

    async def receive_from(self, sender: Callable[[Stream], Awaitable[None]], out: Path) -> Any:
        """What our receiver returns or raises when `sender` is at the other end."""

        async def send(stream: Stream) -> None:
            await sender(stream)

        return (await self.play(send, lambda stream: fetch(stream, out, nothing))).received

    async def send_to(self, receiver: Callable[[Stream], Awaitable[None]], path: Path) -> Any:
        """What our sender of `path` returns or raises when `receiver` is at the other end."""
        sources = collect([path], lambda *_: None)

        async def receive(stream: Stream) -> None:
            await receiver(stream)

        return (await self.play(lambda stream: serve_stream(stream, sources, nothing), receive)).sent


def nothing(done: int, total: int) -> None:
    """Progress that nobody watches."""


@pytest.fixture
async def loopback() -> AsyncIterator[Loopback]:
    async with (
        Endpoint.bind(alpns=[ALPN], host="127.0.0.1") as sender,
        Endpoint.bind(host="127.0.0.1") as receiver,
    ):
        yield Loopback(sender, receiver)


def tree(folder: Path) -> dict[str, bytes | None]:
    """What is below a folder: the bytes of files, None for folders."""
    return {
        str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }
