"""QUIC Initial packets that decrypt, whatever is in them (RFC 9000 §17.2.2, RFC 9001 §5).

Anybody can make these: their keys follow from the connection id. So a stranger's frames get as far as the engine's
frame parser and TLS, and fuzzing has to get there, too.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_SALT = bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a")
_VERSION_1 = 1
_PACKET_NUMBER_LENGTH = 2
_TAG_LENGTH = 16
# RFC 9000 §14.1.
_SMALLEST_DATAGRAM = 1200


@dataclass(frozen=True)
class Keys:
    """What protects the Initial packets of one direction."""

    key: bytes
    iv: bytes
    hp: bytes

    @classmethod
    def derive(cls, connection_id: bytes, *, client: bool) -> Keys:
        """From the destination connection id of the client's first packet (RFC 9001 §5.2)."""
        secret = hmac.digest(_SALT, connection_id, hashlib.sha256)
        own = _expand(secret, b"client in" if client else b"server in", 32)
        return cls(_expand(own, b"quic key", 16), _expand(own, b"quic iv", 12), _expand(own, b"quic hp", 16))


def _expand(secret: bytes, label: bytes, length: int) -> bytes:
    """HKDF-Expand-Label (RFC 8446 §7.1) for at most one block."""
    label = b"tls13 " + label
    info = length.to_bytes(2, "big") + bytes((len(label),)) + label + b"\0"
    return hmac.digest(secret, info + b"\1", hashlib.sha256)[:length]


def varint(number: int) -> bytes:
    """RFC 9000 §16."""
    for prefix, length in ((0, 1), (1, 2), (2, 4), (3, 8)):
        if number < 1 << 8 * length - 2:
            return (number | prefix << 8 * length - 2).to_bytes(length, "big")
    raise ValueError(f"{number} is too large for a variable-length integer")


def packet(
    keys: Keys,
    destination: bytes,
    source: bytes,
    frames: bytes,
    *,
    number: int = 0,
    token: bytes = b"",
    version: int = _VERSION_1,
) -> bytes:
    """An Initial packet with these connection ids and frames, padded to the size that one must have."""
    start = bytes((0xC0 | _PACKET_NUMBER_LENGTH - 1,)) + version.to_bytes(4, "big")
    start += bytes((len(destination),)) + destination + bytes((len(source),)) + source
    start += varint(len(token)) + token
    around = len(start) + 2 + _PACKET_NUMBER_LENGTH + _TAG_LENGTH
    frames = frames.ljust(_SMALLEST_DATAGRAM - around, b"\0")
    length = _PACKET_NUMBER_LENGTH + len(frames) + _TAG_LENGTH
    header = start + (length | 0x4000).to_bytes(2, "big") + number.to_bytes(_PACKET_NUMBER_LENGTH, "big")
    nonce = (int.from_bytes(keys.iv, "big") ^ number).to_bytes(len(keys.iv), "big")
    sealed = AESGCM(keys.key).encrypt(nonce, frames, header)
    # RFC 9001 §5.4.2: the sample starts where the longest packet number would end.
    sample = sealed[4 - _PACKET_NUMBER_LENGTH : 20 - _PACKET_NUMBER_LENGTH]
    # ECB over one block is the plain AES that §5.4.3 asks for.
    mask = Cipher(algorithms.AES(keys.hp), modes.ECB()).encryptor().update(sample)
    at = len(header) - _PACKET_NUMBER_LENGTH
    number_bytes = bytes(a ^ b for a, b in zip(header[at:], mask[1:], strict=False))
    return bytes((header[0] ^ mask[0] & 0x0F,)) + header[1:at] + number_bytes + sealed
