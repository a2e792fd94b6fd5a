"""Every vector of RFC 5769, and that of RFC 8489 appendix B."""

from quice.stun.attributes import (
    IceControlled,
    Nonce,
    PasswordAlgorithm,
    PasswordAlgorithmChoice,
    Priority,
    Realm,
    Software,
    Userhash,
    Username,
    XorMappedAddress,
)
from quice.stun.auth import SecurityFeature, long_term_key, security_features, short_term_key, userhash
from quice.stun.message import Kind, Message, Method
from quice.wire import Address
from tests import vectors

PASSWORD = "VOkJxbRl1RmTxUk/WvJxBt"
USER = "\u30de\u30c8\u30ea\u30c3\u30af\u30b9"
ID = bytes.fromhex("b7e7a701bc34d686fa87dfae")


def assert_same_but_padding(ours: bytes, theirs: bytes) -> None:
    """The RFC pads with spaces, we with zeros as RFC 8489 §14 wants: all else is the same up to the integrity."""
    end = len(theirs) - 24 - 8
    assert len(ours) == len(theirs)
    patched, position = bytearray(ours), 20
    while position < end:
        length = int.from_bytes(ours[position + 2 : position + 4], "big")
        value_end, position = position + 4 + length, position + 4 + (length + 3 & ~3)
        assert not any(ours[value_end:position])
        patched[value_end:position] = b" " * (position - value_end)
    assert patched[:end] == theirs[:end]
    assert Message.decode(ours).verify(short_term_key(PASSWORD))


def test_rfc5769_2_1_sample_request() -> None:
    message = Message.decode(vectors.RFC5769_REQUEST)
    assert (message.method, message.kind, message.transaction_id) == (Method.BINDING, Kind.REQUEST, ID)
    assert message.attributes == (
        Software("STUN test client"),
        Priority(0x6E0001FF),
        IceControlled(0x932FF9B151263B36),
        Username("evtj:h6vY"),
    )
    assert message.has_fingerprint
    assert message.verify(short_term_key(PASSWORD))
    assert not message.verify(short_term_key(PASSWORD + "x"))
    assert_same_but_padding(message.encode(short_term_key(PASSWORD)), vectors.RFC5769_REQUEST)


def test_rfc5769_2_2_sample_ipv4_response() -> None:
    message = Message.decode(vectors.RFC5769_IPV4_RESPONSE)
    assert message.kind is Kind.SUCCESS
    assert message.attributes == (Software("test vector"), XorMappedAddress(Address("192.0.2.1", 32853)))
    assert message.has_fingerprint
    assert message.verify(short_term_key(PASSWORD))
    assert_same_but_padding(message.encode(short_term_key(PASSWORD)), vectors.RFC5769_IPV4_RESPONSE)


def test_rfc5769_2_3_sample_ipv6_response() -> None:
    message = Message.decode(vectors.RFC5769_IPV6_RESPONSE)
    address = Address("2001:db8:1234:5678:11:2233:4455:6677", 32853)
    assert message.get(XorMappedAddress) == XorMappedAddress(address)
    assert message.has_fingerprint
    assert message.verify(short_term_key(PASSWORD))
    assert_same_but_padding(message.encode(short_term_key(PASSWORD)), vectors.RFC5769_IPV6_RESPONSE)


def test_rfc5769_2_4_sample_request_with_long_term_authentication() -> None:
    message = Message.decode(vectors.RFC5769_LONG_TERM_REQUEST)
    nonce = Nonce(b"f//499k954d6OL34oL9FSTvy64sA")
    assert message.attributes == (Username(USER), nonce, Realm("example.org"))
    key = long_term_key(USER, "example.org", "TheMatrIX")
    assert message.verify(key)
    assert message.encode(key, fingerprint=False) == vectors.RFC5769_LONG_TERM_REQUEST


def test_rfc8489_b_1_sample_request_with_sha256_and_userhash() -> None:
    message = Message.decode(vectors.RFC8489_SHA256_REQUEST)
    nonce = message.get(Nonce)
    assert nonce is not None
    # Erratum 6290: the request has USERHASH, so that its nonce must say that the server takes it.
    assert security_features(nonce.value) is SecurityFeature.USERNAME_ANONYMITY
    assert message.get(Userhash) == Userhash(userhash(USER, "example.org"))
    assert message.get(PasswordAlgorithmChoice) == PasswordAlgorithmChoice(PasswordAlgorithm.SHA256)
    key = long_term_key(USER, "example.org", "TheMatrIX", PasswordAlgorithm.SHA256)
    assert message.verify(key)
    assert message.encode(key, sha256=True, fingerprint=False) == vectors.RFC8489_SHA256_REQUEST
