"""What two peers tell each other before they can talk directly (RFC 8445 §5.3, draft-perkins-quic-p2p-mux §3.2).

Messages are msgspec structs, MessagePack on the wire, told apart by their field `type`. The first one of a session,
an offer or a restart, carries the protocol's version. `decode` checks every value: what it returns is safe to use.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from typing import TypedDict

import msgspec

from quice.ice.candidate import COMPONENT, Candidate
from quice.ice.generation import MAX_REMOTE_CANDIDATES
from quice.ice.pacing import UNSPOKEN_TA

VERSION = 1
MAX_MESSAGE = 16 << 10
"""Bytes of one encoded message."""
UNSPOKEN_PACING = round(UNSPOKEN_TA * 1000)
_MAX_PACING = 1000
_MAX_TEXT = 256
NAME_LENGTH = 8
"""Bytes of a connection's name."""
MAX_HEARD = 4
"""Restarts of the peer's that one names."""
_MAX_ALPN = 255
# RFC 8839 §5.4: ice-char, and the lengths of ufrag and pwd; §5.1 for the foundation.
_UFRAG = re.compile(r"[A-Za-z0-9+/]{4,256}")
_PWD = re.compile(r"[A-Za-z0-9+/]{22,256}")
_FOUNDATION = re.compile(r"[A-Za-z0-9+/]{1,32}")


class SignalDecodeError(ValueError):
    """What came is no message of this protocol; the text says why."""


class RefuseReason(str, enum.Enum):
    """Why an offer or a restart is refused."""

    VERSION = "version"
    ALPN = "alpn"
    BUSY = "busy"
    DECLINED = "declined"
    ESTABLISH = "establish"
    GONE = "gone"
    """The connection that the restart is about."""
    CROSSED = "crossed"
    """Both sides restart the same connection at once: this side's restart counts."""


class Establish(str, enum.Enum):
    """Which side makes the QUIC connection, as its client (draft-perkins-quic-p2p-mux §3.4; see `quice.meeting`)."""

    INITIATOR = "initiator"
    HIGHEST_ADDRESS = "highest-address"
    SIMULTANEOUS = "simultaneous"
    UNKNOWN = "unknown"
    """Something else, of a later version: to be refused."""

    @classmethod
    def _missing_(cls, value: object) -> Establish:
        return cls.UNKNOWN


class _Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    pass


class Description(_Message, frozen=True, kw_only=True):
    """What an agent says of itself (RFC 8445 §5.3).

    `candidates` are those known already; more follow as `CandidateFound`, until `EndOfCandidates`. `lite`: the sender
    answers checks and makes none. `pacing`: the milliseconds between two checks that it proposes (RFC 8445 §14.2);
    who says nothing wants 50. `renomination`: it takes a later nomination for a change of mind.
    """

    ufrag: str
    pwd: str
    candidates: tuple[Candidate, ...] = ()
    lite: bool = False
    pacing: int = UNSPOKEN_PACING
    renomination: bool = False


class DescriptionFields(TypedDict):
    """The fields of a `Description`, to make one of any kind."""

    ufrag: str
    pwd: str
    candidates: tuple[Candidate, ...]
    lite: bool
    pacing: int
    renomination: bool


class Opening(Description, frozen=True, kw_only=True):
    """What a session begins with: the initiating agent describes itself, and says which version it speaks."""

    version: int


class Offer(Opening, frozen=True, kw_only=True, tag="offer"):
    """The initiating agent, which controls, wants a connection. `establish`: who is the QUIC client."""

    alpn: str
    establish: Establish = Establish.INITIATOR


class Restart(Opening, frozen=True, kw_only=True, tag="restart"):
    """Either side of a connection that there is wants other candidates for it: an ICE restart (§9), in which the
    connection's client controls.

    `continues`: the connection's name, the tag of the session that it began with. `heard`: the ufrags of the peer's
    last restarts of the connection, as far as they have come: one that was made before the peer's own was answered is
    known by it. They may come in another order than they were made in.
    """

    continues: bytes
    heard: tuple[str, ...] = ()


class Answer(Description, frozen=True, kw_only=True, tag="answer"):
    """The responding agent takes part."""


class CandidateFound(_Message, frozen=True, kw_only=True, tag="candidate"):
    """One more candidate (RFC 8838). `ufrag`: the sender's, which names the generation it belongs to."""

    candidate: Candidate
    ufrag: str | None = None


