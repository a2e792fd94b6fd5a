"""Our half of HPKE against the vectors of RFC 9180, and against the library's other half."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from quice.signal import hpke
from tests import vectors

INFO = b"Ode on a Grecian Urn"
EPHEMERAL = X25519PrivateKey.from_private_bytes(vectors.RFC9180_EPHEMERAL)
RECEIVER = X25519PrivateKey.from_private_bytes(vectors.RFC9180_RECEIVER)


def test_key_and_nonce_are_those_of_rfc_9180_a_2() -> None:
    assert hpke.schedule(vectors.RFC9180_SHARED, INFO) == (vectors.RFC9180_KEY, vectors.RFC9180_NONCE)


def test_the_ephemeral_key_and_what_is_agreed_by_it_are_those_of_rfc_9180_a_2() -> None:
    data = hpke.encrypt(b"text", RECEIVER.public_key(), INFO, EPHEMERAL)
    assert data[:32] == vectors.RFC9180_ENCAPSULATED
    # The vectors' own texts have additional data, and ours have none.
    assert data[32:] == ChaCha20Poly1305(vectors.RFC9180_KEY).encrypt(vectors.RFC9180_NONCE, b"text", None)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=300), st.binary(max_size=100))
def test_the_library_decrypts_what_is_encrypted_here(text: bytes, info: bytes) -> None:
    data = hpke.encrypt(text, RECEIVER.public_key(), info, X25519PrivateKey.generate())
    assert len(data) == len(text) + hpke.OVERHEAD
    assert hpke.decrypt(data, RECEIVER, info) == text
    assert hpke.decrypt(data, RECEIVER, info + b"x") is None
    assert hpke.decrypt(data, X25519PrivateKey.generate(), info) is None


def test_no_byte_can_be_changed_left_out_or_added() -> None:
    data = hpke.encrypt(b"text", RECEIVER.public_key(), INFO, EPHEMERAL)
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1
        assert hpke.decrypt(bytes(changed), RECEIVER, INFO) is None
        assert hpke.decrypt(data[:place], RECEIVER, INFO) is None
    assert hpke.decrypt(data + b"\0", RECEIVER, INFO) is None


@pytest.mark.parametrize("point", [bytes(32), b"\x01" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"])
def test_a_point_of_low_order_gives_no_secret(point: bytes) -> None:
    with pytest.raises(ValueError, match="shared key"):
        hpke.encrypt(b"text", X25519PublicKey.from_public_bytes(point), INFO, EPHEMERAL)
    assert hpke.decrypt(point + bytes(20), RECEIVER, INFO) is None
