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
        namespace.ip(*self._default_routes(ipv6=plugged.ipv6 is not None))
        return plugged

    def join(self, namespace: Namespace, interface: str, conditions: Conditions) -> Plugged:
        """Give a namespace an interface here, with addresses, but leave its default route as it is."""
        link = self._cables.lay(namespace, interface, self.router, self._bridge, conditions)
        return Plugged(link, *self.add_address(namespace, interface))

    def add_address(self, namespace: Namespace, interface: str) -> tuple[str, str | None]:
        """Give an interface that is plugged in more addresses, and return them: IPv4, and IPv6 if both have that."""
        number = next(self._numbers)
        address, ipv6 = f"{self._prefix}.{number}", None
        namespace.ip(f"addr add {address}/24 dev {interface}")
        if self._prefix_v6 and namespace.ipv6:
            ipv6 = f"{self._prefix_v6}::{number}"
            namespace.ip(f"addr add {ipv6}/64 dev {interface}")
        return address, ipv6

    def replace_address(self, namespace: Namespace, interface: str, old: str) -> str:
        """Give an interface a new IPv4 address for its old one."""
        address = f"{self._prefix}.{next(self._numbers)}"
        # The default route goes with the last address of its network.
        namespace.ip(
            f"addr del {old}/24 dev {interface}",
            f"addr add {address}/24 dev {interface}",
            *self._default_routes(ipv6=False),
        )
        return address

    def _default_routes(self, *, ipv6: bool) -> list[str]:
        routes = [f"route add default via {self._prefix}.1"]
        return [*routes, f"route add default via {self._prefix_v6}::1"] if ipv6 else routes
