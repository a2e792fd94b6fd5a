"""STUN messages: header, attributes, integrity and fingerprint (RFC 8489 §5, §9, §14)."""

from __future__ import annotations

import enum
import hashlib
import hmac
import struct
import zlib
from dataclasses import dataclass, field
from typing import TypeVar

from quice.stun.attributes import (
    ATTRIBUTES,
    ErrorCode,
    Fingerprint,
    MessageIntegrity,
    MessageIntegritySha256,
)
from quice.stun.values import MAGIC_COOKIE, Attribute, StunDecodeError

HEADER_LENGTH = 20
TRANSACTION_ID_LENGTH = 12
# RFC 8489 §14: types from here on may be ignored by who does not know them.
_COMPREHENSION_OPTIONAL = 0x8000
_FINGERPRINT_XOR = 0x5354554E
_COOKIE = MAGIC_COOKIE.to_bytes(4, "big")
_MAX_LENGTH = 0xFFFC
_SHA1_LENGTH = 20
_SHA256_LENGTHS = (16, 20, 24, 28, 32)

AttributeT = TypeVar("AttributeT", bound=Attribute)


class Method(enum.IntEnum):
    """What a message is about (RFC 8489 §18.2, RFC 8656 §17)."""

    BINDING = 0x001
    ALLOCATE = 0x003
    REFRESH = 0x004
    SEND = 0x006
    DATA = 0x007
    CREATE_PERMISSION = 0x008
    CHANNEL_BIND = 0x009


class Kind(enum.IntEnum):
    """A message's class."""

    REQUEST = 0
    INDICATION = 1
    SUCCESS = 2
    ERROR = 3


# RFC 8489 §5: the class's two bits sit among the method's twelve.
_TYPES = {
    (method & 0xF) | (method & 0x70) << 1 | (method & 0xF80) << 2 | (kind & 1) << 4 | (kind & 2) << 7: (
        method,
        kind,
    )
    for method in Method
    for kind in Kind
}
_NUMBERS = {pair: number for number, pair in _TYPES.items()}


def is_stun(data: bytes | memoryview) -> bool:
    """Whether a datagram has the form of a STUN message: first octet, cookie and length (§5)."""
    return (
        len(data) >= HEADER_LENGTH
        and data[0] < 4
        and data[4:8] == _COOKIE
        and int.from_bytes(data[2:4], "big") + HEADER_LENGTH == len(data)
        and len(data) % 4 == 0
    )


