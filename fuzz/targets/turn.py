"""TURN: the client with a server that says anything, and the parsers around it."""

from __future__ import annotations

import random
from collections.abc import Callable

from fuzz.mutation import mutate
from fuzz.target import Target, parser, require
from fuzz.targets.stun import any_attribute, complete
from quice.errors import ServerUriError
from quice.proxy import Answer, Proxy, ProxyError
from quice.stun import responses
from quice.stun.attributes import (
    AlternateServer,
    Attribute,
    Data,
    Lifetime,
    StunDecodeError,
    XorMappedAddress,
    XorPeerAddress,
    XorRelayedAddress,
)
from quice.stun.auth import LongTerm
from quice.stun.message import Kind, Message, Method, is_stun
from quice.turn import AddressFamilies, Client, FramingError, Splitter, framed
from quice.turn.channel import encode_channel_data
from quice.turn.uri import ServerUri
from quice.wire import Address

SERVER = Address("192.0.2.1", 3478)
LOCAL = Address("10.0.0.1", 5000)
_PEERS = tuple(Address("198.51.100.9", port) for port in (1, 2, 3))
_ID = b"123456789012"
_MOST_SERVERS = 4
_CODES = (300, 400, 401, 403, 420, 437, 438, 440, 441, 443, 486, 500, 508, 699)
_DATA_INDICATION = Message(Method.DATA, Kind.INDICATION, _ID, (XorPeerAddress(_PEERS[0]), Data(b"data"))).encode()
_BODIES = (
    _DATA_INDICATION,
    Message(Method.ALLOCATE, Kind.ERROR, _ID, (AlternateServer(SERVER),)).encode(),
    encode_channel_data(0x4000, b"data"),
    encode_channel_data(0x4FFF, b""),
)

Say = Callable[[random.Random, Message, bytes], bytes]


def _do_it(rng: random.Random, request: Message, key: bytes) -> bytes:
    addresses = tuple(XorRelayedAddress(Address("192.0.2.1", rng.choice((0, 50000)))) for _ in range(rng.randrange(3)))
    attributes: tuple[Attribute, ...] = (
        *addresses,
        XorMappedAddress(LOCAL),
        Lifetime(rng.choice((0, 1, 600, 1 << 31))),
    )
    return responses.success(request, *attributes, key=key)


def _refuse(rng: random.Random, request: Message, key: bytes) -> bytes:
    named = AlternateServer(Address(rng.choice(("192.0.2.2", "192.0.2.3", "127.0.0.1", "::1")), rng.choice((0, 3478))))
    return responses.error(request, rng.choice(_CODES), *((named,) if rng.random() < 0.5 else ()), key=key)


def _challenge(rng: random.Random, request: Message, key: bytes) -> bytes:
    return responses.challenge(
        request, rng.choice((401, 438)), "example.org", rng.randbytes(8), rng.choice(((), ((2, b""),)))
    )


def _say_anything(rng: random.Random, request: Message, key: bytes) -> bytes:
    attributes = tuple(any_attribute(rng, request.transaction_id) for _ in range(rng.randrange(5)))
    message = Message(request.method, rng.choice((Kind.SUCCESS, Kind.ERROR)), request.transaction_id, attributes)
    return message.encode(rng.choice((None, key)), sha256=request.has_sha256)


def _say_nonsense(rng: random.Random, request: Message, key: bytes) -> bytes:
    data = bytearray(complete(rng, mutate(rng, _BODIES), rng.choice((None, key))))
    data[8:20] = request.transaction_id
    return bytes(data)


_ANSWERS: tuple[Say, ...] = (_do_it, _do_it, _do_it, _refuse, _challenge, _say_anything, _say_nonsense)


