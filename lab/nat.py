"""NAT kinds as nftables rules. What each claims, in the words of RFC 4787, is said once for lab and simulator."""

from __future__ import annotations

from quice.sim.kinds import CLAIMS, Nat

__all__ = ["CLAIMS", "RULES", "Nat"]

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
