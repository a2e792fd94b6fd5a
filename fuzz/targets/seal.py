"""What is sealed from peer to peer, and the ids of the peers."""

from __future__ import annotations

import random

from fuzz.target import parser, require
from quice.errors import InvalidPeerIdError
from quice.identity import Identity, PeerId
from quice.signal.seal import Seal

_ALICE, _BOB = Identity(b"a" * 32), Identity(b"b" * 32)
_SESSION = bytes(16)
_TEXTS = (b"", b"text", bytes(300))
_SEALED = tuple(Seal(_ALICE, _BOB.peer, _SESSION, random.Random(1)).seal(text) for text in _TEXTS)
_AT_BOB = Seal(_BOB, _ALICE.peer, _SESSION, random.Random(2))


def _check_opened(text: bytes | None, data: bytes) -> None:
    require((text is None) == (data not in _SEALED), "something opens that was not sealed, or the other way round")


def _agree(key: bytes) -> bytes:
    """What both of two peers would have to know, one of whom has this key."""
    return _ALICE.agreement_key.exchange(PeerId(key).agreement_key())


TARGETS = (
    parser("sealed-body", _SEALED, _AT_BOB.open, (), _check_opened),
    parser("peer-key", (_ALICE.peer.key, bytes(32), b"\xff" * 32), _agree, InvalidPeerIdError),
)
