"""What travels in the simulated internet, and what becomes of it on the way."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple

from quice.wire import Address


class Protocol(enum.IntEnum):
    """The protocol above IP, by its number there."""

    TCP = 6
    UDP = 17


class Packet(NamedTuple):
    """An IP packet with a UDP datagram or a TCP segment.

    A host's own zones never leave it: a link-local address on the wire has none.
    """

    protocol: Protocol
    source: Address
    destination: Address
    data: bytes
    """A datagram's payload, or a TCP segment as the simulated TCP writes it."""
    number: int = 0
    """Which packet of its sender this is: translation and duplication do not change it."""
    sender: str = ""
    """The name of the host that it comes from, whatever its addresses say."""

    @property
    def size(self) -> int:
        """Bytes on the wire: headers of IP and of UDP or TCP, without options, and the data."""
        ip = 40 if ":" in self.destination.host else 20
        return len(self.data) + ip + (8 if self.protocol is Protocol.UDP else 20)

    def between(self, source: Address, destination: Address) -> Packet:
        """The same packet with other addresses, as a translator sends it on."""
        return Packet(self.protocol, source, destination, self.data, self.number, self.sender)


class Fate(str, enum.Enum):
    """What happened to a packet at some place."""

    SENT = "sent"
    FORWARDED = "forwarded"
    DUPLICATED = "duplicated"
    CORRUPTED = "corrupted"
    """Bits of it were flipped; it travels on."""
    DELIVERED = "delivered"
    LOST = "lost"
    """By the weather of a link."""
    CHECKSUM = "checksum"
    """Corrupted on the way, which TCP's checksum found out."""
    CUT = "cut"
    """The link is down."""
    TOO_BIG = "too_big"
    QUEUE_FULL = "queue_full"
    FILTERED = "filtered"
    """A NAT or a firewall did not let it pass."""
    SPOOFED = "spoofed"
    """Its source is none of the network that it left (RFC 2827)."""
    NO_ROUTE = "no_route"
    ASLEEP = "asleep"
    NOT_LISTENING = "not_listening"
    """It answers nothing, and nobody is bound to where it went."""


class Passage(NamedTuple):
    """One packet at one place at one time."""

    time: float
    place: str
    """The name of a host, a router or a direction of a link."""
    fate: Fate
    packet: Packet

    def __str__(self) -> str:
        packet, fate = self.packet, self.fate.value.replace("_", " ")
        return (
            f"{self.time:.6f} {self.place}: {fate} {packet.protocol.name} #{packet.number} of {packet.sender}, "
            f"{packet.source} > {packet.destination}, {len(packet.data)} bytes"
        )


Report = Callable[[str, Fate, Packet], None]
"""Tells whoever watches that this happened at a place, now."""
