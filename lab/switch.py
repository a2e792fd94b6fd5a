"""Networks of a lab: a bridge, and the addresses of who is plugged into it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from lab.link import Cables, Conditions, Link
from lab.namespace import Namespace

_FIRST = 10


@dataclass(frozen=True)
class Plugged:
    """An interface in a network."""

    link: Link
    address: str
    ipv6: str | None


class Switch:
    """A bridge in the namespace of a router, which is .1 in a /24 of IPv4 and, where there is IPv6, ::1 in a /64."""

    def __init__(self, cables: Cables, router: Namespace, bridge: str, prefix: str, prefix_v6: str | None) -> None:
        self.router = router
        self.has_ipv6 = prefix_v6 is not None
        self._cables = cables
        self._bridge = bridge
        self._prefix = prefix
        self._prefix_v6 = prefix_v6
        self._numbers = itertools.count(_FIRST)
        router.ip(f"link add {bridge} type bridge", f"addr add {prefix}.1/24 dev {bridge}", f"link set {bridge} up")
        router.sysctl("net.ipv4.ip_forward=1", "net.ipv4.conf.all.send_redirects=0")
        if prefix_v6:
            router.ip(f"addr add {prefix_v6}::1/64 dev {bridge}")
            router.sysctl("net.ipv6.conf.all.forwarding=1")

    def plug(self, namespace: Namespace, interface: str, conditions: Conditions) -> Plugged:
        """Give a namespace an interface here, with addresses and the default route."""
        plugged = self.join(namespace, interface, conditions)
        namespace.ip(*self.default_routes(ipv6=plugged.ipv6 is not None))
        return plugged

    def join(self, namespace: Namespace, interface: str, conditions: Conditions) -> Plugged:
        """Give a namespace an interface here, with addresses, but leave its default route as it is."""
        return Plugged(self.lay(namespace, interface, conditions), *self.add_address(namespace, interface))

    def lay(self, namespace: Namespace, interface: str, conditions: Conditions) -> Link:
        """Give a namespace an interface here, without an address."""
        return self._cables.lay(namespace, interface, self.router, self._bridge, conditions)

    def add_address(self, namespace: Namespace, interface: str) -> tuple[str, str | None]:
        """Give an interface that is plugged in more addresses, and return them: IPv4, and IPv6 if both have that."""
        address, ipv6 = self.new_addresses()
        if not namespace.ipv6:
            ipv6 = None
        namespace.ip(*(f"addr add {assigned}" for assigned in self.assignments(interface, address, ipv6)))
        return address, ipv6

    def new_addresses(self) -> tuple[str, str | None]:
        """Addresses that nobody here has yet: IPv4, and IPv6 if there is that."""
        number = next(self._numbers)
        return f"{self._prefix}.{number}", f"{self._prefix_v6}::{number}" if self._prefix_v6 else None

    def assignments(self, interface: str, *addresses: str | None) -> list[str]:
        """What `ip addr` wants to be told of an interface's addresses here."""
        length = {True: 64, False: 24}
        return [f"{address}/{length[':' in address]} dev {interface}" for address in addresses if address]

    def replace_address(self, namespace: Namespace, interface: str, old: str) -> str:
        """Give an interface a new IPv4 address for its old one."""
        address = f"{self._prefix}.{next(self._numbers)}"
        # The default route goes with the last address of its network.
        namespace.ip(
            f"addr del {old}/24 dev {interface}",
            f"addr add {address}/24 dev {interface}",
            *self.default_routes(ipv6=False),
        )
        return address

    def default_routes(self, *, ipv4: bool = True, ipv6: bool) -> list[str]:
        """Commands of `ip` by which all that is not here goes by this network's router, and no longer another way."""
        wanted = ((ipv4, f"{self._prefix}.1"), (ipv6, f"{self._prefix_v6}::1"))
        return [f"route replace default via {gateway}" for has, gateway in wanted if has]
