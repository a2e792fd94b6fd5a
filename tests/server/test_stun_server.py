"""STUN, as a client on the wire sees it (RFC 8489 §6.3, §12)."""

from __future__ import annotations

import asyncio
import os
import random
import struct
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quice.server import Server
from quice.server.stun import answer
from quice.stun.attributes import (
    Attribute,
    ChangeRequest,
    Padding,
    ResponsePort,
    UnknownAttributes,
    Username,
    XorMappedAddress,
)
from quice.stun.message import Kind, Message, Method
from quice.wire import Address

# Of no meaning in any RFC yet, below and above the line that RFC 8489 §14 draws.
REQUIRED = (0x7FFE, 0x7FFF)
OPTIONAL = 0x8FFF


class Client(asyncio.DatagramProtocol):
    """A UDP socket that hears one address only, if it was connected to one."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[bytes] = asyncio.Queue()
        self.transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.received.put_nowait(data)

    @property
    def address(self) -> Address:
        return Address(*self.transport.get_extra_info("sockname")[:2])

    async def ask(self, *datagrams: bytes) -> Message:
        """Send these; the last one must be answered, and is the first to be."""
        for data in datagrams:
            self.transport.sendto(data)
        response = Message.decode(await asyncio.wait_for(self.received.get(), 5))
        assert response.transaction_id == datagrams[-1][8:20]
        return response


Connect = Callable[[str, int], Awaitable[Client]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    clients: list[Client] = []

    async def connected(host: str, port: int) -> Client:
        loop = asyncio.get_running_loop()
        _, client = await loop.create_datagram_endpoint(Client, remote_addr=(host, port))
        clients.append(client)
        return client

    yield connected
    for client in clients:
        client.transport.close()
    await asyncio.sleep(0)


def request(kind: Kind = Kind.REQUEST, method: Method = Method.BINDING) -> Message:
    return Message(method, kind, os.urandom(12))


def with_types(*types: int, values: bytes = b"") -> bytes:
    """A Binding request with an attribute of each of these types."""
    attributes = b"".join(struct.pack("!HH", number, len(values)) + values for number in types)
    header = request().encode(fingerprint=False)
    return header[:2] + len(attributes).to_bytes(2, "big") + header[4:] + attributes


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_rfc8489_12_a_client_is_told_the_address_it_is_seen_at(host: str, connect: Connect) -> None:
    async with Server(host, 0, 0) as server:
        client = await connect(host, server.stun.port)
        response = await client.ask(request().encode())
        assert response.kind is Kind.SUCCESS
        assert response.get(XorMappedAddress) == XorMappedAddress(client.address)


@pytest.mark.parametrize("fingerprint", [True, False])
@pytest.mark.parametrize("types", [(), REQUIRED])
async def test_rfc8489_7_a_response_has_a_fingerprint_if_the_request_has(
    server: Server, connect: Connect, fingerprint: bool, types: tuple[int, ...]
) -> None:
    client = await connect("127.0.0.1", server.stun.port)
    data = with_types(*types)
    response = await client.ask(with_fingerprint(data) if fingerprint else data)
    assert response.has_fingerprint is fingerprint


def with_fingerprint(data: bytes) -> bytes:
    """The message with FINGERPRINT appended (RFC 8489 §14.7)."""
    data = data[:2] + (len(data) + 8 - 20).to_bytes(2, "big") + data[4:]
    return data + struct.pack("!HHI", 0x8028, 4, zlib.crc32(data) ^ 0x5354554E)


async def test_rfc8489_6_3_1_an_unknown_required_attribute_is_refused_and_named(
    server: Server, connect: Connect
) -> None:
    client = await connect("127.0.0.1", server.stun.port)
    response = await client.ask(with_types(OPTIONAL, *REQUIRED))
    assert response.kind is Kind.ERROR
    assert response.error.code == 420
    assert response.get(UnknownAttributes) == UnknownAttributes(REQUIRED)


async def test_rfc8489_5_an_unknown_optional_attribute_is_ignored(server: Server, connect: Connect) -> None:
    client = await connect("127.0.0.1", server.stun.port)
    response = await client.ask(with_types(OPTIONAL))
    assert response.kind is Kind.SUCCESS


async def test_credentials_are_neither_needed_nor_in_the_way(server: Server, connect: Connect) -> None:
    client = await connect("127.0.0.1", server.stun.port)
    signed = Message(Method.BINDING, Kind.REQUEST, os.urandom(12), (Username("user"),)).encode(b"secret")
    response = await client.ask(signed)
    assert response.kind is Kind.SUCCESS
    assert not response.has_integrity


def last_byte_altered(message: bytes) -> bytes:
    return message[:-1] + bytes((message[-1] ^ 1,))


@pytest.mark.parametrize(
    "ignored",
    [
        pytest.param(request(Kind.INDICATION).encode(), id="a Binding indication"),
        pytest.param(request(Kind.SUCCESS).encode(), id="a success response"),
        pytest.param(request(Kind.ERROR).encode(), id="an error response"),
        pytest.param(request(method=Method.ALLOCATE).encode(), id="another method"),
        pytest.param(last_byte_altered(request().encode()), id="a wrong fingerprint"),
        pytest.param(request().encode(fingerprint=False)[:19], id="a header cut off"),
        pytest.param(b"\0\1\0\0" + bytes(16), id="RFC 3489, without the magic cookie"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xcf\x1a\x2a\x3a\x4a\x08" + bytes(1200), id="a QUIC packet of an unknown version"),
        pytest.param(b"\x40" + bytes(range(100)), id="a QUIC short header"),
        pytest.param(b"\x16\xfe\xfd" + bytes(60), id="DTLS"),
    ],
)
async def test_what_is_no_binding_request_is_not_answered(server: Server, connect: Connect, ignored: bytes) -> None:
    client = await connect("127.0.0.1", server.stun.port)
    # Datagrams on loopback keep their order: an answer to the first would come first.
    response = await client.ask(ignored, request().encode())
    assert response.kind is Kind.SUCCESS
    assert client.received.empty()


@pytest.mark.parametrize(
    "attribute", [ChangeRequest(address=True, port=True), ResponsePort(5000), Padding(bytes(4))], ids=repr
)
async def test_rfc5780_7_a_server_of_one_address_takes_no_part_in_nat_discovery(
    server: Server, connect: Connect, attribute: Attribute
) -> None:
    client = await connect("127.0.0.1", server.stun.port)
    response = await client.ask(Message(Method.BINDING, Kind.REQUEST, os.urandom(12), (attribute,)).encode())
    assert response.error.code == 420
    assert response.get(UnknownAttributes) == UnknownAttributes((attribute.TYPE,))


async def test_quic_draws_no_answer_that_is_longer_than_what_came(server: Server, connect: Connect) -> None:
    client = await connect("127.0.0.1", server.stun.port)
    for length in range(1, 1400, 50):
        data = b"\xc0\0\0\0\1\x08" + bytes(length)
        client.transport.sendto(data)
        question = request().encode()
        client.transport.sendto(question)
        while (received := await asyncio.wait_for(client.received.get(), 5))[8:20] != question[8:20]:
            assert len(received) < len(data)


async def test_a_server_on_every_address_answers_from_the_one_that_was_asked(connect: Connect) -> None:
    async with Server(None, 0, 0) as server:
        # A connected socket hears nothing that comes from another address.
        for host in ("127.0.0.1", "127.0.0.2", "127.1.2.3", "::1"):
            client = await connect(host, server.stun.port)
            response = await client.ask(request().encode())
            assert response.get(XorMappedAddress) == XorMappedAddress(client.address)


async def test_many_clients_at_once_are_each_told_their_own_address(server: Server, connect: Connect) -> None:
    clients = [await connect("127.0.0.1", server.stun.port) for _ in range(50)]
    responses = await asyncio.gather(*(client.ask(request().encode()) for client in clients))
    mapped = [response.get(XorMappedAddress) for response in responses]
    assert mapped == [XorMappedAddress(client.address) for client in clients]


@given(
    st.lists(st.integers(0, 0xFFFF), max_size=40),
    st.binary(max_size=8).map(lambda value: value[: len(value) & ~3]),
    st.sampled_from([Address("192.0.2.1", 1), Address("2001:db8::1", 65535)]),
)
def test_an_answer_is_no_lever_for_attacks_on_a_forged_source(types: list[int], values: bytes, source: Address) -> None:
    data = with_types(*types, values=values)
    response = answer(data, source)
    if response is not None:
        assert len(response) <= len(data) + 52
        assert Message.decode(response).transaction_id == data[8:20]


def test_no_mutation_of_a_request_does_more_than_not_being_answered() -> None:
    rng = random.Random(7)
    seeds = [
        request().encode(),
        with_types(*REQUIRED),
        Message(Method.BINDING, Kind.REQUEST, bytes(12), (Username("user"),)).encode(b"secret"),
    ]
    answered = 0
    for _ in range(20_000):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        response = answer(bytes(data), Address("192.0.2.1", 40000))
        answered += response is not None
    assert 0 < answered < 20_000
