"""The relay's data path takes a client's datagrams in their order, though requests take a detour through Python."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator

import pytest

from quice import _native

CLIENT_PATIENCE = 5.0
CHANNEL = 0x4000
ALLOCATION = 1
BIND = b"\x00\x09\x00\x00\x21\x12\xa4\x42" + bytes(12)
"""As much of a ChannelBind request as the data path looks at."""
DATA = CHANNEL.to_bytes(2, "big") + b"\x00\x04data"
HOST = "127.0.0.1"


class Ground:
    """A relay with one allocation, its client, and a peer; the test is the control plane."""

    def __init__(self, *, tcp: bool) -> None:
        self.relay = _native.Relay(None, [("127.0.0.0", 8)])
        self.server = self.relay.listen(HOST, 0, tcp)
        self.peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.peer.bind((HOST, 0))
        self.peer.settimeout(CLIENT_PATIENCE)
        self.client = socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
        self.client.connect(self.server)
        self.five_tuple = (self.client.getsockname(), self.server, tcp)
        self.client.send(BIND)
        self.hear(1)
        self.relay.open(ALLOCATION, self.five_tuple, "owner")
        self.relay.relay(ALLOCATION, HOST, 0, HOST)
        assert self.relay.take() == []

    def hear(self, count: int) -> None:
        """Take that many requests, and do not yet say that they have been dealt with."""
        heard: list[object] = []
        while len(heard) < count:
            assert select.select([self.relay.news_fd], [], [], CLIENT_PATIENCE)[0]
            heard += self.relay.take()
        assert len(heard) == count

    def bind(self) -> None:
        address = self.peer.getsockname()
        self.relay.bind_channel(ALLOCATION, CHANNEL, (address[0], address[1]))

    def drops(self) -> int:
        return self.relay.counts()[2]["no channel"]

    def close(self) -> None:
        self.relay.close()
        self.client.close()
        self.peer.close()


@pytest.fixture(params=[False, True], ids=["udp", "tcp"])
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    found = Ground(tcp=request.param)
    yield found
    found.close()


def test_data_right_behind_the_request_for_its_channel_arrives(ground: Ground) -> None:
    for datagram in (BIND, DATA, BIND):
        ground.client.send(datagram)
    # The second request has been taken, so the data before it was.
    ground.hear(2)
    ground.bind()
    assert ground.peer.recv(100) == b"data"
    assert ground.drops() == 0


def test_data_without_a_request_before_it_is_dropped_at_once(ground: Ground) -> None:
    for datagram in (DATA, BIND):
        ground.client.send(datagram)
    ground.hear(1)
    ground.bind()
    ground.client.send(DATA)
    assert ground.peer.recv(100) == b"data"
    assert ground.drops() == 1


def test_data_whose_request_was_refused_is_dropped(ground: Ground) -> None:
    for datagram in (BIND, DATA, BIND):
        ground.client.send(datagram)
    ground.hear(2)
    assert ground.relay.take() == []
    ground.bind()
    ground.client.send(DATA)
    assert ground.peer.recv(100) == b"data"
    # Commands before the next request have been carried out when that one is heard.
    ground.client.send(BIND)
    ground.hear(1)
    assert ground.drops() == 1
    ground.peer.setblocking(False)
    with pytest.raises(BlockingIOError):
        ground.peer.recv(100)
