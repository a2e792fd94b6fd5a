"""quice through its public API: `python -m bench.connect.quice_peer answer|warm|cold GROUND` (see `lines.py`)."""

from __future__ import annotations

import asyncio
import json
import sys

from bench.connect.lines import PATIENCE, SETTLE, SIZE, Ground, say, told_to_go
from quice import Connection, Endpoint, Error, PathKind, PeerId

ALPN = "bench-connect"
_POLL = 0.002


async def answer(ground: Ground) -> None:
    async with Endpoint.bind(server=ground["rendezvous"], alpns=[ALPN]) as endpoint:
        await asyncio.sleep(SETTLE)
        say(peer=str(endpoint.peer))
        tasks = set()
        async for connection in endpoint:
            task = asyncio.create_task(answer_one(connection))
            tasks.add(task)
            task.add_done_callback(tasks.discard)


async def answer_one(connection: Connection) -> None:
    stream = await connection.accept_stream()
    await stream.write(await stream.readexactly(SIZE))
    stream.finish()
    await connection.wait_closed()


async def call(ground: Ground, *, cold: bool) -> None:
    loop = asyncio.get_running_loop()
    peer = PeerId.parse(ground["to"])
    if cold:
        await told_to_go()
    started = loop.time()
    async with Endpoint.bind(server=ground["rendezvous"]) as endpoint:
        if not cold:
            await asyncio.sleep(SETTLE)
            await told_to_go()
            started = loop.time()
        connection = await endpoint.connect(peer, alpn=ALPN, timeout=PATIENCE)
        connected = loop.time() - started
        became_direct = asyncio.create_task(direct_at(connection, ground["direct"]))
        stream = await connection.open_stream()
        await stream.write(bytes(SIZE))
        stream.finish()
        await stream.read()
        answered = loop.time() - started
        direct = await became_direct
        say(connected=connected, answered=answered, direct=None if direct is None else direct - started)


async def direct_at(connection: Connection, possible: bool) -> float | None:
    """When data first goes over a path without a relay, on the loop's clock; None if that does not come about."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + (PATIENCE if possible else 0)
    while not any(path.status == "available" and path.kind is not PathKind.RELAY for path in connection.paths):
        if loop.time() >= deadline:
            return None
        await asyncio.sleep(_POLL)
    return loop.time()


def main() -> None:
    mode, ground = sys.argv[1], json.loads(sys.argv[2])
    try:
        asyncio.run(answer(ground) if mode == "answer" else call(ground, cold=mode == "cold"))
    except Error as error:
        say(failed=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
