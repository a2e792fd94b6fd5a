"""Our engine and aioquic understand each other, whichever serves; with X.509, as aioquic has no raw keys."""

from __future__ import annotations

import asyncio
import datetime
import random
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import pytest
from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol, QuicStreamHandler
from aioquic.asyncio.server import QuicServer, serve
from aioquic.quic import events as theirs
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from quice import TransportConfig, _native
from quice._native import Event, Loss
from quice.pump import SocketPump

ALPN = "interop/1"
NAME = "server.test"
LOOPBACK = "127.0.0.1"
# How long a test waits for what should happen at once.
PATIENCE = 10.0
CONTENT = random.Random(1).randbytes(2_000_000)

E = TypeVar("E", bound=_native.Event)
T = TypeVar("T", bound=theirs.QuicEvent)


class Certificates(NamedTuple):
    """An authority, and what it vouches for: a server named `NAME`."""

    root: x509.Certificate
    leaf: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def credentials(self) -> _native.Credentials:
        """What our engine needs of it, to serve and to trust."""
        encoding = serialization.Encoding.DER
        key = self.key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return _native.Credentials.x509([self.leaf.public_bytes(encoding)], key, [self.root.public_bytes(encoding)])


def issue() -> Certificates:
    root_key, leaf_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    now = datetime.datetime.now(datetime.timezone.utc)
    root_name, leaf_name = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("root.test", NAME))

    def build(name: x509.Name, key: ec.EllipticCurvePrivateKey, *, ca: bool) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(root_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )

    root = build(root_name, root_key, ca=True).sign(root_key, hashes.SHA256())
    names = x509.SubjectAlternativeName([x509.DNSName(NAME)])
    leaf = build(leaf_name, leaf_key, ca=False).add_extension(names, critical=False)
    return Certificates(root, leaf.sign(root_key, hashes.SHA256()), leaf_key)


class Ours:
    """Our engine on a socket and the running loop, with the events that it has reported."""

    def __init__(self, certificates: Certificates, *, serves: bool, config: TransportConfig | None = None) -> None:
        alpns = [ALPN.encode()] if serves else []
        settings = config or TransportConfig()
        self.engine = _native.Engine(certificates.credentials(), alpns, settings, sockets=True)
        self._events: list[_native.Event] = []
        self._news = asyncio.Event()
        self.pump = SocketPump(self.engine, self._on_event)
        self.address = self.pump.bind(LOOPBACK, 0)

    def _on_event(self, event: _native.Event) -> None:
        self._events.append(event)
        self._news.set()

    async def next(self, kind: type[E]) -> E:
        """The oldest event of this kind that has not been returned yet."""
        while True:
            for event in self._events:
                if isinstance(event, kind):
                    self._events.remove(event)
                    return event
            self._news.clear()
            await asyncio.wait_for(self._news.wait(), PATIENCE)

    async def write(self, connection: _native.Connection, stream: int, content: bytes) -> None:
        """Write all of it, and the end."""
        offset = 0
        while (offset := offset + connection.write(stream, content, offset)) < len(content):
            self.pump.wake()
            while (await self.next(Event.Writable)).stream != stream:
                pass
        connection.finish(stream)
        self.pump.wake()

    async def read(self, connection: _native.Connection, stream: int) -> bytes:
        """Everything up to the end."""
        content = bytearray()
        while (chunk := connection.read(stream, 1 << 16)) != b"":
            self.pump.wake()
            if chunk is not None:
                content += chunk
                continue
            while (await self.next(Event.Readable)).stream != stream:
                pass
        return bytes(content)


