"""NAT64: IPv4 for hosts that have IPv6 alone (RFC 6146), under the well-known prefix (RFC 6052)."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from quice.sim.nat import NatBehaviour, PortAllocation, Translator
from quice.sim.packet import Packet
from quice.stun.discovery import Behaviour
from quice.wire import Address

PREFIX = ipaddress.IPv6Network("64:ff9b::/96")
DEFAULT = NatBehaviour(
    Behaviour.ENDPOINT_INDEPENDENT, Behaviour.ADDRESS_DEPENDENT, PortAllocation.RANDOM, parity=True, timeout=300.0
)
"""What RFC 6146 §3.5.1.1 and §4 ask for or recommend: UDP's sessions live five minutes."""


@lru_cache(maxsize=4096)
def synthesized(ipv4: str) -> str:
    """The IPv6 address by which a host of IPv6 alone reaches an IPv4 address (RFC 6052 §2.2)."""
    return str(PREFIX[int(ipaddress.IPv4Address(ipv4))])


@lru_cache(maxsize=4096)
def embedded(ipv6: str) -> str | None:
    """The IPv4 address within a synthesized one, None if it is none."""
    ip = ipaddress.IPv6Address(ipv6)
    return str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)) if ip in PREFIX else None


class Nat64(Translator):
    """Translates what goes to synthesized addresses and what comes from IPv4; all else passes.

    Translation changes nothing but addresses, and the size with the header (RFC 7915).
    """

    def outbound(self, packet: Packet, now: float) -> Packet | None:
        """See `Translator`."""
        host, port = packet.destination
        ipv4 = embedded(host) if ":" in host else None
        if ipv4 is None:
            return packet
        return super().outbound(packet.between(packet.source, Address(ipv4, port)), now)

    def inbound(self, packet: Packet, now: float) -> Packet | None:
        """See `Translator`."""
        if packet.destination.host not in self.external:
            return packet
        inside = super().inbound(packet, now)
        if inside is None:
            return None
        return inside.between(Address(synthesized(inside.source.host), inside.source.port), inside.destination)
