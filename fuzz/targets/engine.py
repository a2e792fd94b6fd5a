"""The engine in memory, as a server and as a client, with datagrams from a stranger.

All that is random in the engine comes from one seed, so that a case that is played again is the same byte for byte.
"""

from __future__ import annotations

import random
from collections import Counter

from fuzz.initial import Keys, packet, varint
from fuzz.mutation import mutate
from fuzz.target import Target, require
from fuzz.targets.stun import BODIES
from quice import TransportConfig, _native

_SERVER = ("192.0.2.2", 4433)
_CLIENT = ("192.0.2.1", 4433)
_STRANGERS = (_CLIENT, ("192.0.2.7", 1), ("2001:db8::7", 65535))
_CREDENTIALS = _native.Credentials.raw_key(bytes(range(32)))
_SETTINGS = TransportConfig()
_SEED = bytes(32)
_ALPN = b"test/1"
# RFC 9000 §8.1.
_AMPLIFICATION = 3
_VERSIONS_LENGTH = 40
_MOST_PUMPS = 100
# RFC 9000 §12.4 and its extensions: datagrams, acknowledgement frequency, multipath, address discovery, NAT traversal.
_FRAME_TYPES = (*range(0x1F), 0x30, 0x31, 0xAF, 0x9F81A6, *range(0x3E, 0x40), *range(0x3D7E90, 0x3D7E97), 0x15228C00)

_OTHERS = (
    *BODIES,
    b"",
    # RFC 8656 §12.4: ChannelData; RFC 9443: DTLS and RTP.
    bytes.fromhex("4000000461626364"),
    bytes.fromhex("16fefd0000000000000000000401020304"),
    bytes.fromhex("800000000000000000000000"),
    # Version negotiation, Retry, and a short header.
    bytes.fromhex("c000000000 08 0001020304050607 08 0001020304050607 00000001 ff00001d".replace(" ", "")),
    bytes.fromhex("f000000001 08 0001020304050607 08 0001020304050607".replace(" ", "")) + bytes(32),
    bytes((0x40,)) + bytes(40),
)


def _frames(rng: random.Random) -> bytes:
    """Frames right and wrong, in any order."""
    frames = b""
    for _ in range(rng.randrange(1, 6)):
        kind = rng.random()
        if kind < 0.4:
            data = mutate(rng, (_CLIENT_HELLO, bytes(8)))[:900]
            frames += b"\6" + varint(rng.choice((0, 0, 0, 1, 1 << 20))) + varint(len(data)) + data
        elif kind < 0.5:
            frames += b"\2" + b"".join(varint(rng.choice((0, 1, 63, 1 << 61))) for _ in range(4))
        else:
            frames += varint(rng.choice(_FRAME_TYPES))
            frames += b"".join(
                varint(rng.choice((0, 1, 8, 63, 1 << 14, (1 << 62) - 1))) for _ in range(rng.randrange(6))
            )
            frames += rng.randbytes(rng.randrange(20))
    return frames[:1100]


# The outer form of a TLS 1.3 ClientHello (RFC 8446 §4.1.2) with one cipher suite, and extensions for versions,
# groups and signature algorithms.
_CLIENT_HELLO = (
    bytes.fromhex("01000049 0303".replace(" ", ""))
    + bytes(32)
    + bytes.fromhex(
        "00 0002 1301 0100 001e 002b0003020304 000a00040002001d 000d00040002 0807 0010 0003 0002 0161".replace(" ", "")
    )
)


class _Side:
    """An engine, what it was sent and what it sent, by address."""

    def __init__(self, alpns: list[bytes]) -> None:
        self.engine = _native.Engine(_CREDENTIALS, alpns, _SETTINGS, sockets=False, seed=_SEED)
        self.now = 0.0
        self.latest = 0
        self.received: Counter[tuple[str, int]] = Counter()
        self.sent: Counter[tuple[str, int]] = Counter()

    def receive(self, data: bytes, source: tuple[str, int], host: str) -> None:
        self.received[source] += len(data)
        self.latest = len(data)
        self.engine.receive(data, source, host, self.now)

    def pump(self) -> list[bytes]:
        """Let the engine work at this instant, and return what it sent."""
        sent = []
        for _ in range(_MOST_PUMPS):
            _, _, more, _ = self.engine.pump(self.now)
            for data, _source, destination in self.engine.transmits():
                sent.append(data)
                if data[0] & 0x80 and not any(data[1:5]):
                    # RFC 9000 §5.2.2 has servers drop small datagrams of unknown versions. noq answers each, with
                    # what it came with and a list of versions: more than three times a very small one.
                    excess = len(data) - self.latest
                    require(excess <= _VERSIONS_LENGTH, f"a version negotiation {excess} bytes longer than its cause")
                else:
                    self.sent[destination] += len(data)
            if not more:
                return sent
        require(False, f"{_MOST_PUMPS} pumps at one instant, and no end")
        return sent


def _play_server(rng: random.Random) -> None:
    side = _Side([_ALPN])
    identifier, own = rng.randbytes(rng.choice((8, 8, 8, 18, 20))), rng.randbytes(rng.choice((0, 4, 8, 20)))
    keys = Keys.derive(identifier, client=True)
    for number in range(rng.randrange(1, 8)):
        source = rng.choice(_STRANGERS)
        data = packet(
            keys, identifier, own, _frames(rng), number=number, token=rng.choice((b"", b"", rng.randbytes(40)))
        )
        kind = rng.random()
        if kind < 0.2:
            data = mutate(rng, (data,))
        elif kind < 0.4:
            data = mutate(rng, (*_OTHERS, data))
        side.receive(data, source, _SERVER[0])
        side.pump()
        side.now += rng.choice((0.0, 0.001, 0.3, 5.0))
    side.pump()
    for address, count in side.sent.items():
        limit = _AMPLIFICATION * side.received[address]
        require(count <= limit, f"{count} bytes sent to {address}, who sent {side.received[address]}")


def _play_client(rng: random.Random) -> None:
    side = _Side([])
    side.engine.connect(_SERVER, [_ALPN], peer=bytes(range(32)))
    first = side.pump()[0]
    length = first[5]
    destination, source = first[6 : 6 + length], first[7 + length : 7 + length + first[6 + length]]
    keys = Keys.derive(destination, client=False)
    for number in range(rng.randrange(1, 8)):
        data = packet(keys, source, rng.randbytes(8), _frames(rng), number=number)
        if rng.random() < 0.3:
            data = mutate(rng, (*_OTHERS, data, first))
        side.receive(data, _SERVER if rng.random() < 0.9 else rng.choice(_STRANGERS), _CLIENT[0])
        side.pump()
        side.now += rng.choice((0.0, 0.001, 0.3, 5.0))
    side.pump()
    strangers = set(side.sent) - {_SERVER}
    for address in strangers:
        require(side.sent[address] <= side.received[address], f"more sent to {address} than came from there")


TARGETS = (Target("engine-server", _play_server), Target("engine-client", _play_client))