class Theirs(QuicConnectionProtocol):
    """aioquic's side, with its events and what has come on each stream."""

    def __init__(self, quic: QuicConnection, stream_handler: QuicStreamHandler | None = None) -> None:
        super().__init__(quic, stream_handler)
        self.quic = quic
        self._events: asyncio.Queue[theirs.QuicEvent] = asyncio.Queue()
        self._content: defaultdict[int, bytearray] = defaultdict(bytearray)
        self._ended: defaultdict[int, asyncio.Event] = defaultdict(asyncio.Event)

    def quic_event_received(self, event: theirs.QuicEvent) -> None:
        # Not aioquic's own streams: one that only receives ends with an exception nobody can catch.
        if isinstance(event, theirs.StreamDataReceived):
            self._content[event.stream_id] += event.data
            if event.end_stream:
                self._ended[event.stream_id].set()
        self._events.put_nowait(event)

    async def next(self, kind: type[T]) -> T:
        """The next event of this kind; those before it are forgotten."""
        while True:
            event = await asyncio.wait_for(self._events.get(), PATIENCE)
            if isinstance(event, kind):
                return event

    def opened(self, *, unidirectional: bool = False) -> int:
        return self.quic.get_next_available_stream_id(is_unidirectional=unidirectional)

    def write(self, stream: int, content: bytes) -> None:
        """Write all of it, and the end."""
        self.quic.send_stream_data(stream, content, end_stream=True)
        self.transmit()

    async def read(self, stream: int) -> bytes:
        """Everything up to the end."""
        await asyncio.wait_for(self._ended[stream].wait(), PATIENCE)
        return bytes(self._content[stream])


def configuration(certificates: Certificates, *, serves: bool) -> QuicConfiguration:
    made = QuicConfiguration(
        is_client=not serves, alpn_protocols=[ALPN], max_datagram_frame_size=65_536, server_name=NAME
    )
    if serves:
        made.certificate, made.private_key = certificates.leaf, certificates.key
    else:
        made.cadata = certificates.root.public_bytes(serialization.Encoding.PEM)
        made.verify_mode = ssl.CERT_REQUIRED
    return made


@dataclass
class Meeting:
    """A connection between the two, as each side sees it."""

    ours: Ours
    near: _native.Connection
    theirs: Theirs

    def opened(self, *, unidirectional: bool = False) -> int:
        stream = self.near.open(unidirectional=unidirectional)
        assert stream is not None
        return stream


@asynccontextmanager
async def ours_serves(certificates: Certificates, config: TransportConfig | None = None) -> AsyncIterator[Meeting]:
    ours = Ours(certificates, serves=True, config=config)
    config = configuration(certificates, serves=False)
    try:
        async with connect(*ours.address, configuration=config, create_protocol=Theirs) as protocol:
            connected = await ours.next(Event.Connected)
            assert connected.accepted
            assert connected.alpn == ALPN.encode()
            assert isinstance(protocol, Theirs)
            yield Meeting(ours, ours.engine.connection(connected.connection), protocol)
    finally:
        ours.pump.close()


async def serving(
    certificates: Certificates, *, create_protocol: Callable[..., Theirs] = Theirs, retry: bool = False
) -> tuple[QuicServer, tuple[str, int]]:
    """aioquic's server, and its address."""
    server = await serve(
        LOOPBACK,
        0,
        configuration=configuration(certificates, serves=True),
        create_protocol=create_protocol,
        retry=retry,
    )
    assert server._transport is not None
    return server, server._transport.get_extra_info("sockname")


@asynccontextmanager
async def theirs_serves(certificates: Certificates, *, retry: bool = False) -> AsyncIterator[Meeting]:
    protocols: list[Theirs] = []

    def create(quic: QuicConnection, stream_handler: QuicStreamHandler | None = None) -> Theirs:
        protocols.append(Theirs(quic, stream_handler))
        return protocols[-1]

    server, address = await serving(certificates, create_protocol=create, retry=retry)
    ours = Ours(certificates, serves=False)
    try:
        near = ours.engine.connect(address, [ALPN.encode()], name=NAME)
        ours.pump.wake()
        connected = await ours.next(Event.Connected)
        assert not connected.accepted
        assert connected.peer is None
        assert connected.alpn == ALPN.encode()
        (protocol,) = protocols
        await protocol.next(theirs.HandshakeCompleted)
        yield Meeting(ours, near, protocol)
    finally:
        ours.pump.close()
        server.close()


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    return issue()


@pytest.fixture(params=[ours_serves, theirs_serves], ids=["we serve", "aioquic serves"])
async def meeting(request: pytest.FixtureRequest, certificates: Certificates) -> AsyncIterator[Meeting]:
    async with request.param(certificates) as made:
        yield made


