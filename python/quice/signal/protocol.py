"""What peer and rendezvous server say to each other. MessagePack structs, one in each WebSocket message.

The server speaks first. The peer proves its key by signing the challenge, and may send deliveries right behind
its registration. The server never looks into a body.
"""

from __future__ import annotations

from typing import Any

import msgspec

from quice.identity import PeerId

VERSION = 1
MAX_BODY = 16 << 10
MAX_FRAME = MAX_BODY + 512
"""Bytes of a WebSocket message: a body and what is around it."""
SESSION_LENGTH = 16
_CONTEXT = b"quice rendezvous registration v1\0"


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    pass


class Challenge(_Message, frozen=True, kw_only=True, tag="challenge"):
    """Server: prove your key over this nonce (32 bytes)."""

    version: int
    nonce: bytes


class Register(_Message, frozen=True, kw_only=True, tag="register"):
    """Peer: here is my key, and its signature over the challenge."""

    version: int
    peer: bytes
    signature: bytes


class Registered(_Message, frozen=True, kw_only=True, tag="registered"):
    """Server: you are. Its STUN service has this UDP port, on the host that you reached it by; 0 for none."""

    stun_port: int


class Deliver(_Message, frozen=True, kw_only=True, tag="deliver"):
    """Peer: give this to another peer. `session`: 16 bytes that both know the session by."""

    to: bytes
    session: bytes
    body: bytes


class Delivered(_Message, frozen=True, kw_only=True, tag="delivered"):
    """Server: this is from another peer, who has proven its key."""

    sender: bytes
    session: bytes
    body: bytes


class Undeliverable(_Message, frozen=True, kw_only=True, tag="undeliverable"):
    """Server: that peer is not registered, or does not take what is sent to it."""

    to: bytes
    session: bytes


class Refused(_Message, frozen=True, kw_only=True, tag="refused"):
    """Server: what you sent is wrong; the connection ends."""

    text: str


ToPeer = Challenge | Registered | Delivered | Undeliverable | Refused
ToServer = Register | Deliver

_encoder = msgspec.msgpack.Encoder()
_to_peer = msgspec.msgpack.Decoder(ToPeer)
_to_server = msgspec.msgpack.Decoder(ToServer)


class ProtocolDecodeError(ValueError):
    """What came is no message of this protocol."""


def encode(message: ToPeer | ToServer) -> bytes:
    """The message as bytes."""
    return _encoder.encode(message)


def decode_to_peer(data: bytes | str) -> ToPeer:
    """Read what a server sent. Raises `ProtocolDecodeError`."""
    message: ToPeer = _decode(_to_peer, data)
    return message


def decode_to_server(data: bytes | str) -> ToServer:
    """Read what a peer sent. Raises `ProtocolDecodeError`."""
    message: ToServer = _decode(_to_server, data)
    if isinstance(message, Deliver) and (
        len(message.to) != 32 or len(message.session) != SESSION_LENGTH or len(message.body) > MAX_BODY
    ):
        raise ProtocolDecodeError("a delivery with an address, session or body of a wrong size")
    return message


def _decode(decoder: msgspec.msgpack.Decoder[Any], data: bytes | str) -> Any:
    if isinstance(data, str):
        raise ProtocolDecodeError("a text message; messages are binary")
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolDecodeError(str(error)) from error


def signed_text(nonce: bytes, peer: PeerId) -> bytes:
    """What a registration signs: bound to this protocol, this challenge and this peer."""
    return _CONTEXT + nonce + peer.key
