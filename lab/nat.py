"""NATs as nftables rules, from the words by which RFC 4787 tells NATs apart.

Netfilter alone translates each flow for itself, and lets in what answers one. The rest is done by sets that UDP packets
fill on their way out, once they are translated: `ports` has the external port of each internal endpoint, so that
further flows get it too; `hosts` has the internal endpoint of each external port, for a `dnat`; `spoken` has whom
each external port has spoken to; `taken` has every external port in use.
"""

from __future__ import annotations

import argparse

from lab.ground import LabError
from quice.sim.kinds import Nat, behaviour
from quice.sim.nat import Hairpinning, NatBehaviour, Pooling, PortAllocation
from quice.stun.discovery import Behaviour

_INDEPENDENT = Behaviour.ENDPOINT_INDEPENDENT
_BY_ADDRESS = Behaviour.ADDRESS_DEPENDENT
_BY_PORT = Behaviour.ADDRESS_AND_PORT_DEPENDENT

_SEQUENCE = range(20_000, 21_000)
"""The ports of a NAT that gives one after the other."""


KINDS = ", ".join(nat.value for nat in Nat)


def named(name: str) -> Nat:
    """The kind of NAT of this name, for `argparse`."""
    try:
        return Nat(name)
    except ValueError:
        raise argparse.ArgumentTypeError(f"no kind of NAT: {name!r}; there are {KINDS}") from None


def known_behaviour(nat: Nat | NatBehaviour) -> NatBehaviour | None:
    """How a NAT behaves, None without one; raises `LabError` for what netfilter can't do."""
    known = nat if isinstance(nat, NatBehaviour) else behaviour(nat)
    if known is not None:
        for impossible, what in _impossible(known):
            if impossible:
                raise LabError(f"no NAT of the lab has {what}; quice.sim has it")
    return known


def _impossible(nat: NatBehaviour) -> list[tuple[bool, str]]:
    hairpins = nat.hairpinning is not Hairpinning.OFF
    return [
        (nat.ports is PortAllocation.OVERLOADED, "overloaded ports"),
        (nat.parity, "parity of ports"),
        (nat.pooling is not Pooling.PAIRED, "several external addresses"),
        (nat.hairpinning is Hairpinning.INTERNAL_SOURCE, "hairpinning with the internal source"),
        (hairpins and nat.mapping is not _INDEPENDENT, "hairpinning by a symmetric NAT"),
        (hairpins and nat.ports is PortAllocation.SEQUENTIAL, "hairpinning with sequential ports"),
    ]


def rules(nat: NatBehaviour, address: str, zone: int) -> str:
    """The rules of a router with the interfaces "wan", which has this address, and "lan".

    zone: the connection-tracking zone of UDP. What is known of flows in other zones counts no more.
    """
    return _TABLE.format(
        zone=_zone(zone),
        timeout=f"{nat.timeout:g}s",
        endpoint=_depending(nat.mapping, "ipv4_addr . inet_service", "ipv4_addr", "inet_service"),
        partner=_depending(nat.filtering, "inet_service", "ipv4_addr", "inet_service"),
        inward=_lines(_inward(nat, address)),
        outward=_lines(_outward(nat, address)),
        noted=_lines(_noted(nat)),
    )


def forgetting(zone: int) -> str:
    """The change by which a router forgets its UDP mappings, and gives their ports to nobody for a while."""
    forgotten = ("map ip nat ports", "map ip nat hosts", "set ip nat spoken", "chain ip nat zone")
    return "\n".join([*(f"flush {name}" for name in forgotten), f"add rule ip nat zone {_zone(zone)}"])


REMOVAL = "delete table ip nat"

ROUTER_FIREWALL = """
table ip6 firewall {
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname "lan" accept
    }
}
"""
"""Lets IPv6 out of a site, and in what answers it (RFC 6092)."""

HOST_FIREWALL = """
table inet firewall {
    chain input {
        type filter hook input priority filter; policy drop;
        ct state established,related accept
        iifname "lo" accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    }
}
"""
"""The same on a host that has no router of its own, and for IPv4 too."""

