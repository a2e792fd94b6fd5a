"""Keys and nonces of RFC 8489 §9."""

import pytest

from quice.stun.auth import SecurityFeature, long_term_key, nonce_cookie, opaque_string, security_features

BOTH = SecurityFeature.PASSWORD_ALGORITHMS | SecurityFeature.USERNAME_ANONYMITY


def test_rfc8489_9_2_2_the_example_of_a_key() -> None:
    assert long_term_key("user", "realm", "pass").hex() == "8493fbc53ba582fb4c044c456bdc40eb"


def test_rfc8489_9_2_2_quotes_and_trailing_zeros_do_not_enter_the_key() -> None:
    assert long_term_key('"user"', '"realm"\0', "pass\0\0") == long_term_key("user", "realm", "pass")


def test_rfc8265_4_2_spaces_become_one_kind_and_letters_are_composed() -> None:
    assert opaque_string("a\u00a0\u3000b") == b"a  b"
    assert opaque_string("e\u0301") == "\u00e9".encode()
    assert opaque_string("\u2168Aa") == "\u2168Aa".encode()


@pytest.mark.parametrize("text", ["", "\0", "a\x7f", "\u0085", "\ud800"])
def test_rfc8265_4_2_nothing_and_control_characters_are_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  in its own words, or those of the encoding
        opaque_string(text)


@pytest.mark.parametrize(
    ("features", "cookie"),
    [
        (SecurityFeature(0), b"obMatJos2AAAA"),
        (SecurityFeature.PASSWORD_ALGORITHMS, b"obMatJos2AAAB"),
        (SecurityFeature.USERNAME_ANONYMITY, b"obMatJos2AAAC"),
        (BOTH, b"obMatJos2AAAD"),
    ],
)
def test_rfc8489_18_1_erratum_6290_counts_features_from_the_right(features: SecurityFeature, cookie: bytes) -> None:
    assert nonce_cookie(features) == cookie
    assert security_features(cookie + b"random") is features


def test_rfc8489_18_1_unassigned_features_are_ignored() -> None:
    assert security_features(b"obMatJos2////") is BOTH
    assert security_features(b"obMatJos2///8") is SecurityFeature(0)


@pytest.mark.parametrize(
    "nonce", [b"", b"obMatJos2", b"obMatJos2AAA", b"obMatJos2A=A=", b"ObMatJos2AAAB", b"obMatJos2\xff\xff\xff\xff"]
)
def test_a_nonce_without_a_whole_cookie_has_no_features(nonce: bytes) -> None:
    assert security_features(nonce) is SecurityFeature(0)