@dataclass(frozen=True)
class Message:
    """A STUN message. Integrity and fingerprint are not among `attributes`: `encode` adds and `decode` strips them."""

    method: Method
    kind: Kind
    transaction_id: bytes
    attributes: tuple[Attribute, ...] = ()
    unknown_required: tuple[int, ...] = ()
    """Attribute types that must be understood and are not: a request with one is refused with 420."""
    has_fingerprint: bool = field(default=False, compare=False)
    _raw: bytes = field(default=b"", compare=False, repr=False)
    # Where MESSAGE-INTEGRITY and MESSAGE-INTEGRITY-SHA256 start in `_raw`, 0 for none.
    _sha1_at: int = field(default=0, compare=False, repr=False)
    _sha256_at: int = field(default=0, compare=False, repr=False)

    def get(self, kind: type[AttributeT]) -> AttributeT | None:
        """The first attribute of this class, or None."""
        for attribute in self.attributes:
            if type(attribute) is kind:
                return attribute
        return None

    @property
    def error(self) -> ErrorCode:
        """Why a request failed; 500 when an error response gives no reason."""
        return self.get(ErrorCode) or ErrorCode(500, "the response gives no error code")

    @property
    def has_integrity(self) -> bool:
        """Whether the message carries an integrity attribute of either kind."""
        return bool(self._sha1_at or self._sha256_at)

    @property
    def has_sha256(self) -> bool:
        """Whether the message carries MESSAGE-INTEGRITY-SHA256: then its answer must, too (§9.1.3)."""
        return bool(self._sha256_at)

    def verify(self, key: bytes) -> bool:
        """Whether a decoded message was made by who knows `key` (§9.1.3, §9.2.4).

        MESSAGE-INTEGRITY-SHA256 decides if it is there, else MESSAGE-INTEGRITY. Neither ICE nor TURN allows a
        truncated value (§14.6), so that one is wrong.
        """
        start, digest = (self._sha256_at, hashlib.sha256) if self._sha256_at else (self._sha1_at, hashlib.sha1)
        if not start:
            return False
        value_at = start + 4
        end = value_at + int.from_bytes(self._raw[start + 2 : value_at], "big")
        expected = hmac.digest(key, _with_length(self._raw[:start], end), digest)
        return hmac.compare_digest(expected, self._raw[value_at:end])

    def encode(self, key: bytes | None = None, *, sha256: bool = False, fingerprint: bool = True) -> bytes:
        """The message as bytes, with MESSAGE-INTEGRITY (or -SHA256) if a key is given, and FINGERPRINT.

        Raises `ValueError` for a value that does not fit its attribute, or attributes too long together.
        """
        if len(self.transaction_id) != TRANSACTION_ID_LENGTH:
            raise ValueError(f"a transaction id has {TRANSACTION_ID_LENGTH} bytes")
        parts = [b""]
        length = 0
        try:
            for attribute in self.attributes:
                value = attribute.encode(self.transaction_id)
                part = struct.pack("!HH", attribute.TYPE, len(value)) + value + bytes(-len(value) % 4)
                parts.append(part)
                length += len(part)
        except (struct.error, OverflowError) as error:
            raise ValueError(f"a value does not fit its attribute: {error}") from error
        parts[0] = struct.pack("!HHI", _NUMBERS[self.method, self.kind], 0, MAGIC_COOKIE) + self.transaction_id
        data = _with_length(b"".join(parts), HEADER_LENGTH + length)
        if key is not None:
            kind, digest = (
                (MessageIntegritySha256.TYPE, hashlib.sha256) if sha256 else (MessageIntegrity.TYPE, hashlib.sha1)
            )
            data = _with_length(data, len(data) + 4 + digest().digest_size)
            value = hmac.digest(key, data, digest)
            data += struct.pack("!HH", kind, len(value)) + value
        if fingerprint:
            data = _with_length(data, len(data) + 8)
            data += struct.pack("!HHI", Fingerprint.TYPE, 4, zlib.crc32(data) ^ _FINGERPRINT_XOR)
        return data

    @classmethod
    def decode(cls, data: bytes | memoryview) -> Message:
        """Read a message. Raises `StunDecodeError` for what is none, or has a wrong FINGERPRINT."""
        if not is_stun(data):
            raise StunDecodeError("not a STUN message")
        data = bytes(data)
        pair = _TYPES.get(int.from_bytes(data[:2], "big"))
        if pair is None:
            raise StunDecodeError("an unknown method")
        transaction_id = data[8:HEADER_LENGTH]
        attributes: list[Attribute] = []
        unknown: list[int] = []
        sha1_at = sha256_at = 0
        has_fingerprint = False
        position = HEADER_LENGTH
        while position < len(data):
            start = position
            number, length = struct.unpack_from("!HH", data, position)
            value = data[position + 4 : position + 4 + length]
            position += 4 + (length + 3 & ~3)
            if position > len(data):
                raise StunDecodeError("an attribute is cut off")
            if number == Fingerprint.TYPE:
                if position != len(data) or length != 4:
                    raise StunDecodeError("FINGERPRINT is not the last attribute")
                if int.from_bytes(value, "big") != zlib.crc32(data[:start]) ^ _FINGERPRINT_XOR:
                    raise StunDecodeError("a wrong FINGERPRINT")
                has_fingerprint = True
            elif number == MessageIntegritySha256.TYPE and not sha256_at:
                if length not in _SHA256_LENGTHS:
                    raise StunDecodeError("MESSAGE-INTEGRITY-SHA256 has a wrong length")
                sha256_at = start
            elif sha1_at or sha256_at:
                # RFC 8489 §14.5 and §14.6: what follows the integrity is not covered by it, and ignored.
                continue
            elif number == MessageIntegrity.TYPE:
                if length != _SHA1_LENGTH:
                    raise StunDecodeError("MESSAGE-INTEGRITY has a wrong length")
                sha1_at = start
            elif (kind := ATTRIBUTES.get(number)) is not None:
                attributes.append(kind.decode(value, transaction_id))
            elif number < _COMPREHENSION_OPTIONAL:
                unknown.append(number)
        return cls(
            *pair,
            transaction_id,
            tuple(attributes),
            tuple(unknown),
            has_fingerprint,
            data,
            sha1_at,
            sha256_at,
        )


def _with_length(data: bytes, total: int) -> bytes:
    """The message with the length field that it has when it is `total` bytes long (§14.5)."""
    if total - HEADER_LENGTH > _MAX_LENGTH:
        raise ValueError(f"{total} bytes are too many for a message")
    return data[:2] + (total - HEADER_LENGTH).to_bytes(2, "big") + data[4:]
