"""STUN attributes as typed values (RFC 8489 §14), with those of ICE, TURN and NAT behaviour discovery.

An attribute is a frozen dataclass with its type code in `TYPE`. Each kind of value has one base class that
knows how to read and write it; `ATTRIBUTES` maps type codes to classes.
"""

from __future__ import annotations

import enum
import ipaddress
import struct
from dataclasses import dataclass
from typing import ClassVar

from quice.wire import Address

MAGIC_COOKIE = 0x2112A442
_COOKIE = MAGIC_COOKIE.to_bytes(4, "big")
_FAMILY_IPV4 = 1
_FAMILY_IPV6 = 2


class StunDecodeError(ValueError):
    """A datagram is not a STUN message, or an attribute in it is malformed."""


@dataclass(frozen=True)
class Attribute:
    """The base of all attributes."""

    TYPE: ClassVar[int]

    @classmethod
    def decode(cls, value: bytes, transaction_id: bytes) -> Attribute:
        """Read the attribute's value. Raises `StunDecodeError`."""
        raise NotImplementedError

    def encode(self, transaction_id: bytes) -> bytes:
        """Write the attribute's value, without padding."""
        raise NotImplementedError


@dataclass(frozen=True)
class Bytes(Attribute):
    """Opaque bytes."""

    value: bytes

    @classmethod
    def decode(cls, value: bytes, transaction_id: bytes) -> Bytes:
        return cls(value)

    def encode(self, transaction_id: bytes) -> bytes:
        return self.value


@dataclass(frozen=True)
class Text(Attribute):
    """UTF-8 text."""

    value: str

    @classmethod
    def decode(cls, value: bytes, transaction_id: bytes) -> Text:
        try:
            return cls(value.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise StunDecodeError(f"{cls.__name__} is not UTF-8") from error

    def encode(self, transaction_id: bytes) -> bytes:
        return self.value.encode("utf-8")


@dataclass(frozen=True)
class Flag(Attribute):
    """Present or not, without a value."""

    @classmethod
    def decode(cls, value: bytes, transaction_id: bytes) -> Flag:
        return cls()

    def encode(self, transaction_id: bytes) -> bytes:
        return b""


@dataclass(frozen=True)
class Number(Attribute):
    """An unsigned number, with `FORMAT` as `struct` writes it."""

    FORMAT: ClassVar[str] = "!I"
    value: int

    @classmethod
    def decode(cls, value: bytes, transaction_id: bytes) -> Number:
        try:
            return cls(struct.unpack(cls.FORMAT, value)[0])
        except struct.error as error:
            raise StunDecodeError(f"{cls.__name__} has {len(value)} bytes") from error

    def encode(self, transaction_id: bytes) -> bytes:
        return struct.pack(self.FORMAT, self.value)


@dataclass(frozen=True)
class PlainAddress(Attribute):
    """A transport address in the clear (§14.1)."""

    address: Address

    @classmethod
    def decode(cls, value: bytes, transaction_id: bytes) -> PlainAddress:
        return cls(_decode_address(value, bytes(18)))

    def encode(self, transaction_id: bytes) -> bytes:
        return _encode_address(self.address, bytes(18))


@dataclass(frozen=True)
class XorAddress(Attribute):
    """A transport address obscured from NATs that rewrite what looks like one (§14.2)."""

    address: Address

    @classmethod
    def decode(cls, value: bytes, transaction_id: bytes) -> XorAddress:
        return cls(_decode_address(value, _xor_mask(transaction_id)))

    def encode(self, transaction_id: bytes) -> bytes:
        return _encode_address(self.address, _xor_mask(transaction_id))


def _xor_mask(transaction_id: bytes) -> bytes:
    """What port and address are XORed with: the port has the cookie's upper half."""
    return _COOKIE[:2] + _COOKIE + transaction_id


def _decode_address(value: bytes, mask: bytes) -> Address:
    length = {_FAMILY_IPV4: 8, _FAMILY_IPV6: 20}.get(value[1]) if len(value) >= 4 else None
    if length != len(value):
        raise StunDecodeError("an address of unknown family or wrong length")
    plain = bytes(a ^ b for a, b in zip(value[2:], mask, strict=False))
    ip = ipaddress.ip_address(plain[2:])
    return Address(str(ip), int.from_bytes(plain[:2], "big"))


def _encode_address(address: Address, mask: bytes) -> bytes:
    ip = ipaddress.ip_address(address.host.partition("%")[0])
    family = _FAMILY_IPV4 if ip.version == 4 else _FAMILY_IPV6
    plain = address.port.to_bytes(2, "big") + ip.packed
    return bytes((0, family)) + bytes(a ^ b for a, b in zip(plain, mask, strict=False))


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
        if len(value) < 4 or not 3 <= value[2] & 7 <= 6 or value[3] > 99:
            raise StunDecodeError("a malformed error code")
        return cls((value[2] & 7) * 100 + value[3], value[4:].decode("utf-8", errors="replace"))

    def encode(self, transaction_id: bytes) -> bytes:
        return bytes((0, 0, self.code // 100, self.code % 100)) + self.reason.encode("utf-8")


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


class XorRelayedAddress(XorAddress):
    TYPE = 0x0016


class RequestedAddressFamily(Number):
    """1 for IPv4, 2 for IPv6 (RFC 8656 §18.6)."""

    TYPE = 0x0017
    FORMAT = "!Bxxx"


class RequestedTransport(Number):
    """An IP protocol number: 17 for UDP (RFC 8656 §18.8)."""

    TYPE = 0x0019
    FORMAT = "!Bxxx"


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


class XorMappedAddress(XorAddress):
    TYPE = 0x0020


class Priority(Number):
    """The priority of a candidate that may be found by this check (RFC 8445 §7.1.1)."""

    TYPE = 0x0024


class UseCandidate(Flag):
    """Nominates the pair (RFC 8445 §7.1.2)."""

    TYPE = 0x0025


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


@dataclass(frozen=True)
class PasswordAlgorithms(Attribute):
    """PASSWORD-ALGORITHMS: what the server accepts, best first (§14.11)."""

    TYPE = 0x8002
    algorithms: tuple[tuple[int, bytes], ...]

    @classmethod
    def decode(cls, value: bytes, transaction_id: bytes) -> PasswordAlgorithms:
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
    TYPE = 0x8003


class Software(Text):
    TYPE = 0x8022


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


ATTRIBUTES: dict[int, type[Attribute]] = {
    kind.TYPE: kind
    for kind in (
        MappedAddress, ChangeRequest, Username, MessageIntegrity, ErrorCode, UnknownAttributes, ChannelNumber,
        Lifetime, XorPeerAddress, Data, Realm, Nonce, XorRelayedAddress, RequestedAddressFamily,
        RequestedTransport, MessageIntegritySha256, PasswordAlgorithmChoice, Userhash, XorMappedAddress, Priority,
        UseCandidate, ResponsePort, PasswordAlgorithms, AlternateDomain, Software, AlternateServer, Fingerprint,
        IceControlled, IceControlling, ResponseOrigin, OtherAddress,
    )
}  # fmt: skip
