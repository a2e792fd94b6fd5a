"""URIs of servers (RFC 7064, RFC 7065)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quice.errors import Error, ServerUriError
from quice.turn.uri import ServerUri, Service, Transport

STUN, TURN = Service.STUN, Service.TURN
UDP, TCP, TLS = Transport.UDP, Transport.TCP, Transport.TLS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stun:example.org", ServerUri(STUN, "example.org", 3478, UDP)),
        ("stuns:example.org", ServerUri(STUN, "example.org", 5349, TLS)),
        ("stun:example.org:8000", ServerUri(STUN, "example.org", 8000, UDP)),
        ("turn:example.org", ServerUri(TURN, "example.org", 3478, UDP)),
        ("turns:example.org", ServerUri(TURN, "example.org", 5349, TLS)),
        ("turn:example.org:8000", ServerUri(TURN, "example.org", 8000, UDP)),
        ("turn:example.org?transport=udp", ServerUri(TURN, "example.org", 3478, UDP)),
        ("turn:example.org?transport=tcp", ServerUri(TURN, "example.org", 3478, TCP)),
        ("turns:example.org:443?transport=tcp", ServerUri(TURN, "example.org", 443, TLS)),
        ("turn:192.0.2.1", ServerUri(TURN, "192.0.2.1", 3478, UDP)),
        ("turn:[2001:db8::1]:8000?transport=tcp", ServerUri(TURN, "2001:db8::1", 8000, TCP)),
        ("TURN:Example.ORG?Transport=TCP", ServerUri(TURN, "example.org", 3478, TCP)),
    ],
)
def test_rfc7065_what_is_not_said_has_its_default(text: str, expected: ServerUri) -> None:
    assert ServerUri.parse(text) == expected
    assert ServerUri.parse(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "does not begin"),
        ("example.org", "does not begin"),
        ("turnss:example.org", "does not begin"),
        ("http://example.org", "does not begin"),
        ("turn:", "names no host"),
        ("turn::3478", "names no host"),
        ("turn://example.org", "no slashes"),
        ("turn:alice@example.org", "beside it"),
        ("turn:2001:db8::1", "a port is a number"),
        ("turn:[2001:db8::1", "in brackets"),
        ("turn:[192.0.2.1]", "no IPv6 address"),
        ("turn:[]", "no IPv6 address"),
        ("turn:exa mple.org", "no name or address"),
        ("turn:" + "a" * 254, "no name or address"),
        ("turn:example.org:", "a port is a number"),
        ("turn:example.org:0", "a port is a number"),
        ("turn:example.org:65536", "a port is a number"),
        ("turn:example.org:٣", "a port is a number"),
        ("stun:example.org?transport=tcp", "only with turn"),
        ("turn:example.org?secret=x", "nothing but"),
        ("turn:example.org?transport=sctp", "udp or tcp"),
        ("turns:example.org?transport=udp", "DTLS"),
    ],
)
def test_a_text_that_is_none_is_an_error_that_says_why(text: str, reason: str) -> None:
    with pytest.raises(ServerUriError, match=reason) as caught:
        ServerUri.parse(text)
    assert isinstance(caught.value, Error)
    assert "Write turn:HOST" in str(caught.value)


@given(st.text(max_size=40) | st.from_regex(r"turns?:.*", fullmatch=True))
def test_any_text_is_a_uri_or_an_error(text: str) -> None:
    try:
        uri = ServerUri.parse(text)
    except ServerUriError:
        return
    assert ServerUri.parse(str(uri)) == uri
