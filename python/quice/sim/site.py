"""A network behind one router: a home, an office, a carrier."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from quice.sim.addressing import Lan
from quice.sim.host import Host
from quice.sim.interface import Interface
from quice.sim.link import Conditions, Link
from quice.sim.nat import Translator
from quice.sim.router import Network, Router
from quice.sim.wiring import Wiring

_CABLE = Conditions()


class Site:
    """Hosts on one network, and the router between them and the internet.

    link: the uplink, to cut, to mend, and to change the weather of.
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
        self._wiring = wiring
        self._make_host = make_host
        self._lease_external = lease_external

    def translate(self, nat: Translator) -> None:
        """Have this NAT between the site and the internet."""
        self.router.nat = nat
        self.router.boxes.append(nat)
        _route(nat, self.router.announce)

    @property
    def nat(self) -> Translator | None:
        """The site's NAT."""
        return self.router.nat

    @property
    def external(self) -> tuple[str, ...]:
        """The external addresses of the site's NAT."""
        return () if self.nat is None else self.nat.external

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

    def renumber(self) -> None:
        """Have the provider give the site's NAT other external addresses; its mappings are forgotten."""
        if self.nat is not None:
            _route(self.nat, self.router.withdraw)
            self.nat.reboot([self._lease_external() for _ in self.nat.external])
            _route(self.nat, self.router.announce)


def _route(nat: Translator, change: Callable[[Network], None]) -> None:
    for external in nat.external:
        change(ipaddress.ip_network(external))
