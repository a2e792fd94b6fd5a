"""A network behind one router: a home, an office, a carrier."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from quice.sim.addressing import Lan
from quice.sim.firewall import Firewall, UdpBlock
from quice.sim.host import Host
from quice.sim.interface import Interface
from quice.sim.link import Conditions, Link
from quice.sim.nat import Translator
from quice.sim.nat64 import Nat64
from quice.sim.router import Router
from quice.sim.wiring import Wiring

_CABLE = Conditions()


class Site:
    """Hosts on one network, and the router between them and the internet.

    link: the uplink, to cut, to mend, and to change the weather of. nat, nat64, firewall: what it has of these.
    """

    def __init__(
        self,
        name: str,
        router: Router,
        link: Link,
        lan: Lan,
        wiring: Wiring,
        make_host: Callable[[str], Host],
        lease_external: Callable[[], str],
        *,
        nat: Translator | None,
        nat64: Nat64 | None,
        firewall: Firewall | None,
        udp_block: UdpBlock | None,
    ) -> None:
        self.name = name
        self.link = link
        self.router = router
        self.lan = lan
        self.nat = nat
        self.nat64 = nat64
        self.firewall = firewall
        self._wiring = wiring
        self._make_host = make_host
        self._lease_external = lease_external
        router.nat = nat
        # What filters knows hosts by their own addresses, so it is inside of what translates.
        router.boxes = [box for box in (udp_block, firewall, nat, nat64) if box is not None]
        if lan.ipv6 is not None:
            router.announce(lan.ipv6)
        for translator in self._translators:
            self._announce(translator)

    @property
    def external(self) -> tuple[str, ...]:
        """The external IPv4 addresses of the site's NAT, or of its NAT64."""
        return self._translators[0].external if self._translators else ()

    def host(
        self, name: str, *, interface: str = "eth0", link: Conditions = _CABLE, inward: Conditions | None = None
    ) -> Host:
        """Add a new host. `link`: its cable or radio to the router; `inward` None: the same the other way."""
        host = self._make_host(name)
        self.join(host, interface, link=link, inward=inward)
        return host

    def join(
        self,
        host: Host,
        interface: str,
        *,
        metric: int = 0,
        link: Conditions = _CABLE,
        inward: Conditions | None = None,
    ) -> Interface:
        """Give a host of elsewhere an interface here too: a phone has Wi-Fi and LTE.

        metric: of several ways out a host takes that with the lowest, and of those the one that it had first.
        """
        plugged = self._wiring.plug(host, interface, self.router, link, inward, metric)
        plugged.assign(self.lan.lease())
        return plugged

    def leave(self, host: Host) -> None:
        """Take away the interface that a host has here, as when a phone leaves the reach of its Wi-Fi for good."""
        for interface in self._interfaces(host):
            host.unplug(interface.name)

    def move(self, host: Host) -> None:
        """Give a host other addresses of this network, as when its lease is not renewed."""
        for interface in self._interfaces(host):
            interface.assign(self.lan.lease())

    def reboot(self) -> None:
        """Restart the router: its NATs and its firewall forget all they know."""
        for box in (self.nat, self.nat64, self.firewall):
            if box is not None:
                box.reboot()

    def rebind(self) -> None:
        """Have the site's NATs forget their mappings of UDP; what a host sends next gets another external port."""
        for nat in self._translators:
            nat.rebind()

    def renumber(self) -> None:
        """Have the provider give the site's NATs other external addresses; they forget all they know."""
        for nat in self._translators:
            for external in nat.external:
                self.router.withdraw(ipaddress.ip_network(external))
            nat.reboot([self._lease_external() for _ in nat.external])
            self._announce(nat)

    @property
    def _translators(self) -> list[Translator]:
        return [each for each in (self.nat, self.nat64) if each is not None]

    def _announce(self, nat: Translator) -> None:
        for external in nat.external:
            self.router.announce(ipaddress.ip_network(external))

    def _interfaces(self, host: Host) -> list[Interface]:
        return [interface for interface in host.interfaces.values() if interface.router is self.router]
