"""The codec on every attribute, and on noise."""

import contextlib
import hmac
import ipaddress
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quice.stun import attributes as a
from quice.stun.attributes import ATTRIBUTES, Attribute, StunDecodeError
from quice.stun.message import Kind, Message, Method, is_stun
from quice.stun.values import Bytes, Flag, Number, Text
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
    a.EvenPort: st.builds(a.EvenPort, st.booleans()),
    a.AddressErrorCode: st.builds(a.AddressErrorCode, st.integers(0, 255), st.integers(300, 699), st.text(max_size=40)),
    a.Userhash: st.builds(a.Userhash, st.binary(min_size=32, max_size=32)),
    a.ReservationToken: st.builds(a.ReservationToken, st.binary(min_size=8, max_size=8)),
    a.PasswordAlgorithmChoice: st.builds(a.PasswordAlgorithmChoice, st.integers(0, 65535), st.binary(max_size=9)),
}
BITS = {"!I": 32, "!Q": 64, "!Hxx": 16, "!Bxxx": 8}
# These are not attributes to the caller: encoding adds them, decoding checks them.
CHECKS = (a.Fingerprint, a.MessageIntegrity, a.MessageIntegritySha256)


def values_of(kind: type[Attribute]) -> st.SearchStrategy[Attribute]:
    if kind in VALUES:
        return VALUES[kind]
    if issubclass(kind, Number):
        return st.builds(kind, st.integers(0, 2 ** BITS[kind.FORMAT] - 1))
    if issubclass(kind, Text):
        return st.builds(kind, st.text(max_size=40))
    if issubclass(kind, Bytes):
        return st.builds(kind, st.binary(max_size=40))
    if issubclass(kind, Flag):
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
@given(data=st.data())
def test_every_attribute_keeps_its_value(kind: type[Attribute], data: st.DataObject) -> None:
    attribute = data.draw(values_of(kind))
    identifier = data.draw(st.binary(min_size=12, max_size=12))
    assert kind.decode(attribute.encode(identifier), identifier) == attribute


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(value=st.binary(max_size=40))
def test_a_value_is_refused_or_can_be_sent_on(kind: type[Attribute], value: bytes) -> None:
    try:
        attribute = kind.decode(value, bytes(12))
    except StunDecodeError:
        return
    again = kind.decode(attribute.encode(bytes(12)), bytes(12))
    assert again == attribute


def test_noise_and_mutations_raise_nothing_but_decode_errors() -> None:
    rng = random.Random(5769)
    samples = [value for name, value in vars(vectors).items() if name.startswith(("RFC5769", "RFC8489"))]
    # Behind a FINGERPRINT few mutations get as far as an attribute's own decoder.
    samples += [
        Message(Method.BINDING, Kind.REQUEST, bytes(12), message.attributes).encode(fingerprint=False)
        for message in map(Message.decode, samples)
    ]
    decoded = 0
    for _ in range(100_000):
        data = bytearray(rng.choice(samples))
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        cut = rng.random()
        if cut < 0.2:
            del data[rng.randrange(len(data)) & ~3 :]
        if cut < 0.15 and len(data) >= 20:
            data[2:4] = (len(data) - 20).to_bytes(2, "big")
        try:
            Message.decode(bytes(data))
            decoded += 1
        except StunDecodeError:
            pass
    for length in range(2_000):
        header = b"\0\x01" + (length & ~3).to_bytes(2, "big") + bytes.fromhex("2112a442") + bytes(12)
        with contextlib.suppress(StunDecodeError):
            Message.decode(header + rng.randbytes(length & ~3))
    assert decoded > 10_000


def test_a_message_can_be_read_from_a_memoryview() -> None:
    message = Message.decode(memoryview(vectors.RFC5769_REQUEST))
    assert message == Message.decode(vectors.RFC5769_REQUEST)
    assert hash(message) == hash(Message.decode(vectors.RFC5769_REQUEST))


