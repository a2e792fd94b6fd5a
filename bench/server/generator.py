"""The load: thousands of peers in one process, which costs less a message than the servers that it loads.

Each is a WebSocket client of few lines: no masking key but zero, frames composed beforehand, no task. It is driven by
lines of JSON on standard input, and answers each with one.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import resource
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from urllib.parse import urlsplit

from quice.identity import Identity
from quice.signal import protocol
from quice.signal.protocol import Challenge, Deliver, Register, Registered

BODY = 400
"""Bytes of a body: an answer with some candidates, sealed."""
_STAMP = struct.Struct("!IId")
"""In each body: who has sent it, which of its messages it is, and when."""
_SESSION = bytes(protocol.SESSION_LENGTH)
_REQUEST = (
    "GET / HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_PORTS = 20_000
"""Connections from one address of loopback, which has 28,000 ports for them."""
_AT_ONCE = 200
"""Registrations under way at the same time."""
_AGAIN = 0.5
"""The most seconds that a peer waits before it registers elsewhere, having lost its server."""
_PONG = b"\x8a\x80\0\0\0\0"


def frame_of(message: bytes) -> bytes:
    """The message as a client's WebSocket frame, masked by zero."""
    if len(message) < 126:
        return bytes([0x82, 0x80 | len(message)]) + bytes(4) + message
    return bytes([0x82, 0xFE]) + len(message).to_bytes(2, "big") + bytes(4) + message


