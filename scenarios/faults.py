"""What goes wrong with a session's packets beside the weather."""

from __future__ import annotations

from quice.sim.packet import Packet, Protocol

_FIRST_OF_QUIC = 64
"""RFC 9443: what begins with less is of another protocol."""


class LoseFirst:
    """A middlebox behind everything else that loses the first QUIC packets which leave."""

    def __init__(self, count: int) -> None:
        self._left = count

    def outbound(self, packet: Packet, now: float) -> Packet | None:
        """See `quice.sim.router.Middlebox`."""
        if self._left and packet.protocol is Protocol.UDP and packet.data[:1] >= bytes([_FIRST_OF_QUIC]):
            self._left -= 1
            return None
        return packet

    def inbound(self, packet: Packet, now: float) -> Packet | None:
        """See `quice.sim.router.Middlebox`."""
        return packet


class Barrier:
    """A middlebox that lets nothing in, while it is shut, that one host has sent straight here."""

    def __init__(self, sender: str) -> None:
        self.shut = False
        self._sender = sender

    def outbound(self, packet: Packet, now: float) -> Packet:
        """See `quice.sim.router.Middlebox`."""
        return packet

    def inbound(self, packet: Packet, now: float) -> Packet | None:
        """See `quice.sim.router.Middlebox`."""
        return None if self.shut and packet.sender == self._sender else packet
