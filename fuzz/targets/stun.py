"""The STUN codec, the client's transactions, and the server's answers."""

from __future__ import annotations

import hmac
import random
import zlib
from collections.abc import Callable

from fuzz.mutation import mutate
from fuzz.target import Target, parser, require, show
from quice.server.stun import answer
from quice.stun import responses
from quice.stun.attributes import (
    ATTRIBUTES,
    AlternateServer,
    Attribute,
    ChangeRequest,
    ErrorCode,
    Fingerprint,
    IceControlling,
    MessageIntegrity,
    MessageIntegritySha256,
    Nonce,
    OtherAddress,
    PasswordAlgorithms,
    Priority,
    Realm,
    Software,
    StunDecodeError,
    UnknownAttributes,
    UseCandidate,
    Username,
    XorMappedAddress,
)
from quice.stun.auth import LongTerm, ShortTerm
from quice.stun.discovery import Discovery, DiscoveryError, Questions, filtering, mapped, mapping
from quice.stun.message import Kind, Message, Method
from quice.stun.transaction import ClientTransaction
from quice.wire import Address

SERVER = Address("192.0.2.1", 3478)
LOCAL = Address("10.0.0.1", 5000)
_ID = b"123456789012"
_KEY = b"password"
_HEADER = 20
_MOST_REQUESTS = 21
_MOST_TRANSACTIONS = 3
_MOST_QUESTIONS = 9
_ANSWER_MARGIN = 52
_CHECKS = (MessageIntegrity, MessageIntegritySha256, Fingerprint)
_KINDS = [kind for kind in ATTRIBUTES.values() if kind not in _CHECKS]

# Unsigned: what signs and counts follows the mutation.
BODIES: tuple[bytes, ...] = tuple(
    Message(Method.BINDING, kind, _ID, attributes).encode(fingerprint=False)
    for kind, attributes in (
        (Kind.REQUEST, ()),
        (Kind.REQUEST, (Username("abcd:efgh"), Priority(1845501695), IceControlling(1 << 63), UseCandidate())),
        (Kind.REQUEST, (ChangeRequest(address=True, port=True), Software("sample"))),
        (Kind.SUCCESS, (XorMappedAddress(Address("192.0.2.1", 32853)),)),
        (Kind.SUCCESS, (XorMappedAddress(Address("2001:db8::1", 32853)), Software("sample"))),
        (Kind.ERROR, (ErrorCode(420, "Unknown Attribute"), UnknownAttributes((1, 2)))),
        (
            Kind.ERROR,
            (
                ErrorCode(401, "Unauthenticated"),
                Realm("example.org"),
                Nonce(b"obMatJos2AAADonce"),
                PasswordAlgorithms(((2, b""), (1, b""))),
            ),
        ),
        (Kind.ERROR, (ErrorCode(300, "Try Alternate"), AlternateServer(Address("192.0.2.9", 3478)))),
        (Kind.INDICATION, ()),
    )
)
_SIGNED = tuple(Message.decode(body).encode(_KEY, sha256=sha256) for body in BODIES for sha256 in (False, True))


def complete(rng: random.Random, data: bytes, key: bytes | None = _KEY) -> bytes:
    """Mutated bytes as a message of right length, signed by `key`, with a right fingerprint.

    Written without the codec, so that a fault of the codec can't hide itself.
    """
    data = data[: len(data) & ~3].ljust(_HEADER, b"\0")
    data = bytes((data[0] & 1, data[1], 0, 0)) + bytes.fromhex("2112a442") + data[8:65_000]
    if key is not None:
        sha256 = rng.random() < 0.3
        number, digest, length = (0x1C, "sha256", 32) if sha256 else (0x08, "sha1", 20)
        data = _counted(data, 4 + length)
        data += bytes((0, number, 0, length)) + hmac.digest(key, data, digest)
    if rng.random() < 0.8:
        data = _counted(data, 8)
        data += bytes.fromhex("80280004") + (zlib.crc32(data) ^ 0x5354554E).to_bytes(4, "big")
    return _counted(data, 0)


def _counted(data: bytes, more: int) -> bytes:
    return data[:2] + (len(data) - _HEADER + more).to_bytes(2, "big") + data[4:]


def any_attribute(rng: random.Random, transaction_id: bytes) -> Attribute:
    """An attribute of any kind with a value that its decoder takes."""
    kind = rng.choice(_KINDS)
    for length in (rng.randrange(40), 4, 8, 1, 32, 20, 0):
        value = rng.randbytes(length) if rng.random() < 0.7 else bytes(length)
        if length in (8, 20) and rng.random() < 0.8:
            value = bytes((0, 1 if length == 8 else 2)) + value[2:]
        try:
            return kind.decode(value, transaction_id)
        except StunDecodeError:
            continue
    return UseCandidate()


def _any_body(rng: random.Random, data: bytes) -> bytes:
    """Attributes of right form, whose values are anything; or else the mutated bytes, completed."""
    if rng.random() < 0.5:
        return complete(rng, data)
    body = data[:_HEADER].ljust(_HEADER, b"\0")
    for _ in range(rng.randrange(1, 5)):
        number = rng.choice(_KINDS).TYPE if rng.random() < 0.9 else rng.getrandbits(16)
        length = rng.choice((0, 1, 4, 8, 20, 32, rng.randrange(40), rng.randrange(1200)))
        value = rng.choice((rng.randbytes(length), b"\xff" * length, b"a" * length, bytes(length)))
        body += number.to_bytes(2, "big") + length.to_bytes(2, "big") + value + rng.randbytes(-length % 4)
    return complete(rng, body)