class EndOfCandidates(_Message, frozen=True, kw_only=True, tag="end-of-candidates"):
    """There will be no more candidates of the generation with this ufrag (RFC 8838 §13), unless the sender's network
    changes."""

    ufrag: str | None = None


class Refuse(_Message, frozen=True, kw_only=True, tag="refuse"):
    """The responding agent does not take part."""

    reason: RefuseReason
    text: str = ""


class Bye(_Message, frozen=True, kw_only=True, tag="bye"):
    """The session is over for the sender."""


Message = Offer | Restart | Answer | CandidateFound | EndOfCandidates | Refuse | Bye

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)


def public(candidate: Candidate) -> Candidate:
    """The candidate as the peer is told of it: without its base, and without zones (RFC 4007 §6)."""
    return msgspec.structs.replace(
        candidate,
        base=None,
        address=candidate.address.without_zone,
        related_address=candidate.related_address and candidate.related_address.without_zone,
    )


def encode(message: Message) -> bytes:
    """The message as bytes. Raises `ValueError` when they are more than `MAX_MESSAGE`."""
    data = _encoder.encode(message)
    if len(data) > MAX_MESSAGE:
        raise ValueError(f"a message of {len(data)} bytes; {MAX_MESSAGE} are allowed: send fewer candidates at once")
    return data


def decode(data: bytes) -> Message:
    """Read a message. Raises `SignalDecodeError` for anything that is not a correct one."""
    if len(data) > MAX_MESSAGE:
        raise SignalDecodeError(f"a message of {len(data)} bytes; {MAX_MESSAGE} are allowed")
    try:
        message: Message = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise SignalDecodeError(f"not a signalling message: {error}") from error
    match message:
        case Offer():
            _check(message.version >= 1, "the version")
            _check(0 < len(message.alpn.encode("utf-8", "replace")) <= _MAX_ALPN, "the alpn")
            _check_description(message)
        case Restart():
            _check(message.version >= 1, "the version")
            _check(len(message.continues) == NAME_LENGTH, "the name of the connection")
            _check(len(message.heard) <= MAX_HEARD, "the number of restarts heard")
            for ufrag in message.heard:
                _check_ufrag(ufrag)
            _check_description(message)
        case Answer():
            _check_description(message)
        case CandidateFound():
            _check_ufrag(message.ufrag)
            _check_candidates((message.candidate,))
        case EndOfCandidates():
            _check_ufrag(message.ufrag)
        case Refuse():
            _check(len(message.text) <= _MAX_TEXT and message.text.isprintable(), "the text")
        case Bye():
            pass
    return message


def _check(correct: bool, what: str) -> None:
    if not correct:
        raise SignalDecodeError(f"{what} is not allowed")


def _check_description(message: Description) -> None:
    _check_ufrag(message.ufrag)
    _check(_PWD.fullmatch(message.pwd) is not None, "the pwd")
    _check(0 < message.pacing <= _MAX_PACING, "the pacing")
    _check_candidates(message.candidates)


def _check_ufrag(ufrag: str | None) -> None:
    _check(ufrag is None or _UFRAG.fullmatch(ufrag) is not None, "the ufrag")


def _check_candidates(candidates: tuple[Candidate, ...]) -> None:
    _check(len(candidates) <= MAX_REMOTE_CANDIDATES, "the number of candidates")
    for candidate in candidates:
        _check(_FOUNDATION.fullmatch(candidate.foundation) is not None, "a foundation")
        _check(0 < candidate.priority < 1 << 31, "a priority")
        _check(candidate.component == COMPONENT, "a component")
        _check(candidate.base is None, "a base")
        for address in (candidate.address, candidate.related_address):
            if address is not None:
                _check(0 < address.port < 1 << 16, "a port")
                _check(_is_plain_ip(address.host), "an address")


def _is_plain_ip(host: str) -> bool:
    """Whether this is an IP address in the one form that compares equal with what packets come from.

    An IPv4-mapped address stands for an IPv4 one (RFC 8445 §5.1.1.1 has agents not send them), and a zone means
    something on its own machine alone (RFC 4007 §6).
    """
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and (ip.ipv4_mapped is not None or ip.scope_id is not None):
        return False
    return str(ip) == host
