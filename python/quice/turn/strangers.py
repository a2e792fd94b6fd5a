"""What is sent to who has not proven anything: never more bytes than came from there, and not often.

A source address can be forged. Who forges one gets nothing out of the server that is worth it: the server sends
at most as many bytes to an address as have come from it. A request that is shorter than its answer is answered when it
has been repeated, as every client does that gets no answer.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass

from quice.wire import Address

_RATE = 100.0
_BURST = 500.0
"""Answers a second, and at once, to one address: a NAT may have many clients behind it."""
_MAX_CREDIT = 4096
_MAX_SOURCES = 4096
_IPV6_SITE = 64


@dataclass
class _Source:
    credit: int
    answers: float
    since: float


class Strangers:
    """Keeps account of each address. It forgets the one that was heard of longest ago when there are too many."""

    def __init__(self) -> None:
        self._sources: OrderedDict[str, _Source] = OrderedDict()

    def heard(self, client: Address, length: int, now: float) -> None:
        """A request of so many bytes came from there."""
        key = _key(client)
        source = self._sources.get(key)
        if source is None:
            source = self._sources[key] = _Source(0, _BURST, now)
            if len(self._sources) > _MAX_SOURCES:
                self._sources.popitem(last=False)
        self._sources.move_to_end(key)
        source.credit = min(_MAX_CREDIT, source.credit + length)

    def may_answer(self, client: Address, length: int, now: float) -> bool:
        """Whether an answer of so many bytes may be sent there; if so, it is taken as sent."""
        source = self._sources[_key(client)]
        source.answers = min(_BURST, source.answers + (now - source.since) * _RATE)
        source.since = now
        if source.credit < length or source.answers < 1:
            return False
        source.credit -= length
        source.answers -= 1
        return True


def _key(client: Address) -> str:
    """One network for IPv6, in which a host has as many addresses as it likes."""
    ip = client.without_zone.ip
    return str(ipaddress.ip_network((ip, _IPV6_SITE), strict=False)) if ip.version == 6 else client.host
