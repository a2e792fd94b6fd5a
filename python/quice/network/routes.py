"""The machine's ways out."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_TABLE, _TABLE_V6 = Path("/proc/net/route"), Path("/proc/net/ipv6_route")
_UP, _REJECT = 0x1, 0x200
_FAR = ((socket.AF_INET, "198.51.100.1"), (socket.AF_INET6, "2001:db8:ffff::1"))
"""Addresses that no route but the default one leads to: they are for documentation (RFC 5737, RFC 3849)."""


def default_routes() -> frozenset[str]:
    """What tells the machine's default routes from others: their text means nothing but that."""
    return frozenset([*_sources(), *_routes(), *_routes_v6()])


def _sources() -> Iterator[str]:
    """Which addresses packets out leave from. Every system tells, and rules that choose a table are heeded."""
    for family, far in _FAR:
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            # Nothing is sent: a datagram socket's connecting looks up the route.
            probe.connect((far, 9))
            yield f"from {probe.getsockname()[0]}"


def _routes() -> Iterator[str]:
    """Those of IPv4 as Linux lists them: another network may give the same address."""
    for interface, destination, gateway, flags, _, _, metric, mask, *_ in _lines(_TABLE, header=1):
        if destination == mask == "00000000" and _leads_out(flags):
            yield f"{interface} {gateway} {metric}"


def _routes_v6() -> Iterator[str]:
    for _, length, _, _, gateway, metric, _, _, flags, interface in _lines(_TABLE_V6):
        if length == "00" and _leads_out(flags):
            yield f"{interface} {gateway} {metric}"


def _leads_out(flags: str) -> bool:
    return int(flags, 16) & (_UP | _REJECT) == _UP


def _lines(table: Path, header: int = 0) -> list[list[str]]:
    try:
        return [line.split() for line in table.read_text().splitlines()[header:]]
    except OSError:
        return []
