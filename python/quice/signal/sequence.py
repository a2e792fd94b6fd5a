"""The messages of a session once and in order, over a server that loses some: connections to it die, and it is
restarted.

Messages have numbers, from 1. What was sent is kept, and sent again and again, until the peer says that it has it;
what comes twice is dropped, and what comes early waits. An acknowledgement rides on the next message, or goes alone
when there is none soon.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import msgspec

_SOON = 0.1
"""Seconds that an acknowledgement waits for a message to ride on."""
_REPEAT = (1.0, 4.0)
"""Seconds until a message is sent again, at first and, doubled each time, at most."""
_GIVE_UP = 20.0
"""Seconds without an acknowledgement after which the peer is taken to be gone."""
_AHEAD = 128
"""Messages that may come before the one that is waited for."""
MAX_UNACKNOWLEDGED = 512

_Number = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """What goes to the peer.

    number: of the message; 0 if there is none. received: up to which number the peer's own have come.
    """

    number: _Number
    received: _Number
    message: bytes = b""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Envelope)


class MessageSequence:
    """One side of a session. Times are seconds on the caller's clock."""

    def __init__(self) -> None:
        self._sent = 0
        self._unacknowledged: dict[int, bytes] = {}
        self._received = 0
        self._early: dict[int, bytes] = {}
        self._due: dict[int, None] = {}
        """The numbers of messages to send now; 0 for an acknowledgement alone."""
        self._acknowledge_at: float | None = None
        self._repeat_at: float | None = None
        self._interval = _REPEAT[0]
        self._progress_at = 0.0
        """When the peer last acknowledged something, or there was nothing to acknowledge."""
        self.is_heard = False
        """Whether the peer has said anything."""
        self.is_given_up = False

    @property
    def is_full(self) -> bool:
        """Whether so much is unacknowledged that no more may be sent."""
        return len(self._unacknowledged) >= MAX_UNACKNOWLEDGED

    def send(self, message: bytes, now: float) -> None:
        """Send a message, and see to it that it arrives."""
        if not self._unacknowledged:
            self._progress_at = now
            self._interval = _REPEAT[0]
            self._repeat_at = now + self._interval
        self._sent += 1
        self._unacknowledged[self._sent] = message
        self._due[self._sent] = None

    def receive(self, body: bytes, now: float) -> list[bytes]:
        """Take in what came from the peer; returns the messages that are next in order. Wrong bytes are ignored."""
        try:
            envelope = _decoder.decode(body)
        except (msgspec.MsgspecError, RecursionError):
            return []
        self.is_heard = True
        self._take_acknowledgement(envelope.received, now)
        number = envelope.number
        if not number:
            return []
        if self._received < number <= self._received + _AHEAD:
            self._early.setdefault(number, envelope.message)
        # Even of what has come before: the last acknowledgement may be lost.
        if self._acknowledge_at is None:
            self._acknowledge_at = now + _SOON
        return list(self._in_order())

    def repeat(self) -> None:
        """Send all again that is not acknowledged: what was sent until now may be lost."""
        self._due |= dict.fromkeys(self._unacknowledged)

    def timeout(self) -> float | None:
        """When it next wants `handle_timeout`."""
        return min((when for when in (self._acknowledge_at, self._repeat_at) if when is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        """Do what is due by now."""
        if self._acknowledge_at is not None and self._acknowledge_at <= now:
            self._due[0] = None
        if self._repeat_at is not None and self._repeat_at <= now:
            if now - self._progress_at >= _GIVE_UP:
                self.stop()
                return
            self._interval = min(2 * self._interval, _REPEAT[1])
            self._repeat_at = now + self._interval
            self.repeat()

    def stop(self) -> None:
        """Give the peer up: nothing is sent any more."""
        self.is_given_up = True
        self._unacknowledged.clear()
        self._due.clear()
        self._acknowledge_at = self._repeat_at = None

    def transmits(self) -> Iterator[bytes]:
        """What is to go to the peer now."""
        due, self._due = self._due, {}
        messages = [number for number in due if number in self._unacknowledged]
        for number in messages or ([0] if 0 in due else []):
            self._acknowledge_at = None
            yield _encoder.encode(Envelope(number, self._received, self._unacknowledged.get(number, b"")))

    def _take_acknowledgement(self, received: int, now: float) -> None:
        acknowledged = [number for number in self._unacknowledged if number <= received]
        for number in acknowledged:
            del self._unacknowledged[number]
        if acknowledged:
            self._progress_at = now
            self._interval = _REPEAT[0]
            self._repeat_at = now + self._interval if self._unacknowledged else None

    def _in_order(self) -> Iterator[bytes]:
        while (message := self._early.pop(self._received + 1, None)) is not None:
            self._received += 1
            yield message
