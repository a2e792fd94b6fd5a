"""Channels: numbers that stand for peers, so that data needs four bytes of header (RFC 8656 §12)."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from quice.wire import Address

# RFC 8656 §12: from 0x5000 on, numbers are reserved.
FIRST_CHANNEL = 0x4000
LAST_CHANNEL = 0x4FFF
HEADER_LENGTH = 4
_LIFETIME = 600.0
"""§12: seconds for which a binding lasts."""
_QUARANTINE = 300.0
"""§12: seconds after the end of a binding until its number may stand for another peer."""
REFRESH_INTERVAL = 240.0
"""Binding again renews the peer's permission too (§12.2), which lasts 300 s (§9): with this, one request keeps both."""
_MAX_DATA = 0xFFFF


def is_channel_data(data: bytes | bytearray | memoryview) -> bool:
    """Whether a datagram from a TURN server is ChannelData, by its first octet (RFC 9443 §3)."""
    return len(data) > 0 and 64 <= data[0] <= 79


def encode_channel_data(channel: int, data: bytes) -> bytes:
    """A ChannelData message, without padding (§12.4). Raises `ValueError` for more data than it can hold."""
    if len(data) > _MAX_DATA:
        raise ValueError(f"{len(data)} bytes are too many for a ChannelData message")
    return channel.to_bytes(2, "big") + len(data).to_bytes(2, "big") + data


def decode_channel_data(message: bytes) -> tuple[int, bytes] | None:
    """Channel and data of a ChannelData message, with or without padding; None if it is none (§12.6)."""
    if not is_channel_data(message) or len(message) < HEADER_LENGTH:
        return None
    end = HEADER_LENGTH + int.from_bytes(message[2:HEADER_LENGTH], "big")
    return (int.from_bytes(message[:2], "big"), message[HEADER_LENGTH:end]) if end <= len(message) else None


class ChannelState(enum.Enum):
    """How far a channel is."""

    WAITING = "waiting"
    """Not asked for yet: the server can't be asked before it has given a nonce."""
    BINDING = "binding"
    """Asked for. Data may follow at once: the server handles it behind the request."""
    BOUND = "bound"
    UNBOUND = "unbound"
    """Refused, or not kept up any more."""


@dataclass
class Channel:
    """A number and its peer, for as long as no other peer has it."""

    peer: Address
    number: int
    state: ChannelState = ChannelState.WAITING
    refresh_at: float | None = None
    asked_at: float | None = None
    """When the server was last asked to bind it: from then on it may be bound."""

    @property
    def carries_data(self) -> bool:
        """Whether what is sent to the peer goes through it."""
        return self.state in (ChannelState.BINDING, ChannelState.BOUND)

    def ask(self, now: float) -> None:
        """A request for it goes out."""
        self.asked_at, self.refresh_at = now, None
        if self.state is not ChannelState.BOUND:
            self.state = ChannelState.BINDING

    def confirm(self, now: float) -> bool:
        """The server has bound it; returns whether that is news."""
        if self.state is ChannelState.UNBOUND:
            return False
        news = self.state is not ChannelState.BOUND
        self.state, self.refresh_at = ChannelState.BOUND, now + REFRESH_INTERVAL
        return news

    def postpone(self) -> None:
        """It has to be asked for again, later."""
        if self.carries_data:
            self.state, self.refresh_at = ChannelState.WAITING, None

    def unbind(self) -> None:
        """Do not keep it up any more."""
        self.state, self.refresh_at = ChannelState.UNBOUND, None

    def is_free(self, now: float) -> bool:
        """Whether its number may stand for another peer."""
        ends = self.asked_at + _LIFETIME + _QUARANTINE if self.asked_at is not None else now
        return self.state is ChannelState.UNBOUND and ends <= now


class Channels:
    """The channels of one allocation."""

    def __init__(self) -> None:
        self._by_peer: dict[Address, Channel] = {}
        self._by_number: dict[int, Channel] = {}
        self._numbers = itertools.cycle(range(FIRST_CHANNEL, LAST_CHANNEL + 1))

    def __iter__(self) -> Iterator[Channel]:
        return iter(list(self._by_peer.values()))

    def of(self, peer: Address) -> Channel | None:
        """The peer's channel, if it was ever given one."""
        return self._by_peer.get(peer)

    def numbered(self, number: int) -> Channel | None:
        """The channel with this number."""
        return self._by_number.get(number)

    def reaches(self, host: str) -> bool:
        """Whether a channel to this IP address is kept up, and its permission with it."""
        return any(channel.peer.host == host and channel.carries_data for channel in self._by_peer.values())

    def open(self, peer: Address, now: float) -> Channel:
        """The peer's channel, waiting to be asked for unless it is bound or being bound.

        Raises `OverflowError` when all 4096 numbers stand for other peers.
        """
        channel = self._by_peer.get(peer)
        if channel is None:
            channel = Channel(peer, self._next_number(now))
            self._by_peer[peer] = self._by_number[channel.number] = channel
        elif channel.state is ChannelState.UNBOUND:
            channel.state = ChannelState.WAITING
        return channel

    def next_time(self) -> float | None:
        """When the next one is to be refreshed."""
        return min((c.refresh_at for c in self._by_peer.values() if c.refresh_at is not None), default=None)

    def due(self, now: float) -> list[Channel]:
        """Those to be refreshed now."""
        return [c for c in self._by_peer.values() if c.refresh_at is not None and c.refresh_at <= now]

    def waiting(self) -> list[Channel]:
        """Those to be asked for."""
        return [c for c in self._by_peer.values() if c.state is ChannelState.WAITING]

    def postpone(self) -> None:
        """All have to be asked for again, later: of another server."""
        for channel in self._by_peer.values():
            channel.postpone()

    def _next_number(self, now: float) -> int:
        for channel in self:
            if channel.is_free(now):
                del self._by_peer[channel.peer], self._by_number[channel.number]
        # One after the other, so that a number rests as long as there are others.
        for _ in range(FIRST_CHANNEL, LAST_CHANNEL + 1):
            number = next(self._numbers)
            if number not in self._by_number:
                return number
        raise OverflowError("no channel is left: all 4096 stand for peers, or did a quarter of an hour ago")
