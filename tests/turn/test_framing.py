"""Messages on a stream (RFC 8656 §12.5)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quice.stun.attributes import Data
from quice.stun.message import Kind, Message, Method
from quice.turn import FramingError, Splitter, framed
from quice.turn.channel import encode_channel_data

STUN = st.binary(max_size=40).map(
    lambda data: Message(Method.DATA, Kind.INDICATION, b"123456789012", (Data(data),)).encode()
)
CHANNEL_DATA = st.builds(encode_channel_data, st.integers(0x4000, 0x4FFF), st.binary(max_size=40))


@given(st.lists(STUN | CHANNEL_DATA, max_size=20), st.data())
def test_what_is_framed_comes_out_again_however_the_stream_is_cut(messages: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(framed(message) for message in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    splitter = Splitter()
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += splitter.feed(stream[start:end])
    assert found == messages


def test_byte_by_byte_each_message_comes_with_its_last() -> None:
    message = framed(encode_channel_data(0x4000, b"12345"))
    splitter = Splitter()
    for octet in message[:-1]:
        assert not list(splitter.feed(bytes((octet,))))
    assert list(splitter.feed(message[-1:])) == [message[:9]]


@pytest.mark.parametrize("length", range(5))
def test_rfc8656_12_5_channel_data_is_padded_to_four_bytes_and_only_once(length: int) -> None:
    message = framed(encode_channel_data(0x4000, bytes(length)))
    assert len(message) % 4 == 0
    assert framed(message) == message


@pytest.mark.parametrize(
    "stream",
    [
        b"\x80\x00\x00\x00",
        b"\x50\x00\x00\x00",
        b"<html>",
        b"\x00\x01\x00\x03\x21\x12\xa4\x42",
        b"\x00\x01\x00\x00\x21\x13",
        b"\x16\x03\x01\x02\x00",
    ],
)
def test_what_is_neither_ends_the_stream_as_soon_as_it_shows(stream: bytes) -> None:
    splitter = Splitter()
    good = framed(encode_channel_data(0x4000, b"before"))
    found = []
    with pytest.raises(FramingError):
        for message in splitter.feed(good + stream):
            found.append(message)  # noqa: PERF402
    assert found == [good[:10]]


def test_no_more_than_one_message_is_held() -> None:
    splitter = Splitter()
    for _ in range(100):
        for message in splitter.feed(framed(encode_channel_data(0x4000, bytes(65535)))[:-1]):
            assert len(message) == 65539
        assert len(list(splitter.feed(b"\0"))) == 1
    assert not splitter._buffer


def test_what_was_fed_is_kept_while_nobody_asks() -> None:
    splitter = Splitter()
    splitter.feed(framed(encode_channel_data(0x4000, b"1234")))
    splitter.feed(framed(encode_channel_data(0x4001, b"5678")))
    assert len(list(splitter.feed(b""))) == 2