async def test_bytes_go_both_ways_on_a_stream_that_we_open(meeting: Meeting) -> None:
    stream = meeting.opened()
    writing = asyncio.create_task(meeting.ours.write(meeting.near, stream, CONTENT))
    assert await meeting.theirs.read(stream) == CONTENT
    await writing
    meeting.theirs.write(stream, CONTENT[::-1])
    assert await meeting.ours.read(meeting.near, stream) == CONTENT[::-1]


async def test_bytes_go_both_ways_on_a_stream_that_they_open(meeting: Meeting) -> None:
    stream = meeting.theirs.opened()
    meeting.theirs.write(stream, CONTENT)
    assert (await meeting.ours.next(Event.Opened)).stream == stream
    assert await meeting.ours.read(meeting.near, stream) == CONTENT
    await meeting.ours.write(meeting.near, stream, CONTENT[::-1])
    assert await meeting.theirs.read(stream) == CONTENT[::-1]


async def test_one_way_streams_go_each_way(meeting: Meeting) -> None:
    stream = meeting.opened(unidirectional=True)
    await meeting.ours.write(meeting.near, stream, b"from us")
    assert await meeting.theirs.read(stream) == b"from us"
    stream = meeting.theirs.opened(unidirectional=True)
    meeting.theirs.write(stream, b"from them")
    assert (await meeting.ours.next(Event.Opened)).stream == stream
    assert await meeting.ours.read(meeting.near, stream) == b"from them"


async def test_a_hundred_streams_at_once_keep_apart(meeting: Meeting) -> None:
    streams = [meeting.opened() for _ in range(100)]
    for stream in streams:
        await meeting.ours.write(meeting.near, stream, b"%d" % stream)
    for stream in streams:
        meeting.theirs.write(stream, b"re: " + await meeting.theirs.read(stream))
    for stream in streams:
        assert await meeting.ours.read(meeting.near, stream) == b"re: %d" % stream


async def test_our_reset_and_stop_carry_their_codes(meeting: Meeting) -> None:
    stream = meeting.opened()
    meeting.near.write(stream, b"x", 0)
    meeting.near.reset(stream, 11)
    meeting.near.stop(stream, 12)
    meeting.ours.pump.wake()
    codes: dict[type[theirs.QuicEvent], int] = {}
    while len(codes) < 2:
        # In either order: they are two frames (RFC 9000 §19.4, §19.5).
        event = await meeting.theirs.next(theirs.QuicEvent)
        if isinstance(event, theirs.StreamReset | theirs.StopSendingReceived):
            codes[type(event)] = event.error_code
    assert codes == {theirs.StreamReset: 11, theirs.StopSendingReceived: 12}


async def test_their_reset_and_stop_carry_their_codes(meeting: Meeting) -> None:
    stream = meeting.opened()
    meeting.near.write(stream, b"x", 0)
    assert meeting.near.read(stream, 1) is None
    meeting.ours.pump.wake()
    await meeting.theirs.next(theirs.StreamDataReceived)
    meeting.theirs.quic.reset_stream(stream, 13)
    meeting.theirs.quic.stop_stream(stream, 14)
    meeting.theirs.transmit()
    assert (await meeting.ours.next(Event.Stopped)).code == 14
    await meeting.ours.next(Event.Readable)
    with pytest.raises(_native.StreamReset) as caught:
        meeting.near.read(stream, 1)
    assert caught.value.args == (13,)


async def test_datagrams_go_both_ways(meeting: Meeting) -> None:
    ours, near = meeting.ours, meeting.near
    assert near.receive_datagram() is None
    assert near.send_datagram(b"from us")
    ours.pump.wake()
    assert (await meeting.theirs.next(theirs.DatagramFrameReceived)).data == b"from us"
    meeting.theirs.quic.send_datagram_frame(b"from them")
    meeting.theirs.transmit()
    await ours.next(Event.DatagramReceived)
    assert near.receive_datagram() == b"from them"


async def test_our_close_reaches_them_with_code_and_reason(meeting: Meeting) -> None:
    meeting.near.close(77, b"enough of that")
    meeting.ours.pump.wake()
    terminated = await meeting.theirs.next(theirs.ConnectionTerminated)
    assert (terminated.error_code, terminated.reason_phrase) == (77, "enough of that")
    # An application's close, not one of the transport's (RFC 9000 §19.19).
    assert terminated.frame_type is None
    await meeting.ours.next(Event.Drained)


