"""Credentials made from a secret that is shared with the server."""

import pytest

from quice.stun.auth import LongTerm
from quice.turn import time_limited
from quice.turn.credentials import expiry


def test_time_limited_credentials_are_those_of_the_rest_draft() -> None:
    # openssl: printf 1433895918:ninefingers | openssl dgst -sha1 -hmac north -binary | base64
    credentials = time_limited("north", 1433895918.7, "ninefingers")
    assert credentials == LongTerm("1433895918:ninefingers", SIGNED)


SIGNED = "jy8hTxmOO7UtEKXqSkSlvakPVYA="


def test_a_name_is_not_needed() -> None:
    assert time_limited("north", 1433895918).username == "1433895918"


@pytest.mark.parametrize(
    ("username", "expected"),
    [("1433895918:ninefingers", 1433895918.0), ("1433895918", 1433895918.0), ("alice", None), ("²:x", None)],
)
def test_the_end_of_credentials_is_in_the_user_name(username: str, expected: float | None) -> None:
    assert expiry(LongTerm(username, "x")) == expected
