"""An HTTP proxy that passes streams on, and knows names that nobody else knows."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from tests.turn.streams import listening


@dataclass
class HttpProxy:
    """A running proxy. `names`: where the names lead that it is asked for; others lead nowhere."""

    names: dict[str, tuple[str, int]]
    user: str | None = None
    port: int = 0
    asked: list[str] = field(default_factory=list)
    """The first lines of what it was asked."""
    answer: bytes | None = None
    """What it says to everybody, if it does not do its work."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one stream on."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.asked.append(head.splitlines()[0])
            method, target, _ = head.splitlines()[0].split()
            if self.answer is not None:
                writer.write(self.answer)
            elif self.user is not None and f"Basic {base64.b64encode(self.user.encode()).decode()}" not in head:
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            elif method != "CONNECT" or target not in self.names:
                writer.write(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
            else:
                from_there, to_there = await asyncio.open_connection(*self.names[target])
                writer.write(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
                try:
                    await asyncio.gather(_pass(reader, to_there), _pass(from_there, writer))
                finally:
                    to_there.transport.abort()
        writer.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def serving(names: dict[str, tuple[str, int]], user: str | None = None) -> AsyncIterator[HttpProxy]:
    """A proxy on loopback, for as long as the block."""
    proxy = HttpProxy(names, user)
    async with listening(proxy.serve) as proxy.port:
        yield proxy
