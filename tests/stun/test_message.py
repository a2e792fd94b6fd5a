"""The codec on every attribute, and on noise."""

import ipaddress
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quice.stun import attributes as a
from quice.stun.attributes import ATTRIBUTES, Attribute, StunDecodeError
from quice.stun.message import Kind, Message, Method, is_stun
from quice.wire import Address
from tests import vectors

ADDRESSES = st.builds(
    Address, st.ip_addresses().map(lambda ip: str(ipaddress.ip_address(ip.packed))), st.integers(0, 65535)
)
ALGORITHMS = st.lists(st.tuples(st.integers(0, 65535), st.binary(max_size=9)), max_size=3).map(tuple)
VALUES: dict[type[Attribute], st.SearchStrategy[Attribute]] = {
    a.ErrorCode: st.builds(a.ErrorCode, st.integers(300, 699), st.text(max_size=40)),
    a.UnknownAttributes: st.builds(a.UnknownAttributes, st.lists(st.integers(0, 65535), max_size=5).map(tuple)),
    a.ChangeRequest: st.builds(a.ChangeRequest, st.booleans(), st.booleans()),
    a.PasswordAlgorithms: st.builds(a.PasswordAlgorithms, ALGORITHMS),
    a.PasswordAlgorithmChoice: st.builds(a.PasswordAlgorithmChoice, st.integers(0, 65535), st.binary(max_size=9)),
}
BITS = {"!I": 32, "!Q": 64, "!Hxx": 16, "!Bxxx": 8}
# These are not attributes to the caller: encoding adds them, decoding checks them.
CHECKS = (a.Fingerprint, a.MessageIntegrity, a.MessageIntegritySha256)


def values_of(kind: type[Attribute]) -> st.SearchStrategy[Attribute]:
    if kind in VALUES:
        return VALUES[kind]
    if issubclass(kind, a.Number):
        return st.builds(kind, st.integers(0, 2 ** BITS[kind.FORMAT] - 1))
    if issubclass(kind, a.Text):
        return st.builds(kind, st.text(max_size=40))
    if issubclass(kind, a.Bytes):
        return st.builds(kind, st.binary(max_size=40))
    if issubclass(kind, a.Flag):
        return st.just(kind())
    return st.builds(kind, ADDRESSES)


KINDS = [kind for kind in ATTRIBUTES.values() if kind not in CHECKS]
MESSAGES = st.builds(
    Message,
    st.sampled_from(Method),
    st.sampled_from(Kind),
    st.binary(min_size=12, max_size=12),
    st.lists(st.one_of([values_of(kind) for kind in KINDS]), max_size=6).map(tuple),
)


@given(MESSAGES, st.none() | st.binary(min_size=1), st.booleans(), st.booleans())
def test_what_is_encoded_is_decoded(message: Message, key: bytes | None, sha256: bool, fingerprint: bool) -> None:
    data = message.encode(key, sha256=sha256, fingerprint=fingerprint)
    assert is_stun(data)
    decoded = Message.decode(data)
    assert decoded == message
    assert decoded.has_fingerprint is fingerprint
    assert decoded.has_integrity is (key is not None)
    if key is not None:
        assert decoded.verify(key)
        assert not decoded.verify(key + b"x")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_cut_off_value_is_a_decode_error_or_another_value(kind: type[Attribute]) -> None:
    rng = random.Random(1)
    for length in range(24):
        try:
            kind.decode(rng.randbytes(length), bytes(12))
        except StunDecodeError:
            continue


def test_noise_and_mutations_raise_nothing_but_decode_errors() -> None:
    rng = random.Random(5769)
    samples = [value for name, value in vars(vectors).items() if name.startswith("RFC")]
    decoded = 0
    for _ in range(50_000):
        data = bytearray(rng.choice(samples))
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.2:
            data[2:4] = (len(data) - 20).to_bytes(2, "big")
        # Without a FINGERPRINT behind it, a mutated attribute gets as far as its own decoder.
        try:
            Message.decode(bytes(data[: rng.choice((len(data), len(data), rng.randrange(len(data))))]))
            decoded += 1
        except StunDecodeError:
            pass
    assert decoded > 1000


def test_rfc8489_14_5_what_follows_the_integrity_is_ignored() -> None:
    data = Message(Method.BINDING, Kind.REQUEST, bytes(12)).encode(b"key", fingerprint=False)
    forged = data + bytes.fromhex("00250000")
    forged = forged[:2] + (len(forged) - 20).to_bytes(2, "big") + forged[4:]
    message = Message.decode(forged)
    assert message.verify(b"key")
    assert message.attributes == ()


def test_rfc8489_14_7_a_wrong_fingerprint_is_no_stun_message() -> None:
    data = bytearray(Message(Method.BINDING, Kind.REQUEST, bytes(12)).encode())
    data[-1] ^= 1
    with pytest.raises(StunDecodeError):
        Message.decode(bytes(data))


def test_an_unknown_attribute_that_must_be_understood_is_named() -> None:
    data = Message(Method.BINDING, Kind.REQUEST, bytes(12)).encode(fingerprint=False)
    data = data[:2] + b"\0\x08" + data[4:] + bytes.fromhex("7ffe0000") + bytes.fromhex("fffe0000")
    assert Message.decode(data).unknown_required == (0x7FFE,)
