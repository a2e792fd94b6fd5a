"""Hosts that change networks while programs run on them, as a phone does between Wi-Fi and LTE."""

from __future__ import annotations

from lab.link import IDEAL, Link
from lab.namespace import Namespace
from lab.site import Programs, Site


class Uplink:
    """An interface of a host in a site's network, down until it is used. It has the same addresses each time.

    address, ipv6: those that the host has while it is up, None for what this uplink does not have.
    """

    def __init__(self, site: Site, namespace: Namespace, interface: str, *, ipv4: bool) -> None:
        self.site = site
        self.link: Link = site.switch.lay(namespace, interface, IDEAL)
        address, self.ipv6 = site.switch.new_addresses()
        self.address = address if ipv4 else None
        self._namespace = namespace
        self._interface = interface
        # No link-local address: two hosts in one network would have a second way to each other.
        self._ip(f"link set {interface} down addrgenmode none")

    def up(self) -> None:
        """Get the addresses, and the default route away from whoever has it."""
        assignments = self.site.switch.assignments(self._interface, self.address, self.ipv6)
        routes = self.site.switch.default_routes(ipv4=self.address is not None, ipv6=self.ipv6 is not None)
        added = (f"addr add {assigned}" for assigned in assignments)
        self._ip(f"link set {self._interface} up", *added, *routes)

    def down(self) -> None:
        """Lose the addresses, and the routes that lead out here."""
        self._ip(f"addr flush dev {self._interface}", f"link set {self._interface} down")

    def lose_ipv4(self) -> None:
        """Lose the IPv4 address alone."""
        self._ip(f"addr flush dev {self._interface} to 0.0.0.0/0")

    def _ip(self, *commands: str) -> None:
        self._namespace.ip(*commands)


class Roamer(Programs):
    """A host with an uplink in each of several sites, one of which it uses."""

    def __init__(self, namespace: Namespace, first: Site) -> None:
        super().__init__(namespace)
        self._namespace = namespace
        self._uplinks: list[Uplink] = []
        self.uplink = self.add(first)
        """The one that is used."""
        self.uplink.up()

    def add(self, site: Site, *, ipv4: bool = True) -> Uplink:
        """Give the host an interface in another site's network, for `use`. ipv4: whether it gets such an address."""
        uplink = Uplink(site, self._namespace, f"up{len(self._uplinks)}", ipv4=ipv4)
        self._uplinks.append(uplink)
        return uplink

    def use(self, uplink: Uplink) -> None:
        """Change to another uplink: it comes up, then the old one goes down."""
        old, self.uplink = self.uplink, uplink
        uplink.up()
        if old is not uplink:
            old.down()
