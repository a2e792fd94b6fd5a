"""One long stream between two programs, and whatever interrupts it: `python -m lab.streaming` is either end.

    python -m lab.streaming accept URL --size BYTES --rate BYTES     sends to who connects
    python -m lab.streaming connect URL --peer PEER                  receives

Both take --policy, and --told FILE, for what the peer tells through the rendezvous server, where it is sealed. They
print what happens, a JSON object a line; times are those of the system's monotonic clock, which all processes of a
machine share. The sender goes on until it has sent `size` bytes and has a line on its standard input: `rate` bytes a
second until then, the rest as fast as it can.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable

from blake3 import blake3

from quice import Connection, Endpoint, Path, PathKind, PeerId, Stream, TransportConfig
from quice.policy import Policy
from quice.signal.seal import Seal

ALPN = "streaming/1"
BLOCK = 1 << 16
"""Bytes, the first eight of which are the block's number."""
NOTED = 0.05
"""Seconds; a shorter time between two arrivals is no pause worth telling."""
_NUMBER = 8
_READ = 1 << 18
# What was not sent in time is not made up for by a burst longer than this, in seconds.
_BURST = 0.1
_WATCH = 0.05
# Bytes in that time; a ping, or a probe for a larger packet, is less.
_DATA = 1 << 13
PROGRESS = 0.25
# Nobody hears of a host that is stopped, or without a network, and it is to be still connected afterwards.
CONFIG = TransportConfig(idle_timeout=120.0)

Say = Callable[..., None]


def say(event: str, **told: object) -> None:
    """Print an event."""
    print(json.dumps({"event": event, "at": time.monotonic(), **told}), flush=True)


async def send(stream: Stream, size: int, rate: float, released: asyncio.Event) -> tuple[int, str]:
    """Send at least `size` bytes, and until released; returns how many, and their digest."""
    digest, content = blake3(), os.urandom(BLOCK - _NUMBER)
    sent, due = 0, time.monotonic()
    while sent < size or not released.is_set():
        block = (sent // BLOCK).to_bytes(_NUMBER, "big") + content
        await stream.write(block)
        digest.update(block)
        sent += len(block)
        if not released.is_set():
            now = time.monotonic()
            due = max(due + len(block) / rate, now - _BURST)
            if due > now:
                await asyncio.sleep(due - now)
    stream.finish()
    return sent, digest.hexdigest()


class Receiver:
    """Reads a stream to its end, and tells of every pause. A block out of turn raises `ValueError`."""

    def __init__(self, say: Say, clock: Callable[[], float] = time.monotonic) -> None:
        self.bytes = 0
        self._say = say
        self._clock = clock
        self._digest = blake3()
        self._begun = bytearray()
        self._last = self._told = clock()

    async def receive(self, stream: Stream) -> tuple[int, str]:
        """Returns how many bytes there were, and their digest."""
        while data := await stream.read(_READ):
            self._arrived(data)
        self._tell(self._clock())
        return self.bytes, self._digest.hexdigest()

    def _arrived(self, data: bytes) -> None:
        now = self._clock()
        if now - self._last >= NOTED:
            self._say("pause", since=self._last, until=now)
        self._last = now
        self._check(data)
        if now - self._told >= PROGRESS:
            self._tell(now)

    def _check(self, data: bytes) -> None:
        self._digest.update(data)
        self._begun += data
        whole = len(self._begun) // BLOCK
        first = self.bytes // BLOCK
        self.bytes += len(data)
        for index in range(whole):
            number = int.from_bytes(self._begun[index * BLOCK : index * BLOCK + _NUMBER], "big")
            if number != first + index:
                raise ValueError(f"block {first + index} of the stream came as {number}")
        del self._begun[: whole * BLOCK]

    def _tell(self, now: float) -> None:
        self._told = now
        self._say("progress", bytes=self.bytes, last=self._last)


async def watch(connection: Connection) -> None:
    """Tell on which path most of the data comes, whenever it is another, and which others through relays there are."""
    received: dict[int, int] = {}
    carrier: object = None
    reserve: list[int] = []
    while True:
        paths = connection.paths
        relayed = [
            path.id for path in paths if path.kind is PathKind.RELAY and path.validated and path.status == "backup"
        ]
        if relayed != reserve:
            say("reserve", ids=relayed)
            reserve = relayed
        grown = {path: path.received_bytes - received.get(path.id, 0) for path in paths}
        received = {path.id: path.received_bytes for path in paths}
        most = max(grown, key=lambda path: grown[path], default=None)
        if most is not None and grown[most] >= _DATA and (where := _described(most)) != carrier:
            carrier = where
            say("path", **where)
        await asyncio.sleep(_WATCH)


def _described(path: Path) -> dict[str, object]:
    return {"id": path.id, "kind": path.kind.value, "local": str(path.local), "remote": str(path.remote)}


def note_told(file: pathlib.Path) -> None:
    """Write down what comes through the rendezvous server, once it is opened: one after the other."""
    opening = Seal.open

    def noting(seal: Seal, sealed: bytes) -> bytes | None:
        text = opening(seal, sealed)
        with file.open("ab") as out:
            out.write(text or b"")
        return text

    Seal.open = noting


async def accept(url: str, policy: Policy, size: int, rate: float) -> None:
    """Send to the first peer that connects."""
    released = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), released.set)
    async with Endpoint.bind(server=url, alpns=[ALPN], config=CONFIG, policy=policy) as endpoint:
        say("ready", peer=str(endpoint.peer))
        connection = await endpoint.accept()
        async with connection:
            say("connected", seconds=connection.connect_seconds)
            await _be_sender(connection, size, rate, released)


async def connect(url: str, policy: Policy, peer: PeerId) -> None:
    """Receive from a peer."""
    async with Endpoint.bind(server=url, config=CONFIG) as endpoint:
        connection = await endpoint.connect(peer, alpn=ALPN, policy=policy)
        async with connection:
            say("connected", seconds=connection.connect_seconds)
            await _be_receiver(connection)


async def _be_sender(connection: Connection, size: int, rate: float, released: asyncio.Event) -> None:
    stream = await connection.open_stream(unidirectional=True)
    sent, digest = await send(stream, size, rate, released)
    await connection.wait_closed()
    say("done", bytes=sent, digest=digest)


async def _be_receiver(connection: Connection) -> None:
    stream = await connection.accept_stream()
    watching = asyncio.create_task(watch(connection))
    received, digest = await Receiver(say).receive(stream)
    watching.cancel()
    say("done", bytes=received, digest=digest)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lab.streaming", description=__doc__)
    roles = parser.add_subparsers(dest="role", required=True)
    accepting = roles.add_parser("accept")
    accepting.add_argument("url")
    accepting.add_argument("--size", type=int, required=True)
    accepting.add_argument("--rate", type=float, required=True)
    connecting = roles.add_parser("connect")
    connecting.add_argument("url")
    connecting.add_argument("--peer", type=PeerId.parse, required=True)
    for role in (accepting, connecting):
        role.add_argument("--policy", type=Policy, default=Policy.AUTO)
        role.add_argument("--told", type=pathlib.Path)
    options = parser.parse_args()
    if options.told is not None:
        note_told(options.told)
    try:
        if options.role == "accept":
            asyncio.run(accept(options.url, options.policy, options.size, options.rate))
        else:
            asyncio.run(connect(options.url, options.policy, options.peer))
    except Exception as error:
        say("error", kind=type(error).__name__, message=str(error))
        raise


if __name__ == "__main__":
    main()
