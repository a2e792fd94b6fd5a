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
    ) -> None:
        self.name = name
        self.link = link
        self.router = router
        self.lan = lan
        self.nat: Translator | None = None
        self.nat64: Nat64 | None = None
        self.firewall: Firewall | None = None
        self._wiring = wiring
        self._make_host = make_host
        self._lease_external = lease_external

    def protect(self, box: UdpBlock | Firewall | Translator) -> None:
        """Put one more box between the hosts and the internet, outside of those that are there."""
        self.router.boxes.append(box)
        if isinstance(box, Firewall):
            self.firewall = box
        elif isinstance(box, Nat64):
            self.nat64 = box
        elif isinstance(box, Translator):
            self.nat = self.router.nat = box
        if isinstance(box, Translator):
            self._announce(box)

    @property
    def external(self) -> tuple[str, ...]:
        """The external IPv4 addresses of the site's NAT, or of its NAT64."""
        nat = self.nat or self.nat64
        return () if nat is None else nat.external

    def host(
        self, name: str, *, interface: str = "eth0", link: Conditions = _CABLE, inward: Conditions | None = None
    ) -> Host:
        """Add a new host. `link`: its cable or radio to the router; `inward` None: the same the other way."""
        host = self._make_host(name)
        self.join(host, interface, link=link, inward=inward)
        return host

    def join(
        self, host: Host, interface: str, *, link: Conditions = _CABLE, inward: Conditions | None = None
    ) -> Interface:
        """Give a host of elsewhere an interface here too: a phone has Wi-Fi and LTE. The first one is preferred."""
        plugged = self._wiring.plug(host, interface, self.router, link, inward)
        plugged.assign(self.lan.lease())
        return plugged

    def move(self, host: Host) -> None:
        """Give a host other addresses of this network, as when its lease is not renewed."""
        for interface in host.interfaces.values():
            if interface.router is self.router:
                interface.assign(self.lan.lease())

    def reboot(self) -> None:
        """Restart the router: its NATs and its firewall forget all they know."""
        for box in (self.nat, self.nat64, self.firewall):
            if box is not None:
                box.reboot()

    def renumber(self) -> None:
        """Have the provider give the site's NATs other external addresses; they forget all they know."""
        for nat in (self.nat, self.nat64):
            if nat is not None:
                for external in nat.external:
                    self.router.withdraw(ipaddress.ip_network(external))
                nat.reboot([self._lease_external() for _ in nat.external])
                self._announce(nat)

    def _announce(self, nat: Translator) -> None:
        for external in nat.external:
            self.router.announce(ipaddress.ip_network(external))
