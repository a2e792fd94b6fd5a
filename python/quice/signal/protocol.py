"""What peer and rendezvous server say to each other. MessagePack structs, one in each WebSocket message.

The server speaks first. The peer proves its key by signing the challenge, and may send deliveries right behind
its registration. Bodies are sealed from peer to peer (`quice.signal.seal`): the server can't look into one.
"""

from __future__ import annotations

import enum
import math
from typing import Any, TypeVar

import msgspec

from quice.identity import PeerId

VERSION = 1
MAX_BODY = (16 << 10) + 128
"""Bytes for a peer: a message, its envelope (16), and the seal (112)."""
MAX_FRAME = MAX_BODY + 512
"""Bytes of a WebSocket message: a body and what is around it."""
KEY_LENGTH = 32
SESSION_LENGTH = 16
NONCE_LENGTH = 32
SIGNATURE_LENGTH = 64
REPLACED = 4000
"""The WebSocket close code for a peer that has registered again, on another connection."""
REFUSED = 4001
"""The WebSocket close code after `Refused`."""
SAME_HOST = ""
"""The host of a relay's URL for the one that the peer reaches the rendezvous server by: `turn::3478?transport=udp`."""
MAX_MAILBOX_BODY = 512
"""Bytes of a body in a mailbox."""
MAX_MAILBOX = 999_999
"""The largest number of a mailbox; the smallest is 1."""
MAX_RELAYS = 8
"""Relays of one registration, and URLs of one relay."""
_MAX_URL = 300
_MAX_CREDENTIAL = 512
_MAX_CHALLENGE = 128
"""Characters of a realm and bytes of a nonce. STUN allows more; these are the server's own."""
_MAX_WITHIN = 3600.0
_MAX_TEXT = 100
"""ASCII characters of an explanation; RFC 6455 §5.5 leaves a close frame 123 bytes for its reason."""
_CONTEXT = b"quice rendezvous registration v1\0"


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    pass


class Challenge(_Message, frozen=True, kw_only=True, tag="challenge"):
    """Server: prove your key over this nonce (32 bytes)."""

    version: int
    nonce: bytes


class Register(_Message, frozen=True, kw_only=True, tag="register"):
    """Peer: here is my key, and its signature over the challenge.

    `replace`: whether an earlier registration of the same key ends. A peer that was replaced itself comes back
    without, or two programs with one key would take turns for ever.
    """

    version: int
    peer: bytes
    signature: bytes
    replace: bool = True


class RelayServer(msgspec.Struct, frozen=True, kw_only=True):
    """A TURN server, with credentials for it.

    urls: one for each way to reach it, the best first (RFC 7065). lifetime: seconds for which the credentials hold.
    realm, nonce: where the server of the relay knows them, what the relay would challenge the peer with: a client that
    has them need not ask first. They may be wrong or old by then, and the client is challenged after all.
    """

    urls: tuple[str, ...]
    username: str
    password: str
    lifetime: float
    realm: str = ""
    nonce: bytes = b""


class Registered(_Message, frozen=True, kw_only=True, tag="registered"):
    """Server: you are. Its STUN service has this UDP port, on the host that you reached it by; 0 for none."""

    stun_port: int
    relays: tuple[RelayServer, ...] = ()


class Relays(_Message, frozen=True, kw_only=True, tag="relays"):
    """Server: use these relays from now on, with these credentials, instead of those that you know."""

    relays: tuple[RelayServer, ...]


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


class Leaving(_Message, frozen=True, kw_only=True, tag="leaving"):
    """Server: I shall end. Register elsewhere, at a time within so many seconds that you leave to chance; I serve you
    here as long as I can.
    """

    within: float


class OpenMailbox(_Message, frozen=True, kw_only=True, tag="open_mailbox"):
    """Peer: give me a mailbox with a number, and keep this body in it for the one who claims it. With the same body
    again, it is about the same mailbox.
    """

    body: bytes


class MailboxOpened(_Message, frozen=True, kw_only=True, tag="mailbox_opened"):
    """Server: here is one, for each `OpenMailbox` in turn. It ends after `lifetime` seconds without attendance, and
    `longest` seconds after it was opened.
    """

    number: int
    lifetime: float
    longest: float


class AttendMailbox(_Message, frozen=True, kw_only=True, tag="attend_mailbox"):
    """Peer, who has opened it: I still want it; tell me again what has happened to it, if anything has."""

    number: int


class ClaimMailbox(_Message, frozen=True, kw_only=True, tag="claim_mailbox"):
    """Peer: I have the code with this number. Only the first to claim a mailbox gets it."""

    number: int


class MailboxTaken(_Message, frozen=True, kw_only=True, tag="mailbox_taken"):
    """Server, to who has opened it: this peer, who has proven its key, has claimed it. Nobody else can any more."""

    number: int
    peer: bytes


class PutMailbox(_Message, frozen=True, kw_only=True, tag="put_mailbox"):
    """Peer: give this body to the other side. Each side does so once: first who has claimed the mailbox, then who has
    opened it. The same body may be put again, where it may have been lost.
    """

    number: int
    body: bytes


class MailboxBody(_Message, frozen=True, kw_only=True, tag="mailbox_body"):
    """Server: this is from the peer on the other side of the mailbox, who has proven its key."""

    number: int
    peer: bytes
    body: bytes


