"""What peers tell each other through a server, so that it can neither read nor change it, nor pass it off for what was
said to others, by others, or in another session.

Each text is signed by its sender, then sealed to its receiver: encrypted to the X25519 key that belongs to the
receiver's PeerId. Both cover who says it to whom, and in which session. In what order, and whether it was said before,
is a matter of the text: see `quice.signal.sequence`, whose numbers go inside.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from quice.identity import Identity, PeerId
from quice.signal import hpke
from quice.wire import Random, random_bytes

_CONTEXT = b"quice rendezvous message v1\0"
_SIGNATURE_LENGTH = 64
_EPHEMERAL_LENGTH = 32
OVERHEAD = hpke.OVERHEAD + _SIGNATURE_LENGTH
"""Bytes by which what is sealed is longer."""


class Seal:
    """What one session's two peers need, on the side of one of them."""

    def __init__(self, identity: Identity, peer: PeerId, session: bytes, rng: Random) -> None:
        """Raises `InvalidPeerIdError` for a peer whose id is no key that something can be sealed to."""
        self._identity = identity
        self._peer = peer
        self._key = peer.agreement_key()
        self._outward = _CONTEXT + identity.peer.key + peer.key + session
        self._inward = _CONTEXT + peer.key + identity.peer.key + session
        self._rng = rng

    def seal(self, text: bytes) -> bytes:
        """What only the peer opens, and knows to be from here, for it, and of this session."""
        ephemeral = X25519PrivateKey.from_private_bytes(random_bytes(self._rng, _EPHEMERAL_LENGTH))
        signature = self._identity.sign(self._outward + text)
        return hpke.encrypt(signature + text, self._key, self._outward, ephemeral)

    def open(self, sealed: bytes) -> bytes | None:
        """What the peer has sealed in this session; None if it did not seal this."""
        opened = hpke.decrypt(sealed, self._identity.agreement_key, self._inward)
        if opened is None or len(opened) < _SIGNATURE_LENGTH:
            return None
        signature, text = opened[:_SIGNATURE_LENGTH], opened[_SIGNATURE_LENGTH:]
        return text if self._peer.verify(signature, self._inward + text) else None