@pytest.mark.parametrize(
    "attribute",
    [
        a.Realm("x" * 764),
        a.AlternateDomain("x" * 256),
        a.Nonce(bytes(764)),
        a.Userhash(bytes(31)),
        a.ReservationToken(bytes(9)),
        a.ErrorCode(299),
        a.ErrorCode(700),
        a.ErrorCode(400, "x" * 764),
        a.AddressErrorCode(256, 440),
        a.Priority(1 << 32),
        a.ChannelNumber(-1),
        a.XorMappedAddress(Address("192.0.2.1", 65536)),
        a.XorMappedAddress(Address("example.org", 1)),
        a.Data(bytes(65530)),
    ],
    ids=lambda attribute: type(attribute).__name__,
)
def test_a_value_that_does_not_fit_is_a_value_error(attribute: Attribute) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  each in its own words
        Message(Method.BINDING, Kind.REQUEST, bytes(12), (attribute,)).encode()


@pytest.mark.parametrize(
    ("number", "value"),
    [
        (a.Realm.TYPE, b"x" * 764),
        (a.Nonce.TYPE, bytes(764)),
        (a.AlternateDomain.TYPE, b"x" * 256),
        (a.ErrorCode.TYPE, bytes((0, 0, 4, 0)) + b"x" * 764),
        (a.PasswordAlgorithms.TYPE, bytes((0, 2, 0, 0)) * 65),
        (a.Username.TYPE, b"\xff"),
        (a.XorMappedAddress.TYPE, bytes((0, 3, 0, 0, 0, 0, 0, 0))),
        (a.XorMappedAddress.TYPE, bytes((0, 2, 0, 0, 0, 0, 0, 0))),
    ],
)
def test_a_value_beyond_its_limits_is_a_decode_error(number: int, value: bytes) -> None:
    with pytest.raises(StunDecodeError):
        Message.decode(raw(number, value))


def test_the_longest_message_can_be_read_and_written() -> None:
    data = raw(a.Data.TYPE, bytes(0xFFFC - 4))
    message = Message.decode(data)
    assert message.encode(fingerprint=False) == data
    for key, fingerprint in ((None, True), (b"key", False)):
        with pytest.raises(ValueError, match="too many"):
            message.encode(key, fingerprint=fingerprint)


def test_rfc8489_14_14_software_in_another_encoding_hides_nothing() -> None:
    data = raw(a.Software.TYPE, b"Serveur \xe9tendu")
    assert Message.decode(data).attributes == (a.Software("Serveur tendu"),)


def test_rfc8489_14_padding_may_be_anything() -> None:
    data = bytearray(raw(a.Username.TYPE, b"a"))
    data[-3:] = b"xyz"
    assert Message.decode(bytes(data)).attributes == (a.Username("a"),)


def raw(number: int, value: bytes) -> bytes:
    """A Binding request with one attribute."""
    attribute = number.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value + bytes(-len(value) % 4)
    return b"\0\x01" + len(attribute).to_bytes(2, "big") + bytes.fromhex("2112a442") + bytes(12) + attribute


@pytest.mark.parametrize("length", [16, 20, 28])
def test_rfc8489_14_6_a_truncated_integrity_is_well_formed_but_proves_nothing(length: int) -> None:
    full = Message(Method.BINDING, Kind.REQUEST, bytes(12)).encode(b"key", sha256=True, fingerprint=False)
    header = full[:2] + (4 + length).to_bytes(2, "big") + full[4:20]
    value = hmac.digest(b"key", header, "sha256")[:length]
    message = Message.decode(header + bytes((0, 0x1C, 0, length)) + value)
    assert message.has_sha256
    assert not message.verify(b"key")


def test_rfc8489_9_1_3_sha256_decides_where_both_integrities_are_there() -> None:
    first = Message(Method.BINDING, Kind.REQUEST, bytes(12)).encode(b"other", fingerprint=False)
    covered = first[:2] + (len(first) - 20 + 36).to_bytes(2, "big") + first[4:]
    both = Message.decode(covered + bytes((0, 0x1C, 0, 32)) + hmac.digest(b"key", covered, "sha256"))
    assert both.verify(b"key")
    assert not both.verify(b"other")


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
