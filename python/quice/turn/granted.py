"""What a TURN server keeps of an allocation it has granted: relayed addresses, permissions and channels, each with
the time it ends (RFC 8656 §3.2, §9, §12).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from quice.turn.orders import CloseFamily, FiveTuple, Forbid, Order, UnbindChannel
from quice.wire import Address

PERMISSION_LIFETIME = 300.0
"""Seconds (RFC 8656 §9)."""
CHANNEL_LIFETIME = 600.0
"""Seconds (RFC 8656 §12)."""


@dataclass
class Granted:
    """An allocation. Times are on the server machine's clock."""

    number: int
    client: FiveTuple
    username: str
    owner: str
    key: bytes
    transaction_id: bytes
    """Of the request that made it: the same request again gets the same answer."""
    response: bytes = b""
    """Empty until the relayed addresses are known."""
    relayed: dict[int, float] = field(default_factory=dict)
    """When the relayed address of each family ends."""
    permissions: dict[str, float] = field(default_factory=dict)
    channels: dict[int, tuple[Address, float]] = field(default_factory=dict)

    def channel_of(self, peer: Address) -> int | None:
        """The number that a peer is bound to."""
        return next((number for number, (bound, _) in self.channels.items() if bound == peer), None)

    def next_expiry(self) -> float | None:
        """When the first of it ends; None when it has nothing."""
        channels = (when for _, when in self.channels.values())
        return min((*self.relayed.values(), *self.permissions.values(), *channels), default=None)

    def expire(self, now: float) -> Iterator[Order]:
        """End what is due."""
        for host in [host for host, when in self.permissions.items() if when <= now]:
            del self.permissions[host]
            yield Forbid(self.number, host)
        for number in [number for number, (_, when) in self.channels.items() if when <= now]:
            del self.channels[number]
            yield UnbindChannel(self.number, number)
        for family in [family for family, when in self.relayed.items() if when <= now]:
            del self.relayed[family]
            yield CloseFamily(self.number, family)
