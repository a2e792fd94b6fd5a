"""What peer and rendezvous server say to each other."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import msgspec
import pytest

from quice.identity import Identity
from quice.signal.protocol import (
    MAX_BODY,
    MAX_FRAME,
    MAX_MAILBOX,
    MAX_MAILBOX_BODY,
    VERSION,
    AttendMailbox,
    Challenge,
    ClaimMailbox,
    CloseMailbox,
    Deliver,
    Delivered,
    Leaving,
    MailboxBody,
    MailboxClosed,
    MailboxEnd,
    MailboxOpened,
    MailboxTaken,
    OpenMailbox,
    ProtocolDecodeError,
    PutMailbox,
    Refused,
    Register,
    Registered,
    Relays,
    RelayServer,
    ToPeer,
    ToServer,
    Undeliverable,
    decode_to_peer,
    decode_to_server,
    encode,
    signed_text,
)

KEY, SESSION = bytes(32), bytes(16)
RELAY = RelayServer(
    urls=("turn::3478?transport=udp",), username="1:me", password="secret", lifetime=60.0, realm="q", nonce=b"nonce"
)
TO_PEER: list[ToPeer] = [
    Challenge(version=VERSION, nonce=bytes(32)),
    Registered(stun_port=0),
    Registered(stun_port=65535),
    Delivered(sender=KEY, session=SESSION, body=bytes(MAX_BODY)),
    Undeliverable(to=KEY, session=SESSION),
    Refused(text="the signature is wrong"),
    Registered(stun_port=0, relays=(RELAY,) * 8),
    Relays(relays=()),
    Relays(relays=(RELAY,)),
    MailboxOpened(number=1, lifetime=600.0, longest=3600.0),
    MailboxTaken(number=7, peer=KEY),
    MailboxBody(number=MAX_MAILBOX, peer=KEY, body=bytes(MAX_MAILBOX_BODY)),
    MailboxClosed(number=7, reason=MailboxEnd.GONE),
    MailboxClosed(number=0, reason=MailboxEnd.LIMIT),
    Leaving(within=10.0),
]
TO_SERVER: list[ToServer] = [
    Register(version=VERSION, peer=KEY, signature=bytes(64)),
    Register(version=VERSION, peer=KEY, signature=bytes(64), replace=False),
    Deliver(to=KEY, session=SESSION, body=b""),
    Deliver(to=KEY, session=SESSION, body=bytes(MAX_BODY)),
    OpenMailbox(body=bytes(MAX_MAILBOX_BODY)),
    PutMailbox(number=7, body=bytes(MAX_MAILBOX_BODY)),
    AttendMailbox(number=1),
    ClaimMailbox(number=MAX_MAILBOX),
    CloseMailbox(number=7),
]


def changed(message: ToPeer | ToServer, **values: Any) -> bytes:
    return msgspec.msgpack.encode(msgspec.to_builtins(message, builtin_types=(bytes,)) | values)


@pytest.mark.parametrize("message", TO_PEER, ids=lambda message: type(message).__name__)
def test_a_peer_reads_what_a_server_wrote(message: ToPeer) -> None:
    assert decode_to_peer(encode(message)) == message
    assert len(encode(message)) <= MAX_FRAME


@pytest.mark.parametrize("message", TO_SERVER, ids=lambda message: type(message).__name__)
def test_a_server_reads_what_a_peer_wrote(message: ToServer) -> None:
    assert decode_to_server(encode(message)) == message
    assert len(encode(message)) <= MAX_FRAME


@pytest.mark.parametrize(
    ("message", "values"),
    [
        (TO_PEER[0], {"nonce": bytes(31)}),
        (TO_PEER[0], {"version": None}),
        (TO_PEER[1], {"stun_port": -1}),
        (TO_PEER[1], {"stun_port": 65536}),
        (TO_PEER[3], {"sender": bytes(31)}),
        (TO_PEER[3], {"session": bytes(17)}),
        (TO_PEER[3], {"body": bytes(MAX_BODY + 1)}),
        (TO_PEER[4], {"to": b""}),
        (TO_PEER[4], {"session": b""}),
        (TO_PEER[5], {"text": "x" * 101}),
        (TO_PEER[5], {"text": "two\nlines"}),
        (TO_PEER[6], {"relays": (RELAY,) * 9}),
        *[
            (TO_PEER[8], {"relays": (msgspec.structs.replace(RELAY, **values),)})
            for values in (
                {"urls": ()},
                {"urls": RELAY.urls * 9},
                {"urls": ("turn:" + "x" * 300,)},
                {"urls": ("turn:\n",)},
                {"username": ""},
                {"username": "x" * 513},
                {"password": ""},
                {"password": "\x1b"},
                {"realm": "x" * 129},
                {"realm": "\n"},
                {"nonce": b"x" * 129},
                {"lifetime": 0.0},
                {"lifetime": float("inf")},
                {"lifetime": float("nan")},
            )
        ],
        (TO_PEER[14], {"within": -1.0}),
        (TO_PEER[14], {"within": 3601.0}),
        (TO_PEER[14], {"within": float("nan")}),
        (TO_PEER[9], {"number": 0}),
        (TO_PEER[9], {"lifetime": 0.0}),
        (TO_PEER[9], {"longest": float("inf")}),
        (TO_PEER[10], {"number": MAX_MAILBOX + 1}),
        (TO_PEER[10], {"peer": bytes(31)}),
        (TO_PEER[11], {"number": -1}),
        (TO_PEER[11], {"peer": bytes(33)}),
        (TO_PEER[11], {"body": bytes(MAX_MAILBOX_BODY + 1)}),
        (TO_PEER[12], {"number": -1}),
        (TO_PEER[12], {"reason": "because"}),
    ],
)
def test_a_peer_takes_no_value_of_a_wrong_size(message: ToPeer, values: dict[str, object]) -> None:
    assert decode_to_peer(changed(message)) == message
    with pytest.raises(ProtocolDecodeError):
        decode_to_peer(changed(message, **values))


@pytest.mark.parametrize(
    ("message", "values"),
    [
        (TO_SERVER[0], {"peer": bytes(33)}),
        (TO_SERVER[0], {"signature": bytes(63)}),
        (TO_SERVER[0], {"replace": 1}),
        (TO_SERVER[2], {"to": bytes(31)}),
        (TO_SERVER[2], {"session": bytes(15)}),
        (TO_SERVER[2], {"body": bytes(MAX_BODY + 1)}),
        (TO_SERVER[2], {"body": "text"}),
        (TO_SERVER[4], {"body": bytes(MAX_MAILBOX_BODY + 1)}),
        (TO_SERVER[5], {"body": bytes(MAX_MAILBOX_BODY + 1)}),
        *[(message, {"number": number}) for message in TO_SERVER[5:] for number in (-1, 0, MAX_MAILBOX + 1, 1.5)],
    ],
)
def test_a_server_takes_no_value_of_a_wrong_size(message: ToServer, values: dict[str, object]) -> None:
    assert decode_to_server(changed(message)) == message
    with pytest.raises(ProtocolDecodeError):
        decode_to_server(changed(message, **values))


def test_another_version_is_recognised_whatever_its_sizes() -> None:
    assert decode_to_peer(changed(TO_PEER[0], version=2, nonce=b"")) == Challenge(version=2, nonce=b"")
    register = decode_to_server(changed(TO_SERVER[0], version=2, peer=b"", signature=b""))
    assert register == Register(version=2, peer=b"", signature=b"")


def test_neither_side_takes_what_is_for_the_other() -> None:
    for to_peer in TO_PEER:
        with pytest.raises(ProtocolDecodeError):
            decode_to_server(encode(to_peer))
    for to_server in TO_SERVER:
        with pytest.raises(ProtocolDecodeError):
            decode_to_peer(encode(to_server))


@pytest.mark.parametrize(
    "data",
    [
        "text",
        b"",
        b"\xc1",
        b"\x91" * 10_000,
        msgspec.msgpack.encode({"type": "€" * 200}),
        msgspec.msgpack.encode({"type": "a\nb\x1b[31m"}),
    ],
)
def test_what_is_no_message_is_refused_in_a_text_that_fits_a_close_frame(data: bytes | str) -> None:
    for decode in (decode_to_peer, decode_to_server):
        with pytest.raises(ProtocolDecodeError) as refused:
            decode(data)
        text = str(refused.value)
        assert text.isascii()
        assert text.isprintable()
        assert 0 < len(text) <= 100
        assert decode_to_peer(encode(Refused(text=text))) == Refused(text=text)


def test_a_signature_is_bound_to_the_challenge_and_the_peer() -> None:
    one, other = Identity.generate(), Identity.generate()
    signature = one.sign(signed_text(b"n" * 32, one.peer))
    assert one.peer.verify(signature, signed_text(b"n" * 32, one.peer))
    assert not one.peer.verify(signature, signed_text(b"m" * 32, one.peer))
    assert not one.peer.verify(signature, signed_text(b"n" * 32, other.peer))
    assert not one.peer.verify(signature, b"n" * 32 + one.peer.key)


def test_no_mutation_of_a_frame_does_more_than_being_refused() -> None:
    rng = random.Random(5)
    seeds = [encode(message) for message in [*TO_PEER, *TO_SERVER] if len(encode(message)) < 1000]
    taken = 0
    for _ in range(20_000):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        for decode in (decode_to_peer, decode_to_server):
            with contextlib.suppress(ProtocolDecodeError):
                decode(bytes(data))
                taken += 1
    assert taken > 100
