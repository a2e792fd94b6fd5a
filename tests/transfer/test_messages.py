"""Messages of the transfer protocol, and what is none."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quice.errors import TransferProtocolError
from quice.transfer.messages import (
    Done,
    Entry,
    EntryKind,
    Fetch,
    FileHeader,
    Manifest,
    Message,
    Want,
    Wants,
    frame,
    parse,
)

EVERY_MESSAGE: list[Message] = [
    Fetch(secret=b"s" * 16),
    Manifest(entries=[Entry(EntryKind.FOLDER, "d"), Entry(EntryKind.FILE, "d/f", 1 << 40, True)]),
    Wants(wants=[Want(1), Want(2, 1 << 40, bytes(32))]),
    FileHeader(index=1, offset=1 << 40),
    Done(),
]


@pytest.mark.parametrize("message", EVERY_MESSAGE, ids=lambda message: type(message).__name__)
def test_every_message_is_read_as_it_was_written(message: Message) -> None:
    data = frame(message)
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    assert parse(data[4:]) == message


@given(st.binary(max_size=200))
def test_bytes_that_are_no_message_raise_one_error_of_ours(data: bytes) -> None:
    with contextlib.suppress(TransferProtocolError):
        parse(data)


@given(st.sampled_from(EVERY_MESSAGE), st.data())
def test_a_mutated_message_is_another_or_an_error_of_ours(message: Message, data: st.DataObject) -> None:
    raw = bytearray(frame(message)[4:])
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        parsed = parse(bytes(raw))
    except TransferProtocolError:
        return
    assert isinstance(parsed, Fetch | Manifest | Wants | FileHeader | Done)


@pytest.mark.parametrize(
    "value",
    [
        {"type": "unknown"},
        {"type": "manifest"},
        {"type": "manifest", "entries": [["file", 5]]},
        {"type": "manifest", "entries": [["device", "a"]]},
        {"type": "file", "index": "1", "offset": 0},
        ["fetch"],
        None,
    ],
    ids=repr,
)
def test_a_message_of_the_wrong_shape_is_refused(value: object) -> None:
    with pytest.raises(TransferProtocolError):
        parse(msgspec.msgpack.encode(value))


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(TransferProtocolError):
        parse(b"\x81\xa1x" + b"\x91" * 100_000)
