"""What does not translate but filters: stateful firewalls, and networks that let only some UDP out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from quice.sim.nat import DEPENDENCE
from quice.sim.packet import Packet, Protocol
from quice.stun.discovery import Behaviour
from quice.wire import Address


@dataclass(frozen=True)
class FirewallBehaviour:
    """How a stateful firewall takes an answer for one (RFC 6092); times are in seconds."""

    filtering: Behaviour = Behaviour.ADDRESS_AND_PORT_DEPENDENT
    timeout: float = 120.0
    """How long UDP may be silent in both directions (RFC 6092 §3.2.3: at least two minutes)."""
    tcp_timeout: float = 7440.0
    """The same of TCP: 2 hours and 4 minutes (§3.3.1), as segments are not looked into."""


class Firewall:
    """Lets everything out, and in what answers it.

    ipv4: whether that is for IPv4 too. Where there is a NAT, that filters it already.
    """

    def __init__(self, behaviour: FirewallBehaviour, *, ipv4: bool) -> None:
        self.behaviour = behaviour
        self._ipv4 = ipv4
        self._remote = DEPENDENCE[behaviour.filtering]
        self._expires: dict[tuple[Protocol, Address, object], float] = {}

    def outbound(self, packet: Packet, now: float) -> Packet:
        """Let the packet out, and note whom it speaks to."""
        if self._applies(packet):
            self._refresh((packet.protocol, packet.source, self._remote(packet.destination)), now)
        return packet

    def inbound(self, packet: Packet, now: float) -> Packet | None:
        """The packet if it answers, else None."""
        if not self._applies(packet):
            return packet
        flow = (packet.protocol, packet.destination, self._remote(packet.source))
        if self._expires.get(flow, 0.0) <= now:
            return None
        self._refresh(flow, now)
        return packet

    def reboot(self) -> None:
        """Forget who speaks to whom."""
        self._expires.clear()

    def _applies(self, packet: Packet) -> bool:
        return self._ipv4 or ":" in packet.destination.host

    def _refresh(self, flow: tuple[Protocol, Address, object], now: float) -> None:
        udp = flow[0] is Protocol.UDP
        self._expires[flow] = now + (self.behaviour.timeout if udp else self.behaviour.tcp_timeout)


class UdpBlock:
    """Lets UDP pass only to and from these ports outside: none at all, or 53 alone, as in some offices and hotels."""

    def __init__(self, ports: Collection[int]) -> None:
        self._ports = frozenset(ports)

    def outbound(self, packet: Packet, now: float) -> Packet | None:
        """The packet if its destination's port is allowed."""
        return packet if self._passes(packet, packet.destination) else None

    def inbound(self, packet: Packet, now: float) -> Packet | None:
        """The packet if its source's port is allowed."""
        return packet if self._passes(packet, packet.source) else None

    def _passes(self, packet: Packet, remote: Address) -> bool:
        return packet.protocol is not Protocol.UDP or remote.port in self._ports
