"""STUN attributes as typed values (RFC 8489 §14), with those of ICE, TURN and NAT behaviour discovery.

An attribute is a frozen dataclass with its type code in `TYPE`; what its value looks like, it has from one of the
classes in `quice.stun.values`. `ATTRIBUTES` maps type codes to classes.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import ClassVar

from quice.stun.values import Attribute as Attribute
from quice.stun.values import Bytes, Flag, Number, PlainAddress, Text, XorAddress
from quice.stun.values import StunDecodeError as StunDecodeError

_REASON_LIMIT = 763


class MappedAddress(PlainAddress):
    TYPE = 0x0001


class Username(Text):
    TYPE = 0x0006


class MessageIntegrity(Bytes):
    """HMAC-SHA1 over the message before it (§14.5)."""

    TYPE = 0x0008


@dataclass(frozen=True)
class ErrorCode(Attribute):
    """Why a request failed (§14.8)."""

    TYPE = 0x0009
    code: int
    reason: str = ""

    @classmethod
    def decode(cls, value: bytes, transaction_id: bytes) -> ErrorCode:
        return cls(*_decode_error(value))

    def encode(self, transaction_id: bytes) -> bytes:
        return b"\0\0" + _encode_error(self.code, self.reason)


def _decode_error(value: bytes) -> tuple[int, str]:
    """Code and reason, behind two octets that differ from attribute to attribute."""
    if not 4 <= len(value) <= 4 + _REASON_LIMIT or not 3 <= value[2] & 7 <= 6 or value[3] > 99:
        raise StunDecodeError("a malformed error code")
    # The reason is for people (§14.8): one in another encoding must not hide the code.
    return (value[2] & 7) * 100 + value[3], value[4:].decode("utf-8", errors="ignore")


def _encode_error(code: int, reason: str) -> bytes:
    text = reason.encode("utf-8")
    if not 300 <= code <= 699 or len(text) > _REASON_LIMIT:
        raise ValueError(f"an error code of {code} with a reason of {len(text)} bytes")
    return bytes(divmod(code, 100)) + text


@dataclass(frozen=True)
class UnknownAttributes(Attribute):
    """The attribute types that made the server refuse with 420 (§14.9)."""

    TYPE = 0x000A
    types: tuple[int, ...]

    @classmethod
    def decode(cls, value: bytes, transaction_id: bytes) -> UnknownAttributes:
        if len(value) % 2:
            raise StunDecodeError("a malformed list of attribute types")
        return cls(struct.unpack(f"!{len(value) // 2}H", value))

    def encode(self, transaction_id: bytes) -> bytes:
        return struct.pack(f"!{len(self.types)}H", *self.types)


class ChannelNumber(Number):
    """The upper half is a channel (RFC 8656 §18.1)."""

    TYPE = 0x000C
    FORMAT = "!Hxx"


class Lifetime(Number):
    """Seconds (RFC 8656 §18.2)."""

    TYPE = 0x000D


class XorPeerAddress(XorAddress):
    TYPE = 0x0012


class Data(Bytes):
    TYPE = 0x0013


class Realm(Text):
    TYPE = 0x0014


class Nonce(Bytes):
    TYPE = 0x0015
    LENGTHS = range(764)


class XorRelayedAddress(XorAddress):
    TYPE = 0x0016


class RequestedAddressFamily(Number):
    """1 for IPv4, 2 for IPv6 (RFC 8656 §18.6)."""

    TYPE = 0x0017
    FORMAT = "!Bxxx"


@dataclass(frozen=True)
class EvenPort(Attribute):
    """Asks for a relayed address with an even port, and with `reserve` to keep the next one (RFC 8656 §18.7)."""

    TYPE = 0x0018
    reserve: bool

    @classmethod
    def decode(cls, value: bytes, transaction_id: bytes) -> EvenPort:
        if len(value) != 1:
            raise StunDecodeError("a malformed even port")
        return cls(reserve=bool(value[0] & 0x80))

    def encode(self, transaction_id: bytes) -> bytes:
        return bytes((0x80 * self.reserve,))


class RequestedTransport(Number):
    """An IP protocol number: 17 for UDP (RFC 8656 §18.8)."""

    TYPE = 0x0019
    FORMAT = "!Bxxx"


class DontFragment(Flag):
    """Relayed datagrams are to be sent with the DF bit (RFC 8656 §18.9)."""

    TYPE = 0x001A


class MessageIntegritySha256(Bytes):
    """HMAC-SHA256 over the message before it (§14.6)."""

    TYPE = 0x001C


class PasswordAlgorithm(enum.IntEnum):
    """How a password becomes a key (§18.5)."""

    MD5 = 1
    SHA256 = 2


@dataclass(frozen=True)
class PasswordAlgorithmChoice(Attribute):
    """PASSWORD-ALGORITHM: the algorithm in use, with its parameters (§14.12)."""

    TYPE = 0x001D
    algorithm: int
    parameters: bytes = b""

    @classmethod
    def decode(cls, value: bytes, transaction_id: bytes) -> PasswordAlgorithmChoice:
        algorithms = _decode_algorithms(value)
        if len(algorithms) != 1:
            raise StunDecodeError("not one password algorithm")
        return cls(*algorithms[0])

    def encode(self, transaction_id: bytes) -> bytes:
        return _encode_algorithms(((self.algorithm, self.parameters),))


class Userhash(Bytes):
    """SHA-256 of user name and realm (§14.4)."""

    TYPE = 0x001E
    LENGTHS = range(32, 33)


class XorMappedAddress(XorAddress):
    TYPE = 0x0020


class ReservationToken(Bytes):
    """Names a relayed address that was kept (RFC 8656 §18.10)."""

    TYPE = 0x0022
    LENGTHS = range(8, 9)


class Priority(Number):
    """The priority of a candidate that may be found by this check (RFC 8445 §7.1.1)."""

    TYPE = 0x0024


class UseCandidate(Flag):
    """Nominates the pair (RFC 8445 §7.1.2)."""

    TYPE = 0x0025


class Padding(Bytes):
    """Makes a message long enough to be fragmented (RFC 5780 §7.6)."""

    TYPE = 0x0026


class ResponsePort(Number):
    """Where to answer to (RFC 5780 §7.5)."""

    TYPE = 0x0027
    FORMAT = "!Hxx"


@dataclass(frozen=True)
class ChangeRequest(Attribute):
    """Asks for the answer from another address or port (RFC 5780 §7.2)."""

    TYPE = 0x0003
    address: bool
    port: bool

    @classmethod
    def decode(cls, value: bytes, transaction_id: bytes) -> ChangeRequest:
        if len(value) != 4:
            raise StunDecodeError("a malformed change request")
        return cls(address=bool(value[3] & 4), port=bool(value[3] & 2))

    def encode(self, transaction_id: bytes) -> bytes:
        return bytes((0, 0, 0, 4 * self.address + 2 * self.port))


class AdditionalAddressFamily(Number):
    """2: an IPv6 relayed address beside the IPv4 one (RFC 8656 §18.11)."""

    TYPE = 0x8000
    FORMAT = "!Bxxx"


@dataclass(frozen=True)
class AddressErrorCode(Attribute):
    """Why one of two relayed addresses was not given; 1 for IPv4, 2 for IPv6 (RFC 8656 §18.12)."""

    TYPE = 0x8001
    family: int
    code: int
    reason: str = ""

    @classmethod
    def decode(cls, value: bytes, transaction_id: bytes) -> AddressErrorCode:
        code, reason = _decode_error(value)
        return cls(value[0], code, reason)

    def encode(self, transaction_id: bytes) -> bytes:
        return bytes((self.family, 0)) + _encode_error(self.code, self.reason)


@dataclass(frozen=True)
class PasswordAlgorithms(Attribute):
    """PASSWORD-ALGORITHMS: what the server accepts, best first (§14.11)."""

    # Two algorithms exist, without parameters: 8 bytes. A client echoes the list, so that it must have an end.
    LIMIT: ClassVar[int] = 256
    TYPE = 0x8002
    algorithms: tuple[tuple[int, bytes], ...]

    @classmethod
    def decode(cls, value: bytes, transaction_id: bytes) -> PasswordAlgorithms:
        if len(value) > cls.LIMIT:
            raise StunDecodeError("too many password algorithms")
        return cls(tuple(_decode_algorithms(value)))

    def encode(self, transaction_id: bytes) -> bytes:
        return _encode_algorithms(self.algorithms)


def _decode_algorithms(value: bytes) -> list[tuple[int, bytes]]:
    algorithms = []
    while value:
        if len(value) < 4:
            raise StunDecodeError("a malformed password algorithm")
        number, length = struct.unpack_from("!HH", value)
        if len(value) < 4 + length:
            raise StunDecodeError("a password algorithm's parameters are cut off")
        algorithms.append((number, value[4 : 4 + length]))
        value = value[4 + (length + 3 & ~3) :]
    return algorithms


def _encode_algorithms(algorithms: tuple[tuple[int, bytes], ...]) -> bytes:
    return b"".join(
        struct.pack("!HH", number, len(parameters)) + parameters + bytes(-len(parameters) % 4)
        for number, parameters in algorithms
    )


class AlternateDomain(Text):
    """The name that the alternate server's certificate is for (§14.16)."""

    TYPE = 0x8003
    LIMIT = 255


