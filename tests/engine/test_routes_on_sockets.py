"""Relayed routes on real sockets: a relay on loopback, streams under the guardian, addresses that have gone."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import threading
import time
from collections.abc import Callable

from quice import TransportConfig, _native
from quice._native import Event
from tests.engine.pair import ALPN, CLIENT_SEED, SERVER_SEED, public_key
from tests.engine.relayed import channel_data

MIB = 1 << 20
PEER = ("198.51.100.7", 7)


class Forwarder:
    """A relay on loopback: two sockets, and a thread that puts frames around what comes at one and takes them off what
    comes at the other."""

    CHANNEL = 0x4000

    def __init__(self) -> None:
        self.server, self.relayed = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        for end in (self.server, self.relayed):
            end.bind(("127.0.0.1", 0))
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            end.setblocking(False)
        self._stopped = threading.Event()
        self._client: tuple[str, int] | None = None
        self._peer: tuple[str, int] | None = None
        self._thread = threading.Thread(target=self._run)

    def start(self, peer: tuple[str, int]) -> None:
        self._peer = peer
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
        self.server.close()
        self.relayed.close()

    def _run(self) -> None:
        while not self._stopped.is_set():
            readable, _, _ = select.select((self.server, self.relayed), (), (), 0.05)
            for end in readable:
                with contextlib.suppress(BlockingIOError):
                    for _ in range(100):
                        self._forward(end, *end.recvfrom(2048))

    def _forward(self, end: socket.socket, data: bytes, source: tuple[str, int]) -> None:
        if end is self.server:
            self._client = source
            assert data[:4] == channel_data(self.CHANNEL, data[4:])[:4]
            self.relayed.sendto(data[4:], self._peer or source)
        elif self._client is not None:
            self.server.sendto(channel_data(self.CHANNEL, data), self._client)


def test_on_sockets_megabytes_go_through_a_relay() -> None:
    raw_key = _native.Credentials.raw_key
    server = _native.Engine(raw_key(SERVER_SEED), [ALPN], TransportConfig(), sockets=True)
    client = _native.Engine(raw_key(CLIENT_SEED), [], TransportConfig(), sockets=True)
    descriptors = [server.bind("127.0.0.1", 0), client.bind("0.0.0.0", 0)]
    address = descriptors[0][1]
    relay = Forwarder()
    relay.start(address)
    host = client.add_relay(relay.server.getsockname(), local="127.0.0.1")
    client.bind_channel(host, address, relay.CHANNEL)
    seen: list[Event] = []
    sockets = [descriptor for descriptor, _ in descriptors]

    def run(done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30.0
        more = False
        while not done():
            assert time.monotonic() < deadline
            select.select(sockets, [], [], 0.0 if more else 0.005)
            more = False
            for engine in (client, server):
                events, _, again, _ = engine.pump()
                seen.extend(events)
                more = more or again

    def accepted() -> list[int]:
        return [event.connection for event in seen if isinstance(event, Event.Connected) and event.accepted]

    try:
        near = client.connect(address, [ALPN], peer=public_key(SERVER_SEED), local=host)
        run(lambda: bool(accepted()))
        far = server.connection(accepted()[0])
        up, data = near.open(unidirectional=True), random.Random(1).randbytes(16 * MIB)
        assert up is not None
        stream = up
        written = 0
        received = bytearray()

        def done() -> bool:
            nonlocal written
            if written < len(data):
                written += near.write(stream, data, written)
                if written == len(data):
                    near.finish(stream)
            opened = any(isinstance(event, Event.Opened) for event in seen)
            while opened and (piece := far.read(stream, MIB)) is not None:
                if not piece:
                    return True
                received.extend(piece)
            return False

        run(done)
        assert received == data
        assert [(path["local"], path["remote"]) for path in near.paths()] == [((host, 0), address)]
        assert [path["remote"] for path in far.paths()] == [relay.relayed.getsockname()]
        assert client.relay_drops() == (0, 0, 0)
    finally:
        relay.stop()
        client.close()
        server.close()


def test_what_the_guardian_sends_over_a_stream_waits_for_the_event_loop() -> None:
    engine = _native.Engine(_native.Credentials.raw_key(CLIENT_SEED), [], TransportConfig(), sockets=True)
    host = engine.add_relay(("203.0.113.1", 443), stream=True)
    engine.bind_channel(host, PEER, 0x4000)
    engine.connect(PEER, [ALPN], peer=public_key(SERVER_SEED), local=host)
    ((first,), _, _, _) = engine.pump()
    # Nobody pumps now, and the first packet is sent again.
    readable, _, _ = select.select([engine.news_fd], [], [], 10.0)
    assert readable
    ((again,), _, _, _) = engine.pump()
    for event in (first, again):
        assert isinstance(event, Event.RelayOutput)
        assert event.data[:2] == b"\x40\x00"
        assert len(event.data) % 4 == 0
    engine.close()


def test_on_sockets_a_path_from_an_address_that_has_gone_harms_no_other() -> None:
    raw_key = _native.Credentials.raw_key
    server = _native.Engine(raw_key(SERVER_SEED), [ALPN], TransportConfig(), sockets=True)
    client = _native.Engine(raw_key(CLIENT_SEED), [], TransportConfig(path_idle_timeout=0.1), sockets=True)
    bound = [server.bind("127.0.0.1", 0), client.bind("0.0.0.0", 0)]
    address = bound[0][1]
    seen: list[Event] = []

    def run(done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20.0
        while not done():
            assert time.monotonic() < deadline
            for engine in (client, server):
                seen.extend(engine.pump()[0])
            select.select([descriptor for descriptor, _ in bound], [], [], 0.005)

    near = client.connect(address, [ALPN], peer=public_key(SERVER_SEED), local="127.0.0.1")
    run(lambda: sum(isinstance(event, Event.Connected) for event in seen) == 2)
    # RFC 5737: nobody has this address, nor is there a way to the other.
    run(lambda: near.open_path(address, "192.0.2.77", backup=False) is not None)
    run(lambda: near.open_path(("240.0.0.1", 9), None, backup=False) is not None)
    stream = near.open(unidirectional=True)
    assert stream is not None
    near.write(stream, bytes(MIB), 0)
    run(lambda: any(isinstance(event, Event.Opened) for event in seen))
    run(lambda: sum(isinstance(event, Event.PathLost) for event in seen) >= 2)
    assert not any(isinstance(event, Event.Lost) for event in seen)
    assert [path["id"] for path in near.paths()] == [0]
