"""How the machine is connected, and what of that has changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from quice.network.interfaces import LocalAddress


@dataclass(frozen=True)
class NetworkState:
    """What a change of network changes.

    Loopback is no network. Link-local addresses count only where there are no others: each virtual cable of a container
    brings one.
    """

    addresses: tuple[LocalAddress, ...]
    default_routes: frozenset[str]
    """What tells them from others, in no form that means anything."""

    @classmethod
    def of(cls, addresses: Iterable[LocalAddress], default_routes: Iterable[str]) -> NetworkState:
        """The state of a machine with these addresses and default routes."""
        outer = [address for address in addresses if not address.ip.is_loopback]
        wide = [address for address in outer if not address.ip.is_link_local]
        return cls(tuple(dict.fromkeys(wide or outer)), frozenset(default_routes))

    def changed_to(self, now: NetworkState, *, woken: bool = False) -> NetworkChange | None:
        """What is different; None when nothing is. `woken`: whether the machine has slept meanwhile."""
        change = NetworkChange(
            added=tuple(address for address in now.addresses if address not in self.addresses),
            removed=tuple(address for address in self.addresses if address not in now.addresses),
            default_route=now.default_routes != self.default_routes,
            woken=woken,
        )
        return None if change == _NOTHING else change


@dataclass(frozen=True)
class NetworkChange:
    """What has changed about the machine's network.

    default_route: whether packets out leave by another way, or from another address. woken: whether the machine was
    suspended, or this program stopped, for so long that who speaks with it may have given it up.
    """

    added: tuple[LocalAddress, ...] = ()
    removed: tuple[LocalAddress, ...] = ()
    default_route: bool = False
    woken: bool = False


_NOTHING = NetworkChange()