async def test_their_close_reaches_us_with_code_and_reason(meeting: Meeting) -> None:
    meeting.theirs.close(error_code=78, reason_phrase="had enough")
    lost = await meeting.ours.next(Event.Lost)
    assert (lost.loss, lost.code, lost.reason) == (Loss.ClosedByApplication, 78, "had enough")
    assert lost.connection == meeting.near.id
    await meeting.ours.next(Event.Drained)


async def test_keys_are_updated_in_the_middle_of_a_connection(meeting: Meeting) -> None:
    for size in (100_000, 200_000, 300_000):
        # RFC 9001 §6.1: each update needs an acknowledgement of the one before.
        await asyncio.wait_for(meeting.theirs.ping(), PATIENCE)
        meeting.theirs.request_key_update()
        stream = meeting.opened()
        await meeting.ours.write(meeting.near, stream, CONTENT[:size])
        assert await meeting.theirs.read(stream) == CONTENT[:size]
        meeting.theirs.write(stream, CONTENT[-size:])
        assert await meeting.ours.read(meeting.near, stream) == CONTENT[-size:]


async def test_their_new_connection_id_is_followed(meeting: Meeting) -> None:
    await asyncio.wait_for(meeting.theirs.ping(), PATIENCE)
    meeting.theirs.change_connection_id()
    await asyncio.wait_for(meeting.theirs.ping(), PATIENCE)
    stream = meeting.opened()
    await meeting.ours.write(meeting.near, stream, b"still there?")
    assert await meeting.theirs.read(stream) == b"still there?"
    meeting.theirs.write(stream, b"still here")
    assert await meeting.ours.read(meeting.near, stream) == b"still here"


async def test_a_peer_without_multipath_has_one_path(meeting: Meeting) -> None:
    assert not meeting.near.multipath()
    with pytest.raises(_native.PathRefused, match="not negotiated"):
        meeting.near.open_path((LOOPBACK, 9), backup=True)
    assert [(path["id"], path["status"], path["validated"]) for path in meeting.near.paths()] == [
        (0, "available", True)
    ]


async def test_we_answer_a_retry(certificates: Certificates) -> None:
    async with theirs_serves(certificates, retry=True) as meeting:
        stream = meeting.opened()
        await meeting.ours.write(meeting.near, stream, b"after a retry")
        assert await meeting.theirs.read(stream) == b"after a retry"


@pytest.mark.parametrize(
    ("name", "trusted"), [(NAME, False), ("other.test", True)], ids=["unknown authority", "another name"]
)
async def test_we_refuse_a_server_that_is_not_the_one_asked_for(
    certificates: Certificates, name: str, trusted: bool
) -> None:
    server, address = await serving(certificates)
    ours = Ours(certificates if trusted else issue(), serves=False)
    try:
        ours.engine.connect(address, [ALPN.encode()], name=name)
        ours.pump.wake()
        lost = await ours.next(Event.Lost)
        assert lost.loss is Loss.Failed
        # RFC 9001 §4.8: a TLS alert, from 0x100 on.
        assert 0x100 <= lost.code < 0x200
    finally:
        ours.pump.close()
        server.close()


async def test_they_refuse_us_when_they_do_not_trust_our_certificate(certificates: Certificates) -> None:
    ours = Ours(issue(), serves=True)
    try:
        with pytest.raises(ConnectionError):
            async with connect(
                *ours.address, configuration=configuration(certificates, serves=False), create_protocol=Theirs
            ):
                pass
        lost = await ours.next(Event.Lost)
        assert lost.loss is Loss.ClosedByPeer
        assert 0x100 <= lost.code < 0x200
    finally:
        ours.pump.close()


async def test_they_are_refused_an_alpn_that_we_do_not_speak(certificates: Certificates) -> None:
    ours = Ours(certificates, serves=True)
    config = configuration(certificates, serves=False)
    config.alpn_protocols = ["other/1"]
    try:
        with pytest.raises(ConnectionError):
            async with connect(*ours.address, configuration=config, create_protocol=Theirs):
                pass
    finally:
        ours.pump.close()
