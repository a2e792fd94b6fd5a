"""Signalling for the peers that have none: `python -m bench.connect.mailbox HOST` passes lines from one to another.

A TCP connection's first line is {"name": …}. Each line after it is a JSON object whose `to` names who gets it, with the
sender's name as `from`. Nobody proves who he is, and a client may name itself and send in one go: that is as fast as
signalling over TCP can be.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

from bench.connect.lines import say


class Mailbox:
    """A client's end of it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, host: str, port: int, name: str) -> Mailbox:
        mailbox = cls(*await asyncio.open_connection(host, port))
        mailbox.send(name=name)
        return mailbox

    def send(self, **message: object) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")

    async def receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await self._reader.readline())
        return message

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        async for line in self._reader:
            yield json.loads(line)


async def serve(host: str) -> None:
    writers: dict[str, asyncio.StreamWriter] = {}

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = json.loads(await reader.readline())["name"]
        writers[name] = writer
        async for line in reader:
            message = json.loads(line)
            if (receiver := writers.get(message["to"])) is not None:
                receiver.write(json.dumps({**message, "from": name}).encode() + b"\n")
        del writers[name]
        writer.close()

    server = await asyncio.start_server(pass_on, host, 0)
    port = server.sockets[0].getsockname()[1]
    say(address=f"{host}:{port}")
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