# What comes from outside and answers nothing would reach the router itself, and be answered by ICMP. A consumer NAT
# is silent, so the input hook drops it.
_TABLE = """
table ip nat {{
    map ports {{ type {endpoint} : inet_service; flags dynamic; timeout {timeout}; }}
    map hosts {{ type inet_service : ipv4_addr . inet_service; flags dynamic; timeout {timeout}; }}
    set spoken {{ type {partner}; flags dynamic; timeout {timeout}; }}
    set taken {{ type inet_service; flags dynamic; timeout {timeout}; }}
    chain zone {{
        type filter hook prerouting priority raw;
        {zone}
    }}
    chain prerouting {{
        type nat hook prerouting priority dstnat;
        {inward}
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat;
        {outward}
    }}
    chain translated {{
        type filter hook postrouting priority srcnat + 1;
        {noted}
    }}
    chain input {{
        type filter hook input priority filter;
        iifname "wan" meta l4proto udp drop
    }}
}}
"""

_OUT = 'oifname "wan" meta l4proto udp'
_HAIRPIN = 'iifname "lan" oifname "lan" meta l4proto udp ct status dnat'
_TO_HOST = "dnat to udp dport map @hosts"


def _inward(nat: NatBehaviour, address: str) -> list[str]:
    """For the first packet of a flow from outside, or from inside to the external address."""
    lines = []
    if nat.filtering is not _BY_PORT:
        partner = _depending(nat.filtering, "udp dport", "ip saddr", "udp sport")
        lines.append(f'iifname "wan" meta l4proto udp {partner} @spoken {_TO_HOST}')
    if nat.hairpinning is not Hairpinning.OFF:
        lines.append(f'iifname "lan" ip daddr {address} meta l4proto udp {_TO_HOST}')
    return lines


def _outward(nat: NatBehaviour, address: str) -> list[str]:
    """For the first packet of a flow that leaves, or goes back inside: the external port that it gets."""
    endpoint = _depending(nat.mapping, "ip saddr . udp sport", "ip daddr", "udp dport")
    lines = [f"{_OUT} masquerade to :{endpoint} map @ports"]
    if nat.ports is PortAllocation.SEQUENTIAL:
        ports = ", ".join(f"{index}: {port}" for index, port in enumerate(_SEQUENCE))
        lines.append(f"{_OUT} masquerade to :numgen inc mod {len(_SEQUENCE)} map {{ {ports} }}")
    else:
        free = "udp sport @taken " if nat.ports is PortAllocation.PRESERVED else ""
        lines.append(f"{_OUT} {free}masquerade fully-random")
    lines.append('oifname "wan" masquerade')
    if nat.hairpinning is not Hairpinning.OFF:
        # Who speaks inside first has no external port yet.
        lines += [f"{_HAIRPIN} snat to {address}:{endpoint} map @ports", f"{_HAIRPIN} snat to {address} fully-random"]
    return lines


def _noted(nat: NatBehaviour) -> list[str]:
    """For every packet that is translated on its way out; a flow that came from outside has its source in the reply."""
    hairpins = nat.hairpinning is not Hairpinning.OFF
    lines = []
    for way in (_OUT, _HAIRPIN) if hairpins else (_OUT,):
        for side in ("original", "reply"):
            inside = f"ct {side} ip saddr . ct {side} proto-src"
            outside = (f"ct {side} ip daddr", f"ct {side} proto-dst")
            notes = (
                f"update @ports {{ {_depending(nat.mapping, inside, *outside)} : udp sport }}",
                f"update @hosts {{ udp sport : {inside} }}",
                f"update @spoken {{ {_depending(nat.filtering, 'udp sport', *outside)} }}",
                "update @taken { udp sport }",
            )
            lines.append(f"{way} ct direction {side} {' '.join(notes)}")
    if hairpins:
        partner = _depending(nat.filtering, "ct original proto-dst", "ip saddr", "udp sport")
        lines.append(f"{_HAIRPIN} ct direction original {partner} != @spoken drop")
    return lines


def _depending(on: Behaviour, first: str, address: str, port: str) -> str:
    """A key of `ports` or `spoken`, or its type: what comes first, and as much of the other side as is looked at."""
    parts = {_INDEPENDENT: (first,), _BY_ADDRESS: (first, address), _BY_PORT: (first, address, port)}
    return " . ".join(parts[on])


def _zone(number: int) -> str:
    return f"meta l4proto {{ udp, icmp }} ct zone set {number}"


def _lines(rules: list[str]) -> str:
    return "\n        ".join(rules)