class Peer(asyncio.Protocol):
    """One registration, and what comes on it."""

    def __init__(self, load: Load, number: int, identity: Identity) -> None:
        self.load = load
        self.number = number
        self.identity = identity
        self.sent = 0
        self.is_registered = False
        self.halves: tuple[bytes, bytes] | None = None
        self.registered: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.buffer = b""
        self.is_open = False
        self.transport.write(self.load.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if self.buffer:
            data = self.buffer + data
        at = 0
        if not self.is_open:
            at = data.find(b"\r\n\r\n") + 4
            if at < 4:
                self.buffer = data
                return
            if not data.startswith(b"HTTP/1.1 101"):
                raise RuntimeError(f"no WebSocket: {data[:60]!r}")
            self.is_open = True
        size = len(data)
        while size - at >= 2:
            length, head = data[at + 1], 2
            if length == 126:
                if size - at < 4:
                    break
                length, head = int.from_bytes(data[at + 2 : at + 4], "big"), 4
            end = at + head + length
            if end > size:
                break
            self.take(data[at] & 0x0F, data[at + head : end])
            at = end
        self.buffer = data[at:]

    def take(self, opcode: int, message: bytes) -> None:
        if opcode == 9:
            self.transport.write(_PONG)  # type: ignore[attr-defined]
        elif opcode != 2:
            return
        elif self.is_registered and message.endswith(self.load.padding):
            self.load.delivered(self.number, *_STAMP.unpack_from(message, len(message) - BODY))
        else:
            self.answer(protocol.decode_to_peer(message))

    def answer(self, message: protocol.ToPeer) -> None:
        match message:
            case Challenge(nonce=nonce):
                peer = self.identity.peer
                signature = self.identity.sign(protocol.signed_text(nonce, peer))
                register = Register(version=protocol.VERSION, peer=peer.key, signature=signature)
                self.transport.write(frame_of(protocol.encode(register)))  # type: ignore[attr-defined]
            case Registered():
                self.is_registered = True
                if self.registered is not None and not self.registered.done():
                    self.registered.set_result(None)
            case protocol.Undeliverable(to=to):
                self.load.undeliverable(self.number, to)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_registered = False
        self.load.lost(self)

    def send(self, to: Peer) -> None:
        """Send a message with a stamp to another peer."""
        if to.halves is None:
            deliver = Deliver(to=to.identity.peer.key, session=_SESSION, body=bytes(_STAMP.size) + self.load.padding)
            whole = frame_of(protocol.encode(deliver))
            to.halves = (whole[:-BODY], whole[_STAMP.size - BODY :])
        head, tail = to.halves
        self.sent += 1
        stamp = _STAMP.pack(self.number, self.sent, time.perf_counter())
        self.transport.write(head + stamp + tail)  # type: ignore[attr-defined]


class Load:
    """All the peers, and what is counted of them."""

    def __init__(self) -> None:
        self.padding = b"\xa5" * (BODY - _STAMP.size)
        self.peers: list[Peer] = []
        self.rng = random.Random(1)
        self.urls: list[str] = []
        self.request = b""
        self.on_delivered: Callable[[int], None] = lambda sender: None
        self.reset()

    def reset(self) -> None:
        self.sent = 0
        self.got = 0
        self.times: list[float] = []
        self.is_timed = False
        self.on_their_way: Counter[tuple[int, int]] | None = None
        """How many of each pair's messages have neither come nor been reported, if that is asked."""
        self.seen: set[tuple[int, int]] = set()
        self.twice = 0
        self.reported = 0
        self.by_key = {peer.identity.peer.key: peer.number for peer in self.peers}

    # What peers call.

    def delivered(self, receiver: int, sender: int, number: int, at: float) -> None:
        self.got += 1
        if self.is_timed:
            self.times.append(time.perf_counter() - at)
        if self.on_their_way is not None:
            if (sender, number) in self.seen:
                self.twice += 1
            else:
                self.seen.add((sender, number))
                self.on_their_way[sender, receiver] -= 1
        self.on_delivered(sender)

    def undeliverable(self, sender: int, to: bytes) -> None:
        self.reported += 1
        if self.on_their_way is not None:
            self.on_their_way[sender, self.by_key[to]] -= 1
        self.on_delivered(sender)

    def lost(self, peer: Peer) -> None:
        if len(self.urls) > 1:
            asyncio.get_running_loop().create_task(self.again(peer))

    async def again(self, peer: Peer) -> None:
        """As a client does: elsewhere, after a random time."""
        while True:
            await asyncio.sleep(self.rng.random() * _AGAIN)
            try:
                await self.register(peer, self.rng.choice(self.urls))
            except OSError:
                continue
            return

    @property
    def is_waiting(self) -> bool:
        """Whether something has neither come nor been reported."""
        if self.on_their_way is None:
            return self.got + self.reported < self.sent
        # One that was reported and comes all the same is not to stand for another.
        return any(count > 0 for count in self.on_their_way.values())

    # What is ordered.

    async def connect(self, count: int, urls: list[str], first: int = 0) -> dict[str, object]:
        """Register so many peers, at the servers in turn. `first`: of the addresses of loopback to come from."""
        self.urls = urls
        self.request = _REQUEST.format(host="localhost").encode()
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(number: int) -> None:
            async with gate:
                await self.register(
                    self.peers[number], urls[number % len(urls)], f"127.0.1.{1 + first + number // _PORTS}"
                )

        begin = len(self.peers)
        self.peers += [Peer(self, begin + number, Identity.generate()) for number in range(count)]
        started = time.perf_counter()
        await asyncio.gather(*(one(begin + number) for number in range(count)))
        # A collection would look through all of them, and what is measured meanwhile would wait for it.
        gc.collect()
        gc.freeze()
        return {"registered": sum(peer.is_registered for peer in self.peers), "seconds": time.perf_counter() - started}

    async def register(self, peer: Peer, url: str, local: str = "127.0.1.1") -> None:
        parts = urlsplit(url)
        loop = asyncio.get_running_loop()
        peer.registered = loop.create_future()
        await loop.create_connection(lambda: peer, parts.hostname, parts.port, local_addr=(local, 0))
        await peer.registered
        peer.registered = None

    async def press(self, seconds: float, active: int, window: int, *, apart: bool = False) -> dict[str, object]:
        """As fast as it goes: each sender has so many messages on their way. Each goes to anybody; `apart`: to one at
        the same server.
        """
        self.reset()
        senders = self.peers[:active]
        homes = len(self.urls) if apart else 1
        receivers = [self.rng.choices(self.peers[home::homes], k=9973) for home in range(homes)]
        ends = time.perf_counter() + seconds

        def next_of(sender: int) -> None:
            if time.perf_counter() < ends:
                self.sent += 1
                senders[sender].send(receivers[sender % homes][self.sent % 9973])

        self.on_delivered = next_of
        started = time.perf_counter()
        for number in range(active):
            for _ in range(window):
                next_of(number)
        await asyncio.sleep(seconds)
        took = time.perf_counter() - started
        count = self.got
        await self.finish(5.0)
        return {"rate": count / took, "messages": self.got, "reported": self.reported, "sent": self.sent}

    async def pace(self, seconds: float, active: int, rate: float) -> dict[str, object]:
        """At a steady rate; how long each message takes."""
        self.reset()
        self.is_timed = True
        self.on_delivered = lambda sender: None
        await self.steadily(seconds, active, rate)
        await self.finish(5.0)
        times = sorted(self.times)
        return {
            "rate": self.sent / seconds,
            "messages": self.got,
            "sent": self.sent,
            "p50_ms": times[len(times) // 2] * 1e3,
            "p99_ms": times[len(times) * 99 // 100] * 1e3,
        }

    async def steadily(self, seconds: float, active: int, rate: float) -> None:
        senders = self.peers[:active]
        started = time.perf_counter()
        due = 0
        while (now := time.perf_counter() - started) < seconds:
            while due < now * rate:
                due += 1
                sender, receiver = self.rng.choice(senders), self.rng.choice(self.peers)
                if sender.is_registered:
                    self.sent += 1
                    if self.on_their_way is not None:
                        self.on_their_way[sender.number, receiver.number] += 1
                    sender.send(receiver)
            await asyncio.sleep(0.001)

    async def survive(self, seconds: float, rate: float, doomed: str) -> dict[str, object]:
        """Send steadily from peers that are not at the doomed server, to all, while it is killed: what becomes of each
        message. The peers of that server come back elsewhere.
        """
        self.reset()
        self.on_delivered = lambda sender: None
        self.on_their_way = Counter()
        at = self.urls.index(doomed)
        peers = list(self.peers)
        safe = [peer for peer in peers if peer.number % len(self.urls) != at]
        others = [peer for peer in peers if peer.number % len(self.urls) == at]
        self.urls = [url for url in self.urls if url != doomed] * 2
        # The senders are those that stay; all are receivers.
        self.peers = safe + others
        await self.steadily(seconds, len(safe), rate)
        await self.finish(10.0)
        unknown = sum(count for count in self.on_their_way.values() if count > 0)
        both = -sum(count for count in self.on_their_way.values() if count < 0)
        return {
            "sent": self.sent,
            "delivered": len(self.seen),
            "reported": self.reported,
            "twice": self.twice,
            "delivered_and_reported": both,
            "neither": unknown,
            "back": sum(peer.is_registered for peer in self.peers),
        }

    async def finish(self, patience: float) -> None:
        """Wait until nothing is on its way, or nothing has come for so long."""
        last, since = -1, time.perf_counter()
        while self.is_waiting and time.perf_counter() - since < patience:
            if self.got + self.reported != last:
                last, since = self.got + self.reported, time.perf_counter()
            await asyncio.sleep(0.05)


async def main() -> None:
    load = Load()
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        order = json.loads(line)
        answer = await getattr(load, order.pop("do"))(**order)
        used = resource.getrusage(resource.RUSAGE_SELF)
        print(json.dumps(answer | {"cpu": used.ru_utime + used.ru_stime}), flush=True)


if __name__ == "__main__":
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(main())
