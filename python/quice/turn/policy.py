"""Which peers a TURN server sends to: nobody in the server's own networks is reached through it, unless named."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

# RFC 6890 and its registry: what no packet from the internet may come from or go to. Left out are the networks for
# documentation and benchmarks (RFC 5737, RFC 2544), which lead nowhere but in a laboratory.
_FORBIDDEN: tuple[IpNetwork, ...] = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # shared by customers of one provider (RFC 6598)
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local; the metadata service of most clouds is there
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.168.0.0/16",
        "224.0.0.0/4",
        "240.0.0.0/4",  # with the broadcast address
        "::/96",  # unspecified, loopback, and IPv4 as it was once written
        "::ffff:0:0/96",
        "100::/64",
        "fc00::/7",  # fd00:ec2::254 is a metadata service
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
)
# IPv6 addresses that packets leave for an IPv4 address by, which has its own rules (RFC 6052, RFC 3056, RFC 8215).
_EMBEDDED = (
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),
    (ipaddress.IPv6Network("2002::/16"), 80),
)
_TRANSLATED = ipaddress.IPv6Network("64:ff9b:1::/48")


class PeerPolicy:
    """Which peers are allowed.

    allowed: networks that the operator has named. Addresses of the server itself are allowed for the relayed addresses
    on them, so that two clients of one relay reach each other; the data path lets nothing through to other ports.
    """

    def __init__(self, allowed: Iterable[IpNetwork] = ()) -> None:
        self.allowed = tuple(allowed)
        self.own: set[IpAddress] = set()

    def allows(self, peer: IpAddress) -> bool:
        """Whether data for this host may be relayed."""
        if any(peer in network for network in self.allowed) or peer in self.own:
            return True
        if isinstance(peer, ipaddress.IPv6Address):
            if peer in _TRANSLATED or peer.scope_id is not None:
                return False
            for network, shift in _EMBEDDED:
                if peer in network:
                    return self.allows(ipaddress.IPv4Address(int(peer) >> shift & 0xFFFFFFFF))
        return not any(peer in network for network in _FORBIDDEN)