class Software(Text):
    """For people and logs (§14.14): a name in another encoding must not hide the rest of the message."""

    TYPE = 0x8022
    ERRORS = "ignore"


class AlternateServer(PlainAddress):
    TYPE = 0x8023


class Fingerprint(Number):
    """CRC-32 of the message before it, XORed with "STUN" (§14.7)."""

    TYPE = 0x8028


class IceControlled(Number):
    """The tie-breaker of a controlled agent (RFC 8445 §7.1.3)."""

    TYPE = 0x8029
    FORMAT = "!Q"


class IceControlling(Number):
    """The tie-breaker of a controlling agent (RFC 8445 §7.1.3)."""

    TYPE = 0x802A
    FORMAT = "!Q"


class ResponseOrigin(PlainAddress):
    """Where the answer was sent from (RFC 5780 §7.3)."""

    TYPE = 0x802B


class OtherAddress(PlainAddress):
    """The server's other address and port (RFC 5780 §7.4)."""

    TYPE = 0x802C


class DraftAdditionalAddressFamily(Number):
    """AdditionalAddressFamily by the number of draft-martinsen-tram-ssoda, which coturn 4.6 goes by."""

    TYPE = 0x8032
    FORMAT = "!Bxxx"


class Nomination(Number):
    """Of two nominations the one with the greater number is the later (draft-thatcher-ice-renomination-01 §4).

    The draft has no code point; this is the one that libwebrtc uses.
    """

    TYPE = 0xC001


ATTRIBUTES: dict[int, type[Attribute]] = {
    kind.TYPE: kind
    for kind in (
        MappedAddress, ChangeRequest, Username, MessageIntegrity, ErrorCode, UnknownAttributes, ChannelNumber,
        Lifetime, XorPeerAddress, Data, Realm, Nonce, XorRelayedAddress, RequestedAddressFamily, EvenPort,
        RequestedTransport, DontFragment, MessageIntegritySha256, PasswordAlgorithmChoice, Userhash, XorMappedAddress,
        ReservationToken, Priority, UseCandidate, Padding, ResponsePort, AdditionalAddressFamily, AddressErrorCode,
        PasswordAlgorithms, AlternateDomain, Software, AlternateServer, Fingerprint, IceControlled, IceControlling,
        ResponseOrigin, OtherAddress, DraftAdditionalAddressFamily, Nomination,
    )
}  # fmt: skip
