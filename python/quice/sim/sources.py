"""Which of its addresses a host sends from (RFC 6724 §5), as far as the simulated internet has what it asks for."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_LINK, _GLOBAL = 2, 14


def preferred(candidates: Sequence[IpAddress], destination: IpAddress) -> str:
    """The best of `candidates`, which are of the outgoing interface (rule 5) and of the destination's family."""
    return str(max(candidates, key=lambda source: _preference(source, destination)))


def _preference(source: IpAddress, destination: IpAddress) -> tuple[int, int]:
    """Rules 2 and 8: appropriate scope, longest matching prefix. Where rule 6 has labels differ, the first bits do."""
    there, here = _scope(destination), _scope(source)
    # The smallest scope that is large enough; where none is, the largest.
    scope = -here if here >= there else here - 2 * _GLOBAL
    return scope, _common_bits(source, destination)


def _scope(ip: IpAddress) -> int:
    # RFC 6724 §3.2: private IPv4 addresses have global scope.
    return _LINK if ip.is_link_local or ip.is_loopback else _GLOBAL


def _common_bits(one: IpAddress, other: IpAddress) -> int:
    return one.max_prefixlen - (int(one) ^ int(other)).bit_length()
