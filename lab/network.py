"""Sites, hosts and an internet between them, in network namespaces.

    with Lab() as lab:
        server = lab.server()
        alice = lab.site(Nat.PORT_RESTRICTED).host()
        bob = lab.site(Nat.SYMMETRIC, conditions=Conditions(delay=0.025)).host()
        alice.popen("quice", "ping", ticket, "--server", f"ws://{server.address}:4780")

The internet is a bridge in a namespace of its own, and a router for those sites that have IPv6. Addresses are from
the ranges for documentation and for private use, and nothing leaves the namespaces.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import select
from collections.abc import Iterator
from types import TracebackType

from lab.ground import Ground, LabError
from lab.link import IDEAL, Cables, Conditions
from lab.namespace import Namespace
from lab.roaming import Roamer
from lab.site import Host, Site
from lab.switch import Switch
from quice.sim.kinds import Nat
from quice.sim.nat import NatBehaviour

_PREFIX = "quice"
_LEFT = re.compile(rf"^{_PREFIX}-(\d+)-")
# RFC 5737 §3, RFC 3849 §2 and, for what a carrier gives its customers, RFC 6598 §7.
_PUBLIC = "203.0.113"
_PUBLIC_V6 = "2001:db8"
_PRIVATE = "192.168"
_SHARED = "100.64"
_counter = itertools.count()
_DYING = 10.0
"""How long a process may take to end, in seconds."""


class Lab:
    """An internet with sites; a context manager that leaves nothing behind.

    Entering it, and adding to it, raises `LabError` where that can't be done; `available()` tells beforehand.
    """

    def __init__(self) -> None:
        self._name = f"{_PREFIX}-{os.getpid()}-{next(_counter)}"
        self._ground = Ground()
        self._exits = contextlib.ExitStack()
        self._namespaces: list[str] = []
        self._sites = itertools.count(1)
        self._cables = Cables(self._namespace)

    def __enter__(self) -> Lab:
        try:
            self._exits.enter_context(self._ground)
            self._exits.callback(self._remove)
            self._exits.callback(self._cables.close)
            router = self._namespace("internet", ipv6=True)
            self._internet = Switch(self._cables, router, "bridge", _PUBLIC, _PUBLIC_V6)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill what still runs in the lab, and remove it."""
        self._exits.close()

    def site(
        self,
        nat: Nat | NatBehaviour,
        *,
        carrier: bool = False,
        behind: Site | None = None,
        ipv6: bool = False,
        firewall: bool = False,
        conditions: Conditions = IDEAL,
    ) -> Site:
        """Add a site behind a NAT of this kind.

        carrier: it gives addresses for carriers' customers (RFC 6598). behind: a site, such as a carrier, whose NAT
        stands between this one and the internet.
        ipv6: its hosts have public IPv6 addresses too. firewall: only answers reach these; without a NAT that goes
        for IPv4 too.
        conditions: those of the site's link to the internet; without a NAT, of each host's.
        """
        number = next(self._sites)
        return Site(
            f"s{number}",
            nat,
            new_namespace=self._namespace,
            cables=self._cables,
            upstream=behind.switch if behind else self._internet,
            prefix=f"{_SHARED if carrier else _PRIVATE}.{number}",
            prefix_v6=f"{_PUBLIC_V6}:{number}" if ipv6 else None,
            firewall=firewall,
            conditions=conditions,
        )

    def server(self, *, ipv6: bool = False, conditions: Conditions = IDEAL) -> Host:
        """Add a host on the internet with a second address, as a server that measures NATs needs."""
        number = next(self._sites)
        namespace = self._namespace(f"server{number}", ipv6=ipv6)
        host = Host(namespace, self._internet.plug(namespace, "eth0", conditions))
        host.second_address, host.second_ipv6 = self._internet.add_address(namespace, "eth0")
        return host

    def roamer(self, first: Site) -> Roamer:
        """Add a host that can change networks; `first` is the site where it is. See `Roamer.add`."""
        return Roamer(self._namespace(f"roamer{next(self._sites)}", ipv6=True), first)

    def network(self, name: str, prefix: str) -> Switch:
        """Add a network that leads nowhere else, such as a VPN, for hosts to `join`. `prefix`: its /24."""
        return Switch(self._cables, self._namespace(name), name, prefix, None)

    def _namespace(self, name: str, *, ipv6: bool = False) -> Namespace:
        namespace = Namespace(self._ground, f"{self._name}-{name}", ipv6=ipv6)
        self._namespaces.append(namespace.name)
        namespace.build()
        return namespace

    def _remove(self) -> None:
        for namespace in self._namespaces:
            _remove(self._ground, namespace)
        self._namespaces.clear()


def clean() -> list[str]:
    """Remove the namespaces of labs whose process is gone, as after a kill, and return their names."""
    removed = []
    with Ground() as ground:
        for line in ground.check("ip", "netns", "list").splitlines():
            namespace = line.split()[0]
            if (match := _LEFT.match(namespace)) and not _alive(int(match[1])):
                _remove(ground, namespace)
                removed.append(namespace)
    return removed


def _remove(ground: Ground, namespace: str) -> None:
    """Remove a namespace, and what runs in it; what is gone already, or half made, is no error."""
    if pids := ground.run("ip", "netns", "pids", namespace).stdout.split():
        with ending(*map(int, pids)):
            ground.run("kill", "-9", *pids)
    ground.run("ip", "netns", "delete", namespace)


@contextlib.contextmanager
def ending(*programs: int) -> Iterator[None]:
    """Go on after the block when these processes have ended, whoever's children they are.

    A killed one is not gone at once: the kernel closes its sockets first. Raises `LabError` for one that stays.
    """
    with contextlib.ExitStack() as exits:
        ends = {}
        for program in programs:
            with contextlib.suppress(ProcessLookupError):
                ends[program] = os.pidfd_open(program)
                exits.callback(os.close, ends[program])
        yield
        for program, end in ends.items():
            if not select.select([end], [], [], _DYING)[0]:
                raise LabError(f"process {program} does not end")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