def _check_message(message: Message, data: bytes) -> None:
    """What was read was whole, and can be written, and read again as the same."""
    position = _HEADER
    while position < len(data):
        position += 4 + (int.from_bytes(data[position + 2 : position + 4], "big") + 3 & ~3)
    require(position == len(data), "an attribute that goes on behind the end")
    message.verify(_KEY)
    again = Message.decode(
        Message(message.method, message.kind, message.transaction_id, message.attributes).encode(fingerprint=False)
    )
    require(again.attributes == message.attributes, "an attribute changed on its way through the codec")


def _play_transaction(rng: random.Random) -> None:
    credentials = rng.choice((None, ShortTerm("user", "password"), LongTerm("user", "password")))
    transaction = ClientTransaction(Method.BINDING, (), LOCAL, SERVER, rng, 0.0, credentials=credentials)
    now, outcomes, requests = 0.0, 0, 0
    last = b""
    identifiers: set[bytes] = set()
    for _ in range(rng.randrange(60)):
        for transmit in transaction.transmits():
            requests += 1
            last = transmit.data
            require(transmit.destination == SERVER, f"a request to {transmit.destination}")
        request = Message.decode(last)
        identifiers.add(request.transaction_id)
        if rng.random() < 0.7:
            data = _RESPONSES[rng.randrange(len(_RESPONSES))](rng, request)
            transaction.receive(data, SERVER if rng.random() < 0.95 else LOCAL, LOCAL, now)
        else:
            now = transaction.timeout() or now
            transaction.handle_timeout(now)
        outcomes += len(list(transaction.events()))
    while (time := transaction.timeout()) is not None:
        require(time >= now, "a timeout in the past")
        now = time
        transaction.handle_timeout(now)
        requests += len(list(transaction.transmits()))
    ends = list(transaction.events())
    require(outcomes + len(ends) == 1, f"{outcomes + len(ends)} outcomes")
    require(requests <= _MOST_REQUESTS, f"{requests} requests")
    require(len(identifiers) <= _MOST_TRANSACTIONS, f"{len(identifiers)} transactions")


def _mutated_response(rng: random.Random, request: Message) -> bytes:
    data = bytearray(complete(rng, mutate(rng, BODIES[3:8]), rng.choice((None, _KEY))))
    data[8:_HEADER] = request.transaction_id
    return bytes(data)


def _any_response(rng: random.Random, request: Message) -> bytes:
    attributes = tuple(any_attribute(rng, request.transaction_id) for _ in range(rng.randrange(5)))
    message = Message(Method.BINDING, rng.choice((Kind.SUCCESS, Kind.ERROR)), request.transaction_id, attributes)
    return message.encode(rng.choice((None, _KEY)), sha256=rng.random() < 0.3)


def _challenge(rng: random.Random, request: Message) -> bytes:
    realm = rng.choice(("example.org", "example.org", "example.org", "", "a\0", '""', "\u3000", "x" * 763, "\u0085"))
    algorithms = rng.choice(((), ((2, b""), (1, b"")), ((9, b""),), ((1, b"x"),), ((2, b""),) * 64))
    return responses.challenge(
        request,
        rng.choice((401, 438)),
        realm,
        rng.randbytes(rng.randrange(750)),
        algorithms,
        anonymity=rng.random() < 0.5,
    )


_RESPONSES: tuple[Callable[[random.Random, Message], bytes], ...] = (_mutated_response, _any_response, _challenge)


def _play_server(rng: random.Random) -> None:
    data = mutate(rng, (*BODIES, *_SIGNED))
    if rng.random() < 0.5:
        data = complete(rng, data, rng.choice((None, _KEY)))
    source = Address(rng.choice(("192.0.2.7", "2001:db8::7", "fe80::7%eth0")), rng.choice((0, 1, 40000, 65535)))
    reply = answer(data, source)
    if reply is not None:
        require(len(reply) <= len(data) + _ANSWER_MARGIN, f"{len(reply)} bytes in answer to {show(data)}")
        require(Message.decode(reply).transaction_id == data[8:_HEADER], "an answer to something else")


def _play_discovery(rng: random.Random) -> None:
    questions: Questions[object] = rng.choice((mapped(SERVER), mapping(SERVER, 5000), filtering(SERVER)))
    test = Discovery(questions, rng, 0.0)
    now, requests = 0.0, 0
    while (time := test.timeout()) is not None:
        require(time >= now, "a timeout in the past")
        for transmit in test.transmits():
            requests += 1
            request = Message.decode(transmit.data)
            if rng.random() < 0.5:
                attributes = (XorMappedAddress(LOCAL), OtherAddress(Address("192.0.2.2", 3479)))
                data = responses.success(request, *attributes)
            else:
                data = rng.choice(_RESPONSES)(rng, request)
            test.receive(data, rng.choice((transmit.destination, SERVER)), LOCAL, now)
        now = time
        test.handle_timeout(now)
    require(requests <= _MOST_QUESTIONS, f"{requests} requests")
    try:
        test.result()
    except DiscoveryError:
        return


TARGETS = (
    parser("stun-message", (*BODIES, *_SIGNED), Message.decode, StunDecodeError, _check_message, _any_body),
    Target("stun-transaction", _play_transaction),
    Target("stun-server", _play_server),
    Target("stun-discovery", _play_discovery),
)
