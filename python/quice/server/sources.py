"""What connections have in common that come from one address, and how many of them there may be."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from quice.ice import Budget

_MANY = 10_000
"""Sources of which is known what they have used, before those are forgotten that have used nothing lately."""


@dataclass(frozen=True)
class SourceLimits:
    """What one address may have, or one IPv6 network of 64 bits; None for any number."""

    at_once: int | None = 1000
    """Connections at the same time; also how many may come at once, as when another server has gone."""
    rate: float = 20.0
    """Connections a second in the long run."""


NO_LIMITS = SourceLimits(at_once=None)


@dataclass
class _Use:
    budget: Budget
    connections: int = 0


@dataclass
class Sources:
    """What each source has and has used. Times are seconds on the caller's clock."""

    limits: SourceLimits
    uses: dict[str, _Use] = field(default_factory=dict)

    def enter(self, source: str, now: float) -> bool:
        """Whether one more connection of this source is allowed; if so, it counts until it leaves."""
        most = self.limits.at_once
        if most is None:
            return True
        use = self.uses.get(source)
        if use is None:
            self._forget(now)
            use = self.uses[source] = _Use(Budget(most, self.limits.rate))
        if use.connections >= most or not use.budget.take(1, now):
            return False
        use.connections += 1
        return True

    def leave(self, source: str) -> None:
        """A connection of this source has ended."""
        if (use := self.uses.get(source)) is not None:
            use.connections -= 1

    def _forget(self, now: float) -> None:
        if len(self.uses) < _MANY:
            return
        uses = self.uses.items()
        self.uses = {source: use for source, use in uses if use.connections or not use.budget.is_whole(now)}


def source_of(host: str) -> str:
    """What limits go by, of an IP address: an IPv6 network has more addresses than can be counted (RFC 6177 §2)."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else str(address)
