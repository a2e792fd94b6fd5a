"""Somebody who sits on a host's wire, sees all that passes, and does with it what they like."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from quice.sim.host import Host
from quice.sim.packet import Packet, Protocol

Tamper = Callable[[Packet], Iterable[Packet]]


class Tampering:
    """All UDP to and from a host goes through `tamper`, which says what goes on instead of each packet."""

    def __init__(self, host: Host, tamper: Tamper = lambda packet: (packet,)) -> None:
        self.tamper = tamper
        self.seen: list[bytes] = []
        """What has passed, as it came."""
        self.altered = 0
        """How many packets did not go on as they had come."""
        for interface in host.interfaces.values():
            for pipe in (interface.link.outward, interface.link.inward):
                pipe.carry = self._through(pipe.carry)  # type: ignore[method-assign]

    def _through(self, carry: Callable[[Packet], None]) -> Callable[[Packet], None]:
        def through(packet: Packet) -> None:
            if packet.protocol is not Protocol.UDP:
                carry(packet)
                return
            self.seen.append(packet.data)
            after = list(self.tamper(packet))
            self.altered += after != [packet]
            for each in after:
                carry(each)

        return through

    def has_seen(self, text: bytes) -> bool:
        """Whether this text was to be read in anything that passed."""
        return any(text in data for data in self.seen)
