"""NAT kinds as nftables rules, each named by what RFC 4787 calls its mapping and filtering."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Behaviour(str, enum.Enum):
    """What a mapping or a filter depends on (RFC 4787 §4.1, §5)."""

    ENDPOINT_INDEPENDENT = "endpoint_independent"
    ADDRESS_DEPENDENT = "address_dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address_and_port_dependent"


class Nat(str, enum.Enum):
    """What stands between a site's hosts and the internet."""

    PUBLIC = "public"
    FULL_CONE = "full_cone"
    ADDRESS_RESTRICTED = "address_restricted"
    PORT_RESTRICTED = "port_restricted"
    SYMMETRIC = "symmetric"


@dataclass(frozen=True)
class Verdict:
    """How a NAT maps and filters, claimed or measured."""

    mapping: Behaviour
    filtering: Behaviour
    preserves_port: bool
    """Whether a host's port is also its port on the internet while that is free (RFC 4787 §4.2.1)."""


_INDEPENDENT = Behaviour.ENDPOINT_INDEPENDENT
_BY_ADDRESS = Behaviour.ADDRESS_DEPENDENT
_BY_PORT = Behaviour.ADDRESS_AND_PORT_DEPENDENT

CLAIMS = {
    Nat.PUBLIC: Verdict(_INDEPENDENT, _INDEPENDENT, preserves_port=True),
    Nat.FULL_CONE: Verdict(_INDEPENDENT, _INDEPENDENT, preserves_port=True),
    Nat.ADDRESS_RESTRICTED: Verdict(_INDEPENDENT, _BY_ADDRESS, preserves_port=True),
    Nat.PORT_RESTRICTED: Verdict(_INDEPENDENT, _BY_PORT, preserves_port=True),
    Nat.SYMMETRIC: Verdict(_BY_PORT, _BY_PORT, preserves_port=False),
}
"""What each kind says of itself; the probe says whether it is true."""

# Netfilter matches replies by address and port and drops nothing by itself: what is not a reply would reach the
# router itself, and be answered by ICMP. A consumer NAT is silent, so the input hook drops it.
_MASQUERADE = """
table ip nat {{
    chain postrouting {{
        type nat hook postrouting priority srcnat;
        oifname "wan" masquerade{flags}
    }}
}}
table ip filter {{
    chain input {{
        type filter hook input priority filter;
        iifname "wan" ip protocol udp drop
    }}
}}
"""

# A cone lets in what netfilter alone would not: outbound packets note which host has which port, and `dnat`
# by that note sends back whatever comes to the port. The note is made before masquerade, which keeps a port that
# is free: two hosts of a site that use the same port at the same time would take it from each other.
_CONE = """
table ip nat {{
    map hosts {{ type inet_service : ipv4_addr; flags dynamic; timeout 5m; }}
    {extra_set}
    chain note {{
        type filter hook forward priority filter;
        oifname "wan" ip protocol udp update @hosts {{ udp sport : ip saddr }} {note}
    }}
    chain prerouting {{
        type nat hook prerouting priority dstnat;
        iifname "wan" ip protocol udp {condition} dnat to udp dport map @hosts
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat;
        oifname "wan" masquerade
    }}
}}
table ip filter {{
    chain input {{
        type filter hook input priority filter;
        iifname "wan" ip protocol udp drop
    }}
}}
"""

RULES: dict[Nat, str] = {
    Nat.PUBLIC: "",
    Nat.FULL_CONE: _CONE.format(extra_set="", note="", condition=""),
    Nat.ADDRESS_RESTRICTED: _CONE.format(
        extra_set="set spoken { type ipv4_addr . inet_service; flags dynamic; timeout 5m; }",
        note="update @spoken { ip daddr . udp sport }",
        condition="ip saddr . udp dport @spoken",
    ),
    Nat.PORT_RESTRICTED: _MASQUERADE.format(flags=""),
    Nat.SYMMETRIC: _MASQUERADE.format(flags=" fully-random"),
}
