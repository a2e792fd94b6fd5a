"""quice with a connection that stays where it is: `python -m bench.peer_relayed receive|send GROUND`.

GROUND is a JSON object: `rendezvous`, a URL; `relay`, null or an object with `uri`, `username` and `password`, for a
side that is to be seen at a relayed address alone; and, for the one that sends, `to`, the peer's name, and `seconds`.

The receiver says {"peer": NAME}, and takes one connection. The sender says {"measuring": true}, and false, and then
what became of it: bytes that arrived and the seconds that took, packets of both sides, packets that got lost, their
size, CPU seconds of both processes, and the kinds of the paths that data took as both sides see them.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import AbstractAsyncContextManager
from typing import Any

from quice import Connection, Endpoint, PeerId, Policy, RelayServer, Stream

ALPN = "bench-relay"
BLOCK = 256 << 10
WARM_UP = 0.5
"""Seconds of sending that do not count: the window opens, and the packet size is found."""
SETTLE = 0.5
"""Seconds in which an endpoint gets its relayed address."""

Ground = dict[str, Any]


def say(**values: object) -> None:
    """Tell the driver something."""
    print(json.dumps(values), flush=True)


def bind(ground: Ground, *alpns: str) -> AbstractAsyncContextManager[Endpoint]:
    """An endpoint on loopback, with the relay if it is to have one."""
    relay = ground["relay"]
    relays = [RelayServer.parse(relay["uri"], relay["username"], relay["password"])] if relay else []
    server, policy = ground["rendezvous"], policy_of(ground)
    return Endpoint.bind(server=server, alpns=alpns, host="127.0.0.1", relays=relays, policy=policy)


def policy_of(ground: Ground) -> Policy:
    return Policy.RELAY if ground["relay"] else Policy.AUTO


async def receive(ground: Ground) -> None:
    async with bind(ground, ALPN) as endpoint:
        await asyncio.sleep(SETTLE)
        say(peer=str(endpoint.peer))
        connection = await anext(aiter(endpoint))
        await take(connection, await connection.accept_stream())


async def take(connection: Connection, stream: Stream) -> None:
    """Read to the end, and answer with what came after the warm-up."""
    buffer = bytearray(1 << 20)
    started = time.monotonic() + WARM_UP
    while time.monotonic() < started:
        await stream.readinto(buffer)
    started = ended = time.monotonic()
    total, before, cpu = 0, connection.stats, time.process_time()
    while count := await stream.readinto(buffer):
        total += count
        ended = time.monotonic()
    taken = {
        "bytes": total,
        "seconds": ended - started,
        "receiver_cpu": time.process_time() - cpu,
        "answers": connection.stats.sent_datagrams - before.sent_datagrams,
        "kinds": kinds(connection),
    }
    await stream.write(json.dumps(taken).encode())
    stream.finish()
    await connection.wait_closed()


async def send(ground: Ground) -> None:
    async with bind(ground) as endpoint:
        await asyncio.sleep(SETTLE)
        peer = PeerId.parse(ground["to"])
        async with await endpoint.connect(peer, alpn=ALPN, policy=policy_of(ground)) as connection:
            stream = await connection.open_stream()
            started = time.monotonic()
            await write_until(stream, started + WARM_UP)
            before, cpu = connection.stats, time.process_time()
            say(measuring=True)
            await write_until(stream, started + WARM_UP + ground["seconds"])
            say(measuring=False)
            stream.finish()
            taken = json.loads(await stream.read())
            after = connection.stats
            taken["sender_cpu"] = time.process_time() - cpu
            taken["packets"] = after.sent_datagrams - before.sent_datagrams
            taken["lost"] = after.lost_packets - before.lost_packets
            taken["size"] = max(path.mtu for path in connection.paths)
            taken["kinds"] += kinds(connection)
            say(**taken)


def kinds(connection: Connection) -> list[str]:
    """Of the paths that data takes."""
    return [path.kind.value for path in connection.paths if path.status == "available"]


async def write_until(stream: Stream, deadline: float) -> None:
    block = bytes(BLOCK)
    while time.monotonic() < deadline:
        await stream.write(block)


if __name__ == "__main__":
    asyncio.run({"receive": receive, "send": send}[sys.argv[1]](json.loads(sys.argv[2])))
