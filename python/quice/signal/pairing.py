"""How two peers that know the same words come to know each other for certain, by three bodies through a mailbox.

    opener                                  claimant
      | ---- greeting: X -------------------> |     32 + 1 bytes
      | <--- answer:   Y, sealed payload ---- |
      | ---- reply:    sealed payload ------> |

X and Y are SPAKE2's (Abdalla and Pointcheval, 2005): whoever does not know the words, the server too, gets one guess at
them out of an exchange, and can try no more afterwards. The keys that follow are bound to the mailbox and to both
PeerIds, as each side knows its own and is told the other's: what one side opens was sealed by the very peer that it was
told of, who knows the words. The opener hears first of a wrong guess, before it says anything to check a guess by.

Sans-I/O. One `Opener` and one `Claimant` are for one exchange each.
"""

from __future__ import annotations

from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from spake2 import SPAKE2_A, SPAKE2_B, SPAKEError
from spake2.ed25519_basic import NotOnCurve

from quice.errors import WrongCodeError
from quice.identity import PeerId
from quice.wire import Random, random_bytes

MAX_PAYLOAD = 256
"""Bytes that each side can tell the other."""
_GREETING = 33
"""One for the side, and a point of edwards25519 (RFC 8032 §5.1.2)."""
_TAG = 16
_CONTEXT = b"quice code v1\0"
_NONCE = bytes(12)
"""Each key seals one text."""


class Settled(NamedTuple):
    """What the opener knows after the answer."""

    reply: bytes
    """For the claimant."""
    payload: bytes
    """The claimant's."""


class Opener:
    """The side that has opened the mailbox, and has told the words to somebody."""

    def __init__(self, password: bytes, peer: PeerId, payload: bytes, rng: Random) -> None:
        """`peer`: this side. Raises `ValueError` for a payload of more than `MAX_PAYLOAD` bytes."""
        self._payload = _checked(payload)
        self._peer = peer
        self._spake = SPAKE2_A(password, entropy_f=lambda count: random_bytes(rng, count))
        self.greeting: bytes = self._spake.start()
        """For the mailbox."""

    def settle(self, number: int, claimant: PeerId, answer: bytes) -> Settled:
        """Take the answer of the peer that has claimed the mailbox of this number, as the server says.

        Raises `WrongCodeError` if that peer does not know the words, or the server lies.
        """
        keys = _keys(self._spake, answer[:_GREETING], number, self._peer, claimant)
        payload = _open(keys.answer, answer[_GREETING:])
        return Settled(_seal(keys.reply, self._payload), payload)


class Claimant:
    """The side that was told the words."""

    def __init__(
        self, password: bytes, number: int, peer: PeerId, opener: PeerId, greeting: bytes, payload: bytes, rng: Random
    ) -> None:
        """`peer`: this side. `opener`, `greeting`: of the mailbox of this number, as the server says.

        Raises `WrongCodeError` for a greeting that is none, and `ValueError` for a payload of more than `MAX_PAYLOAD`
        bytes.
        """
        spake = SPAKE2_B(password, entropy_f=lambda count: random_bytes(rng, count))
        share: bytes = spake.start()
        keys = _keys(spake, greeting, number, opener, peer)
        self._key = keys.reply
        self.answer = share + _seal(keys.answer, _checked(payload))
        """For the opener."""

    def finish(self, reply: bytes) -> bytes:
        """Take the opener's reply; returns its payload. Raises `WrongCodeError` if the opener does not know the words,
        or the server lies.
        """
        return _open(self._key, reply)


class _Keys(NamedTuple):
    answer: bytes
    reply: bytes


def _keys(spake: SPAKE2_A | SPAKE2_B, share: bytes, number: int, opener: PeerId, claimant: PeerId) -> _Keys:
    """The keys that both sides have, if they know the same words and mean the same peers. They follow from both shares
    as well: SPAKE2's own key does.
    """
    if len(share) != _GREETING:
        raise WrongCodeError
    try:
        secret = spake.finish(share)
    except (SPAKEError, NotOnCurve, ValueError):
        raise WrongCodeError from None
    info = _CONTEXT + number.to_bytes(4, "big") + opener.key + claimant.key
    material = HKDF(SHA256(), 64, salt=None, info=info).derive(secret)
    return _Keys(material[:32], material[32:])


def _checked(payload: bytes) -> bytes:
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"a payload has {MAX_PAYLOAD} bytes at most")
    return payload


def _seal(key: bytes, payload: bytes) -> bytes:
    return ChaCha20Poly1305(key).encrypt(_NONCE, payload, None)


def _open(key: bytes, sealed: bytes) -> bytes:
    # A longer one would be of somebody who does not keep to the limit, and a shorter one is no AEAD's.
    if not _TAG <= len(sealed) <= _TAG + MAX_PAYLOAD:
        raise WrongCodeError
    try:
        return ChaCha20Poly1305(key).decrypt(_NONCE, sealed, None)
    except InvalidTag:
        raise WrongCodeError from None
