"""Encryption to a public key (HPKE, RFC 9180): base mode, single-shot, with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and
ChaCha20Poly1305.

The `cryptography` library decrypts. Its encryption draws the ephemeral key from the system, where nobody else can: a
simulated run would never be the same again. So the sender's half is composed here, of the library's X25519 and
ChaCha20Poly1305, with the ephemeral key passed in.
"""

from __future__ import annotations

import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

OVERHEAD = 32 + 16
"""Bytes that are added: the ephemeral public key before the text, and the tag behind it."""
_RECEIVER = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
# RFC 9180 §4.1 and §5.1, with the numbers of §7.
_KEM_SUITE = b"KEM\x00\x20"
_SUITE = b"HPKE\x00\x20\x00\x01\x00\x03"
_BASE_MODE = b"\0"
_KEY_LENGTH, _NONCE_LENGTH = 32, 12


def encrypt(text: bytes, receiver: X25519PublicKey, info: bytes, ephemeral: X25519PrivateKey) -> bytes:
    """What only the receiver decrypts, and only for the same `info`. No ephemeral key may be used twice.

    Raises `ValueError` for a receiver whose key is of low order.
    """
    # §4.1, Encap.
    encapsulated = ephemeral.public_key().public_bytes_raw()
    agreed = _extract(_KEM_SUITE, b"", b"eae_prk", ephemeral.exchange(receiver))
    shared = _expand(_KEM_SUITE, agreed, b"shared_secret", encapsulated + receiver.public_bytes_raw(), _KEY_LENGTH)
    key, nonce = schedule(shared, info)
    return encapsulated + ChaCha20Poly1305(key).encrypt(nonce, text, None)


def decrypt(data: bytes, receiver: X25519PrivateKey, info: bytes) -> bytes | None:
    """What was encrypted to this receiver for this `info`; None if these bytes were not."""
    try:
        return _RECEIVER.decrypt(data, receiver, info)
    except (InvalidTag, ValueError):
        return None


def schedule(shared: bytes, info: bytes) -> tuple[bytes, bytes]:
    """Key and nonce of the first text, which is the only one (§5.1, KeySchedule)."""
    context = _BASE_MODE + _extract(_SUITE, b"", b"psk_id_hash", b"") + _extract(_SUITE, b"", b"info_hash", info)
    secret = _extract(_SUITE, shared, b"secret", b"")
    key = _expand(_SUITE, secret, b"key", context, _KEY_LENGTH)
    return key, _expand(_SUITE, secret, b"base_nonce", context, _NONCE_LENGTH)


def _extract(suite: bytes, salt: bytes, label: bytes, material: bytes) -> bytes:
    """LabeledExtract (§4); HKDF-Extract is one HMAC (RFC 5869 §2.2)."""
    return hmac.digest(salt, b"HPKE-v1" + suite + label + material, "sha256")


def _expand(suite: bytes, secret: bytes, label: bytes, info: bytes, length: int) -> bytes:
    """LabeledExpand (§4). HKDF-Expand is one HMAC for as much as one gives (RFC 5869 §2.3), and more is never asked."""
    labelled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return hmac.digest(secret, labelled + b"\x01", "sha256")[:length]