def _play_client(rng: random.Random) -> None:
    client = Client(
        SERVER,
        LOCAL,
        LongTerm("user", "password"),
        rng,
        0.0,
        families=rng.choice(list(AddressFamilies)),
        reliable=rng.random() < 0.3,
    )
    now = 0.0
    servers = {SERVER}
    for _ in range(rng.randrange(80)):
        requests = []
        for transmit in client.transmits():
            require(transmit.source == LOCAL, f"sent from {transmit.source}")
            servers.add(transmit.destination)
            if is_stun(transmit.data) and (request := Message.decode(transmit.data)).kind is Kind.REQUEST:
                requests.append(request)
        require(len(servers) <= _MOST_SERVERS, f"{len(servers)} servers were asked")
        for request in requests:
            if rng.random() < 0.9:
                key = client.credentials.key if client.credentials.realm else b"key"
                answer = rng.choice(_ANSWERS)(rng, request, key)
                client.receive(answer, client.server if rng.random() < 0.95 else LOCAL, LOCAL, now)
        _do_something(rng, client, now)
        over = client.is_over
        told = list(client.events())
        time = client.timeout()
        require(time is None or time >= now, "a timeout in the past")
        if rng.random() < 0.5 and time is not None:
            now = time
            client.handle_timeout(now)
        require(not over or time is None or bool(told), "one that is over wants to be woken")


def _do_something(rng: random.Random, client: Client, now: float) -> None:
    peer = rng.choice(_PEERS)
    choice = rng.randrange(12)
    if choice == 0:
        require(0x4000 <= client.bind(peer, now) <= 0x4FFF, "a channel that is none")
    elif choice == 1:
        client.permit([peer], now)
    elif choice == 2:
        client.unbind(peer)
    elif choice == 3:
        client.forget([peer])
    elif choice == 4:
        client.check(now)
    elif choice == 5 and rng.random() < 0.2:
        client.close(now)
    elif choice == 6:
        client.send(b"data", peer, now)
    else:
        client.receive(mutate(rng, _BODIES), client.server, LOCAL, now)


def _split(data: bytes) -> list[bytes]:
    return list(Splitter().feed(data))


def _check_split(messages: list[bytes], data: bytes) -> None:
    whole = b"".join(framed(message) for message in messages)
    # What pads is not kept.
    require(len(whole) <= len(data), "more came out than went in")
    in_pieces = Splitter()
    again = [message for octet in data for message in in_pieces.feed(bytes((octet,)))]
    require(again == messages, "cut into other pieces, the stream is another")


def _read_uri(data: bytes) -> ServerUri:
    return ServerUri.parse(data.decode("utf-8", "surrogateescape"))


def _check_uri(uri: ServerUri, data: bytes) -> None:
    require(ServerUri.parse(str(uri)) == uri, f"{uri} changed on its way through its text")


def _answer(data: bytes) -> bytes | None:
    return Answer().feed(data)


def _check_answer(rest: bytes | None, data: bytes) -> None:
    require(rest is None or data.endswith(rest), "what follows the answer is something else")


def _proxy(data: bytes) -> bytes:
    return Proxy.parse(data.decode("utf-8", "replace")).request("relay.example", 443)


def _check_proxy(request: bytes, data: bytes) -> None:
    require(request.count(b"\r\n\r\n") == 1 and request.endswith(b"\r\n\r\n"), f"asked with {request!r}")
    require(request.count(b"\n") <= 4, f"asked with {request!r}")


_STREAMS = (
    _DATA_INDICATION + framed(encode_channel_data(0x4000, b"12345")) + _DATA_INDICATION,
    framed(encode_channel_data(0x4001, bytes(300))) * 3,
)
_URIS = (
    b"stun:example.org",
    b"turn:192.0.2.1:3478?transport=tcp",
    b"turns:[2001:db8::1]:443?transport=tcp",
    b"stuns:example.org:5349",
)
_PROXY_ANSWERS = (
    b"HTTP/1.1 200 Connection established\r\nVia: proxy\r\n\r\nrest",
    b"HTTP/1.0 407 Proxy Authentication Required\r\n\r\n",
    b"HTTP/1.1 502 Bad Gateway\n\n",
)
_PROXIES = (b"http://alice:secret@proxy.example:3128", b"proxy.example:8080", b"http://[2001:db8::1]:3128/")

TARGETS = (
    Target("turn-client", _play_client),
    parser("turn-stream", _STREAMS, _split, (FramingError, StunDecodeError), _check_split),
    parser("server-uri", _URIS, _read_uri, ServerUriError, _check_uri),
    parser("proxy-answer", _PROXY_ANSWERS, _answer, ProxyError, _check_answer),
    parser("proxy-url", _PROXIES, _proxy, ProxyError, _check_proxy),
)
