"""The X25519 keys that go with identities: both sides agree, and what is no key is refused."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from quice.errors import InvalidPeerIdError
from quice.identity import Identity, PeerId

P = 2**255 - 19
SIGN = 1 << 255
# libsodium, test/default/ed25519_convert.c and .exp.
SODIUM_SEED = bytes.fromhex("421151a459faeade3d247115f94aedae42318124095afabe4d1451a559faedee")
SODIUM_PUBLIC = "f1814f0e8ff1043d8a44d25babff3cedcae6c22c3edaa48f857ae70de2baae50"
SODIUM_SECRET = "8052030376d47112be7f73ed7a019293dd12ad910b654455798b4667d73de166"
# The y-coordinates of the points of order 1, 2, 4 (0 has two), and 8.
ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
LOW_ORDER = (1, P - 1, 0, ORDER_8, P - ORDER_8)


def peer(y: int) -> PeerId:
    return PeerId(y.to_bytes(32, "little"))


def clamped(secret: X25519PrivateKey) -> bytes:
    """As other libraries keep it (RFC 7748 §5, decodeScalar25519)."""
    scalar = bytearray(secret.private_bytes_raw())
    scalar[0] &= 248
    scalar[31] = scalar[31] & 127 | 64
    return bytes(scalar)


def test_the_agreement_keys_are_those_of_libsodium() -> None:
    identity = Identity(SODIUM_SEED)
    assert identity.peer.agreement_key().public_bytes_raw().hex() == SODIUM_PUBLIC
    assert clamped(identity.agreement_key).hex() == SODIUM_SECRET


@settings(max_examples=50, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_both_sides_agree_on_a_secret(one: bytes, other: bytes) -> None:
    near, far = Identity(one), Identity(other)
    shared = near.agreement_key.exchange(far.peer.agreement_key())
    assert shared == far.agreement_key.exchange(near.peer.agreement_key())
    assert near.agreement_key.public_key() == near.peer.agreement_key()


@pytest.mark.parametrize("sign", [0, SIGN])
@pytest.mark.parametrize("y", LOW_ORDER)
def test_nothing_is_agreed_with_a_point_of_low_order(y: int, sign: int) -> None:
    with pytest.raises(InvalidPeerIdError):
        peer(y | sign).agreement_key()


@pytest.mark.parametrize("sign", [0, SIGN])
def test_nothing_is_agreed_with_a_form_that_is_not_canonical(sign: int) -> None:
    # RFC 8032 §5.1.3 takes y below p alone; 3 is the least that is a point of high order.
    assert peer(3 | sign).agreement_key() == peer(3).agreement_key()
    for y in range(19):
        with pytest.raises(InvalidPeerIdError):
            peer(P + y | sign).agreement_key()


def test_nothing_is_agreed_with_what_is_no_point_of_the_curve() -> None:
    # y² = 1 + x² + d x² y² has no solution for half of all y; these are hashes, so that each is of either sort.
    refused = 0
    for number in range(200):
        y = int.from_bytes(hashlib.sha256(bytes([number])).digest(), "little") % P
        try:
            peer(y).agreement_key()
        except InvalidPeerIdError:
            refused += 1
            assert not is_on_curve(y)
        else:
            assert is_on_curve(y)
    assert 70 < refused < 130


def is_on_curve(y: int) -> bool:
    """RFC 8032 §5.1.3, steps 2 and 3, written down as it stands there."""
    d = -121665 * pow(121666, -1, P) % P
    u, v = (y * y - 1) % P, (d * y * y + 1) % P
    x = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    return v * x * x % P in (u, -u % P)
