"""The first packet's destination connection id, by which a handshake says what it belongs to."""

from __future__ import annotations

import pytest

from quice import _native
from quice._native import Event
from tests.engine.pair import ALPN, SERVER_SEED, Pair, public_key


def connect(pair: Pair, initial_id: bytes | None) -> _native.Connection:
    return pair.client.engine.connect(pair.server.address, [ALPN], peer=public_key(SERVER_SEED), initial_id=initial_id)


def test_the_server_is_told_what_the_client_chose() -> None:
    pair = Pair()
    connect(pair, b"session 7, attempt")
    pair.drive(lambda: bool(pair.server.seen(Event.Connected)))
    assert pair.server.seen(Event.Connected)[0].initial_id == b"session 7, attempt"
    assert pair.client.seen(Event.Connected)[0].initial_id is None


def test_it_is_told_after_a_retry_too() -> None:
    pair = Pair()
    ids = [b"attempt %03d" % number for number in range(260)]
    for each in ids:
        connect(pair, each)
    pair.drive(lambda: len(pair.server.seen(Event.Connected)) == len(ids))
    assert sorted(event.initial_id or b"" for event in pair.server.seen(Event.Connected)) == ids


def test_without_a_choice_it_is_random() -> None:
    pair = Pair()
    for _ in range(2):
        connect(pair, None)
    pair.drive(lambda: len(pair.server.seen(Event.Connected)) == 2)
    one, two = (event.initial_id for event in pair.server.seen(Event.Connected))
    assert one is not None
    assert two is not None
    assert one != two


@pytest.mark.parametrize("length", [0, 7, 21])
def test_rfc9000_7_2_other_lengths_are_refused(length: int) -> None:
    with pytest.raises(ValueError, match="8 to 20"):
        connect(Pair(), bytes(length))
