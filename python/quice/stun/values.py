"""Kinds of STUN attribute values: each knows how to read and write itself (RFC 8489 §14)."""

from __future__ import annotations

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
        """Write the attribute's value, without padding. Raises `ValueError` for one that does not fit."""
        raise NotImplementedError


@dataclass(frozen=True)
class Bytes(Attribute):
    """Opaque bytes, of a length among `LENGTHS`."""

    LENGTHS: ClassVar[range] = range(1 << 16)
    value: bytes

    @classmethod
    def decode(cls, value: bytes, transaction_id: bytes) -> Bytes:
        if len(value) not in cls.LENGTHS:
            raise StunDecodeError(f"{cls.__name__} has {len(value)} bytes")
        return cls(value)

    def encode(self, transaction_id: bytes) -> bytes:
        if len(self.value) not in self.LENGTHS:
            raise ValueError(f"{type(self).__name__} can't have {len(self.value)} bytes")
        return self.value


@dataclass(frozen=True)
class Text(Attribute):
    """UTF-8 text of at most `LIMIT` bytes.

    The RFC lets a sender write 127 characters in 508 bytes, and has a receiver take the 763 of its
    predecessor (§14.3, §14.9). One limit holds both ways here, for a client echoes what it was sent.
    """

    LIMIT: ClassVar[int] = 763
    ERRORS: ClassVar[str] = "strict"
    value: str

    @classmethod
    def decode(cls, value: bytes, transaction_id: bytes) -> Text:
        if len(value) > cls.LIMIT:
            raise StunDecodeError(f"{cls.__name__} has {len(value)} bytes")
        try:
            return cls(value.decode("utf-8", cls.ERRORS))
        except UnicodeDecodeError as error:
            raise StunDecodeError(f"{cls.__name__} is not UTF-8") from error

    def encode(self, transaction_id: bytes) -> bytes:
        value = self.value.encode("utf-8")
        if len(value) > self.LIMIT:
            raise ValueError(f"{type(self).__name__} can't have {len(value)} bytes")
        return value


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
    ip = address.without_zone.ip
    family = _FAMILY_IPV4 if ip.version == 4 else _FAMILY_IPV6
    plain = address.port.to_bytes(2, "big") + ip.packed
    return bytes((0, family)) + bytes(a ^ b for a, b in zip(plain, mask, strict=False))
