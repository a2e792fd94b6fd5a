"""An exchange of codes that was written from docs/rendezvous.md alone, against quice's."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from quice.identity import Identity
from quice.signal.pairing import Claimant, Opener
from tests.signal.test_pairing import Always

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
PASSWORD, NUMBER = b"crossover-clockwork", 7
OPENER, CLAIMANT = (Identity(bytes([octet]) * 32).peer for octet in (1, 2))

Point = tuple[int, int]


def add(one: Point, other: Point) -> Point:
    """RFC 8032 §5.1.4, in affine coordinates."""
    (x1, y1), (x2, y2) = one, other
    product = D * x1 * x2 * y1 * y2
    return (x1 * y2 + x2 * y1) * pow(1 + product, -1, P) % P, (y1 * y2 + x1 * x2) * pow(1 - product, -1, P) % P


def times(scalar: int, point: Point) -> Point:
    result = (0, 1)
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point, scalar = add(point, point), scalar >> 1
    return result


def encoded(point: Point) -> bytes:
    """RFC 8032 §5.1.2."""
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def decoded(data: bytes) -> Point:
    """RFC 8032 §5.1.3."""
    value = int.from_bytes(data, "little")
    y = value % 2**255
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    assert x * x % P == square
    return (P - x if x & 1 != value >> 255 else x), y


B = decoded((4 * pow(5, -1, P) % P).to_bytes(32, "little"))
M = decoded(bytes.fromhex("15cfd18e385952982b6a8f8c7854963b58e34388c8e6dae891db756481a02312"))
N = decoded(bytes.fromhex("f04f2e7eb734b2a8f8b472eaf9c3c632576ac64aea650b496a8a20ff00e583c3"))
W = int.from_bytes(HKDF(SHA256(), 48, b"", b"SPAKE2 pw").derive(PASSWORD), "big") % L


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def keys(x_share: bytes, y_share: bytes, shared: Point) -> tuple[bytes, bytes]:
    secret = sha256(sha256(PASSWORD) + 2 * sha256(b"") + x_share + y_share + encoded(shared))
    info = b"quice code v1\0" + NUMBER.to_bytes(4, "big") + OPENER.key + CLAIMANT.key
    material = HKDF(SHA256(), 64, None, info).derive(secret)
    return material[:32], material[32:]


def without(share: bytes, blinding: Point) -> Point:
    """A share, less the words times a point."""
    return add(decoded(share), times(L - W, blinding))


def seal(key: bytes, payload: bytes) -> bytes:
    return ChaCha20Poly1305(key).encrypt(bytes(12), payload, None)


def unseal(key: bytes, sealed: bytes) -> bytes:
    return ChaCha20Poly1305(key).decrypt(bytes(12), sealed, None)


@pytest.mark.parametrize("secret", [1, 2**200 + 77, L - 1])
def test_another_implementation_of_the_claimant_meets_our_opener(secret: int) -> None:
    ours = Opener(PASSWORD, OPENER, b"of the opener", Always(1))
    assert ours.greeting[:1] == b"A"
    share = encoded(add(times(secret, B), times(W, N)))
    first, second = keys(ours.greeting[1:], share, times(secret, without(ours.greeting[1:], M)))
    reply, payload = ours.settle(NUMBER, CLAIMANT, b"B" + share + seal(first, b"of the claimant"))
    assert payload == b"of the claimant"
    assert unseal(second, reply) == b"of the opener"


@pytest.mark.parametrize("secret", [1, 2**200 + 77, L - 1])
def test_another_implementation_of_the_opener_meets_our_claimant(secret: int) -> None:
    share = encoded(add(times(secret, B), times(W, M)))
    ours = Claimant(PASSWORD, NUMBER, CLAIMANT, OPENER, b"A" + share, b"of the claimant", Always(2))
    side, answer = ours.answer[:1], ours.answer[1:]
    assert side == b"B"
    first, second = keys(share, answer[:32], times(secret, without(answer[:32], N)))
    assert unseal(first, answer[32:]) == b"of the claimant"
    assert ours.finish(seal(second, b"of the opener")) == b"of the opener"


def test_another_implementation_makes_the_bytes_of_the_vector() -> None:
    """That of tests/signal/test_pairing.py."""
    x, y = (int.from_bytes(bytes([octet]) * 64, "big") % L for octet in (1, 2))
    x_share, y_share = encoded(add(times(x, B), times(W, M))), encoded(add(times(y, B), times(W, N)))
    first, second = keys(x_share, y_share, times(x, without(y_share, N)))
    opener = Opener(PASSWORD, OPENER, b"of the opener", Always(1))
    claimant = Claimant(PASSWORD, NUMBER, CLAIMANT, OPENER, opener.greeting, b"of the claimant", Always(2))
    assert opener.greeting == b"A" + x_share
    assert claimant.answer == b"B" + y_share + seal(first, b"of the claimant")
    assert opener.settle(NUMBER, CLAIMANT, claimant.answer).reply == seal(second, b"of the opener")