class CloseMailbox(_Message, frozen=True, kw_only=True, tag="close_mailbox"):
    """Peer, on either side: I am done with it. Then it is over for both."""

    number: int


class MailboxEnd(str, enum.Enum):
    """Why there is no mailbox. A server gives no more away of those that others have."""

    GONE = "gone"
    """There is none of that number for this peer: there never was, it is over, or it is somebody else's."""
    CLOSED = "closed"
    """The other side has closed it."""
    LIMIT = "limit"
    """This peer, or others at its address, have opened too many, or claimed too many in too short a time."""


class MailboxClosed(_Message, frozen=True, kw_only=True, tag="mailbox_closed"):
    """Server: it is no more, or it never was. `number`: 0 for one that could not be opened, in turn."""

    number: int
    reason: MailboxEnd


MailboxToPeer = MailboxOpened | MailboxTaken | MailboxBody | MailboxClosed
MailboxToServer = OpenMailbox | AttendMailbox | ClaimMailbox | PutMailbox | CloseMailbox
ToPeer = Challenge | Registered | Relays | Delivered | Undeliverable | MailboxToPeer | Refused | Leaving
ToServer = Register | Deliver | MailboxToServer

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
    match message:
        case Challenge(version=version, nonce=nonce):
            # Of another version nothing is known but that it is one.
            correct = version != VERSION or len(nonce) == NONCE_LENGTH
        case Registered(stun_port=port, relays=relays):
            correct = 0 <= port < 1 << 16 and _correct_relays(relays)
        case Relays(relays=relays):
            correct = _correct_relays(relays)
        case Delivered(sender=peer, session=session, body=body):
            correct = len(peer) == KEY_LENGTH and len(session) == SESSION_LENGTH and len(body) <= MAX_BODY
        case Undeliverable(to=peer, session=session):
            correct = len(peer) == KEY_LENGTH and len(session) == SESSION_LENGTH
        case MailboxOpened(number=number, lifetime=lifetime, longest=longest):
            correct = _is_mailbox(number) and 0 < lifetime < math.inf and 0 < longest < math.inf
        case MailboxTaken(number=number, peer=peer):
            correct = _is_mailbox(number) and len(peer) == KEY_LENGTH
        case MailboxBody(number=number, peer=peer, body=body):
            correct = _is_mailbox(number) and len(peer) == KEY_LENGTH and len(body) <= MAX_MAILBOX_BODY
        case MailboxClosed(number=number):
            correct = number == 0 or _is_mailbox(number)
        case Refused(text=text):
            correct = len(text) <= _MAX_TEXT and text.isprintable()
        case Leaving(within=within):
            correct = 0 <= within <= _MAX_WITHIN
    return _correct(message, correct)


def decode_to_server(data: bytes | str) -> ToServer:
    """Read what a peer sent. Raises `ProtocolDecodeError`."""
    message: ToServer = _decode(_to_server, data)
    match message:
        case Register(version=version, peer=peer, signature=signature):
            correct = version != VERSION or (len(peer) == KEY_LENGTH and len(signature) == SIGNATURE_LENGTH)
        case Deliver(to=peer, session=session, body=body):
            correct = len(peer) == KEY_LENGTH and len(session) == SESSION_LENGTH and len(body) <= MAX_BODY
        case OpenMailbox(body=body):
            correct = len(body) <= MAX_MAILBOX_BODY
        case PutMailbox(number=number, body=body):
            correct = _is_mailbox(number) and len(body) <= MAX_MAILBOX_BODY
        case AttendMailbox(number=number) | ClaimMailbox(number=number) | CloseMailbox(number=number):
            correct = _is_mailbox(number)
    return _correct(message, correct)


def _is_mailbox(number: int) -> bool:
    return 0 < number <= MAX_MAILBOX


def _correct_relays(relays: tuple[RelayServer, ...]) -> bool:
    return len(relays) <= MAX_RELAYS and all(
        0 < len(relay.urls) <= MAX_RELAYS
        and all(len(url) <= _MAX_URL and url.isprintable() for url in relay.urls)
        and all(0 < len(text) <= _MAX_CREDENTIAL and text.isprintable() for text in (relay.username, relay.password))
        and 0 < relay.lifetime < math.inf
        and max(len(relay.realm), len(relay.nonce)) <= _MAX_CHALLENGE
        and relay.realm.isprintable()
        for relay in relays
    )


MessageT = TypeVar("MessageT", bound=_Message)


def _correct(message: MessageT, correct: bool) -> MessageT:
    if not correct:
        raise ProtocolDecodeError(f"a value of a wrong size in {type(message).__name__}")
    return message


def _decode(decoder: msgspec.msgpack.Decoder[Any], data: bytes | str) -> Any:
    if isinstance(data, str):
        raise ProtocolDecodeError("a text message; messages are binary")
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        # The text may quote what came. It goes into a close frame and into logs.
        text = str(error).encode("ascii", "replace").decode("ascii")
        raise ProtocolDecodeError("".join(c if c.isprintable() else "?" for c in text[:_MAX_TEXT])) from error


def signed_text(nonce: bytes, peer: PeerId) -> bytes:
    """What a registration signs: bound to this protocol, this challenge and this peer."""
    return _CONTEXT + nonce + peer.key
