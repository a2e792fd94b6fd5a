"""Sites of a lab, and the hosts in them."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.ground import LabError
from lab.link import IDEAL, Cables, Conditions, Link
from lab.namespace import Namespace
from lab.nat import HOST_FIREWALL, REMOVAL, ROUTER_FIREWALL, forgetting, known_behaviour, rules
from lab.switch import Plugged, Switch
from quice.sim.kinds import Nat
from quice.sim.nat import NatBehaviour

NewNamespace = Callable[..., Namespace]
_WAN = "wan"


class Programs:
    """A network namespace, in which programs run."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace.name
        self._namespace = namespace

    @property
    def enter(self) -> tuple[str, ...]:
        """What to put before a command so that it runs on this host."""
        return self._namespace.enter

    def know(self, names: Path) -> None:
        """Have programs that are started here from now on resolve the names in this file, as in /etc/hosts."""
        self._namespace.know(names)

    def popen(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        """Start a program on this host; its output is text. `options` are those of `subprocess.Popen`."""
        return self._namespace.popen(*command, **options)

    def run(self, *command: str) -> str:
        """Run a program on this host to its end and return its output; raises `LabError` when it fails."""
        return self._namespace.run(*command)


class Host(Programs):
    """A host with one interface.

    second_address, second_ipv6: other addresses, of a server. ipv6: the host's IPv6 address, if its site has IPv6.
    """

    def __init__(self, namespace: Namespace, plugged: Plugged) -> None:
        super().__init__(namespace)
        self.address = plugged.address
        self.ipv6 = plugged.ipv6
        self.second_address = ""
        self.second_ipv6: str | None = None
        self.link = plugged.link

    def join(self, network: Switch, interface: str, conditions: Conditions = IDEAL) -> str:
        """Give this host an interface in another network too, and return its address there."""
        return network.join(self._namespace, interface, conditions).address


class Site:
    """A network behind one NAT, or right on the internet."""

    def __init__(
        self,
        name: str,
        nat: Nat | NatBehaviour,
        *,
        new_namespace: NewNamespace,
        cables: Cables,
        upstream: Switch,
        prefix: str,
        prefix_v6: str | None,
        firewall: bool,
        conditions: Conditions,
    ) -> None:
        self.nat = nat
        self.links: list[Link] = []
        """What connects the site to the internet: its router's link; without a NAT that of each host."""
        self.switch = upstream
        """What a host of the site is plugged into, and the router of a site behind this one."""
        self._name = name
        self._new_namespace = new_namespace
        self._ipv6 = prefix_v6 is not None
        self._firewall = firewall
        self._conditions = conditions
        self._hosts = itertools.count(1)
        self._router: Router | None = None
        if self._ipv6 and not upstream.has_ipv6:
            raise LabError("no IPv6 behind a site that has none")
        if (behaviour := known_behaviour(nat)) is not None:
            namespace = new_namespace(f"{name}router", ipv6=self._ipv6)
            self._router = Router(namespace, upstream, behaviour, conditions, firewall=firewall)
            self.links.append(self._router.link)
            self.switch = Switch(cables, namespace, "lan", prefix, prefix_v6)
            if self._ipv6:
                upstream.router.ip(f"route add {prefix_v6}::/64 via {self._router.ipv6}")

    @property
    def address(self) -> str:
        """The external address of the site's NAT."""
        return self._nat_router("address").address

    def host(self) -> Host:
        """Add a host to the site."""
        namespace = self._new_namespace(f"{self._name}host{next(self._hosts)}", ipv6=self._ipv6)
        if self._router is not None:
            return Host(namespace, self.switch.plug(namespace, "eth0", IDEAL))
        plugged = self.switch.plug(namespace, "eth0", self._conditions)
        self.links.append(plugged.link)
        if self._firewall:
            namespace.nft(HOST_FIREWALL)
        return Host(namespace, plugged)

    def rebind(self, *, new_address: bool = False) -> None:
        """Have the NAT forget all UDP mappings: a port that is mapped again gets another external one.

        new_address: the NAT itself gets another external address instead, and TCP connections through it die too.
        """
        router = self._nat_router("mappings")
        if new_address:
            router.renumber()
        else:
            router.forget()

    def cut(self) -> None:
        """Cut the site from the internet, in silence."""
        for link in self.links:
            link.cut()

    def restore(self) -> None:
        """Undo a cut."""
        for link in self.links:
            link.restore()

    def part(self, other: Site) -> None:
        """Let nothing through to another site, nor from it, in silence; both still reach all others."""
        for one, two in itertools.product(self.links, other.links):
            one.part(two)

    def rejoin(self, other: Site) -> None:
        """Undo a parting."""
        for one, two in itertools.product(self.links, other.links):
            one.rejoin(two)

    def block_udp(self) -> None:
        """Let no UDP in or out from now on, and no answer tell of that."""
        for link in self.links:
            link.block_udp()

    def confine(self, address: str) -> None:
        """Let nothing in or out from now on but TCP to this address, as where a proxy is the only way."""
        for link in self.links:
            link.confine(address)

    def _nat_router(self, what: str) -> Router:
        if self._router is None:
            raise LabError(f"no NAT, and no {what} of one, stands before a public site")
        return self._router


class Router:
    """What translates between a site's hosts and the network that its "wan" is plugged into."""

    def __init__(
        self, namespace: Namespace, upstream: Switch, nat: NatBehaviour, conditions: Conditions, *, firewall: bool
    ) -> None:
        self._namespace = namespace
        self._upstream = upstream
        self._nat = nat
        self._zone = 1
        plugged = upstream.plug(namespace, _WAN, conditions)
        self.link, self.address, self.ipv6 = plugged.link, plugged.address, plugged.ipv6
        namespace.nft(rules(nat, self.address, self._zone))
        # Netfilter's own notes live as long as those of the rules; these settings come with the rules.
        timeouts = ("udp_timeout", "udp_timeout_stream")
        namespace.sysctl(*(f"net.netfilter.nf_conntrack_{name}={nat.timeout:.0f}" for name in timeouts))
        if firewall:
            namespace.nft(ROUTER_FIREWALL)

    def forget(self) -> None:
        """Forget all UDP mappings."""
        self._zone += 1
        self._namespace.nft(forgetting(self._zone))

    def renumber(self) -> None:
        """Get another external address."""
        self._zone += 1
        self.address = self._upstream.replace_address(self._namespace, _WAN, self.address)
        self._namespace.nft(f"{REMOVAL}\n{rules(self._nat, self.address, self._zone)}")
