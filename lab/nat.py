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


CLAIMS = {
    Nat.PUBLIC: Verdict(Behaviour.ENDPOINT_INDEPENDENT, Behaviour.ENDPOINT_INDEPENDENT),
    Nat.FULL_CONE: Verdict(Behaviour.ENDPOINT_INDEPENDENT, Behaviour.ENDPOINT_INDEPENDENT),
    Nat.ADDRESS_RESTRICTED: Verdict(Behaviour.ENDPOINT_INDEPENDENT, Behaviour.ADDRESS_DEPENDENT),
    Nat.PORT_RESTRICTED: Verdict(Behaviour.ENDPOINT_INDEPENDENT, Behaviour.ADDRESS_AND_PORT_DEPENDENT),
    Nat.SYMMETRIC: Verdict(Behaviour.ADDRESS_AND_PORT_DEPENDENT, Behaviour.ADDRESS_AND_PORT_DEPENDENT),
}

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
# by that note sends back whatever comes to the port. masquerade keeps a free port, and the ports of a site's
# hosts are told apart by the kernel's choice of ephemeral ports: the note is made before it is changed.
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
