"""STUN messages and ChannelData on a byte stream (RFC 8656 §12.5, RFC 8489 §6.2.2)."""

from __future__ import annotations

from collections.abc import Iterator

from quice.stun.message import HEADER_LENGTH as STUN_HEADER
from quice.stun.values import MAGIC_COOKIE
from quice.turn.channel import HEADER_LENGTH as CHANNEL_HEADER
from quice.turn.channel import is_channel_data

_COOKIE = MAGIC_COOKIE.to_bytes(4, "big")


class FramingError(ValueError):
    """A stream does not carry STUN and ChannelData, or is no more in step. It can't be read any further."""


def framed(message: bytes) -> bytes:
    """A message as it is written to a stream: ChannelData padded to a multiple of four bytes, STUN as it is."""
    return message + bytes(-len(message) % 4) if is_channel_data(message) else message


class Splitter:
    """Cuts a stream into messages. It holds no more of it than one message, of 64 KiB at most."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._position = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take in what has come; returns the messages that are whole, ChannelData without padding.

        They end in a `FramingError` where something else begins.
        """
        self._buffer += data
        return self._messages()

    def _messages(self) -> Iterator[bytes]:
        while (lengths := self._next()) is not None:
            length, padded = lengths
            if len(self._buffer) - self._position < padded:
                break
            message = bytes(memoryview(self._buffer)[self._position : self._position + length])
            self._position += padded
            yield message
        # Once for all messages: to cut each off by itself would move the rest each time.
        del self._buffer[: self._position]
        self._position = 0

    def _next(self) -> tuple[int, int] | None:
        """The length of the message that begins here, without and with padding; None if that is yet to come."""
        start = self._position
        have = len(self._buffer) - start
        if have < CHANNEL_HEADER:
            return None
        value = int.from_bytes(self._buffer[start + 2 : start + 4], "big")
        if is_channel_data(self._buffer[start : start + 1]):
            return CHANNEL_HEADER + value, CHANNEL_HEADER + (value + 3 & ~3)
        cookie = self._buffer[start + 4 : start + 8]
        if self._buffer[start] > 3 or value % 4 or not _COOKIE.startswith(cookie):
            raise FramingError("neither a STUN message nor ChannelData")
        return STUN_HEADER + value, STUN_HEADER + value
