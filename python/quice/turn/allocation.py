"""An allocation: what is asked for, and what was given (RFC 8656 §6, §7)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from quice.stun.attributes import (
    AdditionalAddressFamily,
    Attribute,
    DraftAdditionalAddressFamily,
    Lifetime,
    RequestedAddressFamily,
    RequestedTransport,
    Software,
    XorMappedAddress,
    XorRelayedAddress,
)
from quice.stun.message import Message
from quice.wire import Address

_UDP = 17
_IPV4 = 1
_IPV6 = 2
_KEEPALIVE = 25.0
"""Seconds between two Refresh requests: they keep the NATs on the way to the server open, whose bindings may last only
30 s, and tell soon that the allocation is gone."""
_SHORTEST = 2.0


class AddressFamilies(enum.Enum):
    """Of which families relayed addresses are wanted."""

    IPV4 = "ipv4"
    IPV6 = "ipv6"
    BOTH = "both"


@dataclass(frozen=True)
class Allocation:
    """One or two relayed addresses, for as long as they are refreshed."""

    relayed: tuple[Address, ...]
    mapped: Address
    lifetime: float
    expires: float

    @property
    def refresh_after(self) -> float:
        """Seconds from one Refresh to the next."""
        return min(_KEEPALIVE, max(_SHORTEST, self.lifetime / 2))


def request(families: AddressFamilies, lifetime: float, server: Address) -> tuple[Attribute, ...]:
    """The attributes of an Allocate request to a server (§7.1).

    The name makes it as long as the shortest challenge: a server that sends strangers no more bytes than came from
    them can answer it at once.
    """
    asked: tuple[Attribute, ...] = ()
    if families is AddressFamilies.BOTH:
        # Servers pass over the one they do not know.
        asked = (AdditionalAddressFamily(_IPV6), DraftAdditionalAddressFamily(_IPV6))
    elif families is AddressFamilies.IPV6:
        asked = (RequestedAddressFamily(_IPV6),)
    elif server.without_zone.ip.version == 6:
        # IPv4 is what is to be given to who asks for nothing. Some servers give what they are spoken to by.
        asked = (RequestedAddressFamily(_IPV4),)
    return (RequestedTransport(_UDP), Lifetime(int(lifetime)), *asked, Software("quice"))


def granted(response: Message, wanted: float) -> float:
    """The lifetime that a server has given, or the one that was asked for if it does not say."""
    given = response.get(Lifetime)
    return float(given.value) if given is not None else wanted


def read(response: Message, wanted: float, now: float) -> Allocation | None:
    """What a success response to Allocate gives (§7.3); None when there is no address to use in it."""
    relayed = tuple(a.address for a in response.attributes if isinstance(a, XorRelayedAddress) and _usable(a.address))
    mapped = response.get(XorMappedAddress)
    if not relayed or mapped is None:
        return None
    lifetime = granted(response, wanted)
    return Allocation(relayed, mapped.address, lifetime, now + lifetime)


def _usable(address: Address) -> bool:
    return bool(address.port) and not address.ip.is_unspecified
