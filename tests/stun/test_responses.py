"""What a server answers."""

import pytest

from quice.stun import responses
from quice.stun.attributes import ErrorCode, Nonce, PasswordAlgorithms, Realm, UnknownAttributes, XorMappedAddress
from quice.stun.message import Kind, Message, Method
from quice.wire import Address

MAPPED = XorMappedAddress(Address("192.0.2.1", 1234))


def request(key: bytes | None = None, *, sha256: bool = False, fingerprint: bool = True) -> Message:
    message = Message(Method.ALLOCATE, Kind.REQUEST, b"123456789012")
    return Message.decode(message.encode(key, sha256=sha256, fingerprint=fingerprint))


@pytest.mark.parametrize("fingerprint", [False, True])
def test_rfc8489_7_a_response_has_a_fingerprint_if_its_request_has(fingerprint: bool) -> None:
    response = Message.decode(responses.success(request(fingerprint=fingerprint), MAPPED))
    assert response == Message(Method.ALLOCATE, Kind.SUCCESS, b"123456789012", (MAPPED,))
    assert response.has_fingerprint is fingerprint
    assert not response.has_integrity


@pytest.mark.parametrize("sha256", [False, True])
def test_rfc8489_9_1_3_a_response_is_signed_as_its_request_is(sha256: bool) -> None:
    response = Message.decode(responses.error(request(b"key", sha256=sha256), 403, key=b"key"))
    assert response.get(ErrorCode) == ErrorCode(403, "Forbidden")
    assert response.has_sha256 is sha256
    assert response.verify(b"key")


def test_rfc8489_6_3_1_unknown_attributes_are_named_up_to_a_limit() -> None:
    data = Message(Method.BINDING, Kind.REQUEST, bytes(12)).encode(fingerprint=False)
    unknown = b"".join(number.to_bytes(2, "big") + b"\0\0" for number in range(0x7000, 0x7000 + 300))
    asked = Message.decode(data[:2] + len(unknown).to_bytes(2, "big") + data[4:] + unknown)
    answer = responses.unknown_attributes(asked)
    response = Message.decode(answer)
    assert response.get(ErrorCode) == ErrorCode(420, "Unknown Attribute")
    assert response.get(UnknownAttributes) == UnknownAttributes(tuple(range(0x7000, 0x7010)))
    assert len(answer) < 100


def test_rfc8489_9_2_4_a_challenge_vouches_for_its_algorithms_in_the_nonce() -> None:
    response = Message.decode(responses.challenge(request(), 401, "example.org", b"one", ((2, b""),)))
    assert response.attributes == (
        ErrorCode(401, "Unauthenticated"),
        Realm("example.org"),
        Nonce(b"obMatJos2AAABone"),
        PasswordAlgorithms(((2, b""),)),
    )
