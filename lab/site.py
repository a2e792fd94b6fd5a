"""Sites of a lab, and the hosts in them."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable
from typing import Any

from lab.ground import LabError
from lab.link import IDEAL, Cables, Conditions, Link
from lab.namespace import Namespace
from lab.nat import RULES, Nat
from lab.switch import Plugged, Switch

NewNamespace = Callable[..., Namespace]


class Host:
    """A network namespace with one interface, in which programs run.

    second_address, second_ipv6: other addresses, of a server. ipv6: the host's IPv6 address, if its site has IPv6.
    """

    def __init__(self, namespace: Namespace, plugged: Plugged) -> None:
        self.namespace = namespace.name
        self.address = plugged.address
        self.ipv6 = plugged.ipv6
        self.second_address = ""
        self.second_ipv6: str | None = None
        self.link = plugged.link
        self.enter = namespace.enter
        """What to put before a command so that it runs on this host."""
        self._namespace = namespace

    def popen(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        """Start a program on this host; its output is text. `options` are those of `subprocess.Popen`."""
        return self._namespace.popen(*command, **options)

    def run(self, *command: str) -> str:
        """Run a program on this host to its end and return its output; raises `LabError` when it fails."""
        return self._namespace.run(*command)


class Site:
    """A network behind one NAT, or right on the internet."""

    def __init__(
        self,
        name: str,
        nat: Nat,
        *,
        new_namespace: NewNamespace,
        cables: Cables,
        upstream: Switch,
        prefix: str,
        prefix_v6: str | None,
        conditions: Conditions,
    ) -> None:
        self.nat = nat
        self._name = name
        self._new_namespace = new_namespace
        self._ipv6 = prefix_v6 is not None
        self._conditions = conditions
        self._hosts = itertools.count(1)
        self.links: list[Link] = []
        """What connects the site to the internet: its router's link; without a NAT that of each host."""
        self.switch = upstream
        """What a host of the site is plugged into, and what a site behind this one is."""
        if self._ipv6 and not upstream.has_ipv6:
            raise LabError("no IPv6 behind a site that has none")
        if nat is not Nat.PUBLIC:
            self._build_router(upstream, cables, prefix, prefix_v6)

    def host(self) -> Host:
        """Add a host to the site."""
        namespace = self._new_namespace(f"{self._name}host{next(self._hosts)}", ipv6=self._ipv6)
        public = self.nat is Nat.PUBLIC
        plugged = self.switch.plug(namespace, "eth0", self._conditions if public else IDEAL)
        if public:
            self.links.append(plugged.link)
        return Host(namespace, plugged)

    def _build_router(self, upstream: Switch, cables: Cables, prefix: str, prefix_v6: str | None) -> None:
        router = self._new_namespace(f"{self._name}router", ipv6=self._ipv6)
        wan = upstream.plug(router, "wan", self._conditions)
        self.links.append(wan.link)
        self.switch = Switch(cables, router, "lan", prefix, prefix_v6)
        if RULES[self.nat]:
            router.nft(RULES[self.nat])
        if self._ipv6:
            upstream.router.ip(f"route add {prefix_v6}::/64 via {wan.ipv6}")
