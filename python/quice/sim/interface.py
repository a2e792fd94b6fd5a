"""A host's place on a network: the addresses that it has there, and the link to the router."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable

from quice.sim.link import Link
from quice.sim.router import Router
from quice.sim.sources import IpAddress

IpInterface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


class Interface:
    """A network interface, up as long as its link is."""

    def __init__(self, name: str, link: Link, router: Router, metric: int = 0) -> None:
        self.name = name
        self.link = link
        self.addresses: list[IpInterface] = []
        self.router = router
        self._metric = metric
        self._watchers: list[Callable[[], None]] = []
        link.watch(self._changed)

    @property
    def up(self) -> bool:
        """Whether its addresses can be used."""
        return self.link.up

    @property
    def metric(self) -> int:
        """Of several ways out a host takes that with the lowest."""
        return self._metric

    @metric.setter
    def metric(self, metric: int) -> None:
        self._metric = metric
        self._changed()

    def assign(self, addresses: Iterable[IpInterface]) -> None:
        """Have these addresses and no others; the router knows at once."""
        for address in self.addresses:
            self.router.detach(ipaddress.ip_network(address.ip))
        self.addresses = list(addresses)
        for address in self.addresses:
            self.router.attach(ipaddress.ip_network(address.ip), self.link.inward)
        self._changed()

    def hosts(self) -> list[str]:
        """Its addresses as programs on the host write them: with a zone where they are link-local."""
        return [
            f"{address.ip}%{self.name}" if address.version == 6 and address.ip.is_link_local else str(address.ip)
            for address in self.addresses
        ]

    def addresses_for(self, ip: IpAddress) -> list[IpAddress]:
        """Those that a packet to `ip` may come from."""
        return [address.ip for address in self.addresses if address.version == ip.version]

    def versions(self) -> list[int]:
        """The versions of IP that it has a default route for."""
        return sorted({address.version for address in self.addresses if not address.ip.is_link_local})

    def match(self, ip: IpAddress) -> int:
        """How many bits of `ip` this interface's best route has: 0 is its default route, -1 none."""
        mine = [address for address in self.addresses if address.version == ip.version]
        bare = ipaddress.ip_address(str(ip).partition("%")[0])
        direct = [address.network.prefixlen for address in mine if bare in address.network]
        routed = any(not address.ip.is_link_local for address in mine) and not ip.is_link_local
        return max(direct, default=0 if routed else -1)

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call `watcher` whenever its addresses, its metric or its being up have changed."""
        self._watchers.append(watcher)

    def _changed(self) -> None:
        for watcher in self._watchers:
            watcher()
