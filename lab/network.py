"""Sites, hosts and an internet between them, in network namespaces.

    with Lab() as lab:
        server = lab.server()
        alice = lab.site(Nat.PORT_RESTRICTED).host()
        bob = lab.site(Nat.SYMMETRIC).host()
        alice.popen("quice", "ping", ticket, "--server", f"ws://{server.address}:4780")

The internet is a bridge in a namespace of its own, and a router for those sites that have IPv6. Addresses are from
the ranges for documentation and for private use, and nothing leaves the namespaces.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import subprocess
from types import TracebackType
from typing import Any

from lab.ground import ENVIRONMENT, Ground
from lab.nat import RULES, Nat

_PREFIX = "quice"
_LEFT = re.compile(rf"^{_PREFIX}-(\d+)-")
# RFC 5737 §3 and RFC 3849 §2.
_GATEWAY = "203.0.113.1"
_GATEWAY_V6 = "2001:db8::1"
_FIRST_PUBLIC = 10
_FIRST_PRIVATE = 11
_counter = itertools.count()


class Host:
    """A network namespace with one interface, in which programs run.

    second_address: another public address, of a server. ipv6: the host's IPv6 address, if its site has IPv6.
    """

    def __init__(self, ground: Ground, namespace: str, address: str, ipv6: str | None) -> None:
        self._ground = ground
        self.namespace = namespace
        self.address = address
        self.second_address = ""
        self.ipv6 = ipv6
        self.enter = (*ground.enter, "ip", "netns", "exec", namespace)
        """What to put before a command so that it runs on this host."""

    def popen(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        """Start a program on this host; its output is text. `options` are those of `subprocess.Popen`."""
        return subprocess.Popen([*self.enter, *command], text=True, **{"env": ENVIRONMENT} | options)

    def run(self, *command: str) -> str:
        """Run a program on this host to its end and return its output; raises `LabError` when it fails."""
        return self._ground.check("ip", "netns", "exec", self.namespace, *command)


class Site:
    """A network behind one NAT, or right on the internet."""

    def __init__(self, lab: Lab, nat: Nat, number: int, *, ipv6: bool) -> None:
        self.nat = nat
        self.ipv6 = ipv6
        self._lab = lab
        self._number = number
        self._hosts = itertools.count(_FIRST_PRIVATE)
        if nat is not Nat.PUBLIC:
            self._build_router()

    def host(self) -> Host:
        """Add a host to the site."""
        if self.nat is Nat.PUBLIC:
            return self._lab._public_host(f"s{self._number}h{next(self._hosts)}", ipv6=self.ipv6)
        number = next(self._hosts)
        name = self._lab._namespace(f"s{self._number}h{number}", ipv6=self.ipv6)
        address, ipv6 = f"192.168.{self._number}.{number}", f"2001:db8:{self._number}::{number}"
        self._lab._link(name, "eth0", (self._router, "lan"), address)
        self._lab._ip(name, f"route add default via 192.168.{self._number}.1")
        if self.ipv6:
            self._lab._ip(name, f"addr add {ipv6}/64 dev eth0", f"route add default via {self._gateway_v6}")
        return Host(self._lab._ground, name, address, ipv6 if self.ipv6 else None)

    def _build_router(self) -> None:
        lab, number = self._lab, self._number
        address, wan_v6 = lab._public_address()
        self._router = lab._namespace(f"s{number}router", ipv6=self.ipv6)
        lab._link(self._router, "wan", lab._internet, address)
        lab._ip(
            self._router,
            "link add lan type bridge",
            f"addr add 192.168.{number}.1/24 dev lan",
            "link set lan up",
            f"route add default via {_GATEWAY}",
        )
        lab._sysctl(self._router, "net.ipv4.ip_forward=1")
        if RULES[self.nat]:
            lab._ground.check("ip", "netns", "exec", self._router, "nft", "-f", "-", text=RULES[self.nat])
        if self.ipv6:
            self._gateway_v6 = f"2001:db8:{number}::1"
            lab._sysctl(self._router, "net.ipv6.conf.all.forwarding=1")
            lab._ip(
                self._router,
                f"addr add {wan_v6}/64 dev wan",
                f"addr add {self._gateway_v6}/64 dev lan",
                f"route add default via {_GATEWAY_V6}",
            )
            lab._ip(lab._internet[0], f"route add 2001:db8:{number}::/64 via {wan_v6}")


class Lab:
    """An internet with sites; a context manager that leaves nothing behind.

    Entering it, and adding to it, raises `LabError` where that can't be done; `available()` tells beforehand.
    """

    def __init__(self) -> None:
        self._name = f"{_PREFIX}-{os.getpid()}-{next(_counter)}"
        self._ground = Ground()
        self._exits = contextlib.ExitStack()
        self._namespaces: list[str] = []
        self._ports = itertools.count()
        self._sites = itertools.count(1)
        self._addresses = itertools.count(_FIRST_PUBLIC)

    def __enter__(self) -> Lab:
        try:
            self._exits.enter_context(self._ground)
            self._exits.callback(self._remove)
            net = self._namespace("internet", ipv6=True)
            self._internet = (net, "bridge")
            self._ip(
                net,
                "link add bridge type bridge",
                f"addr add {_GATEWAY}/24 dev bridge",
                f"addr add {_GATEWAY_V6}/64 dev bridge",
                "link set bridge up",
            )
            self._sysctl(net, "net.ipv6.conf.all.forwarding=1")
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

    def site(self, nat: Nat, *, ipv6: bool = False) -> Site:
        """Add a site behind a NAT of this kind; with `ipv6` its hosts also have public IPv6 addresses, unfiltered."""
        return Site(self, nat, next(self._sites), ipv6=ipv6)

    def server(self, *, ipv6: bool = False) -> Host:
        """Add a host on the internet with a second address, as a server that measures NATs needs."""
        host = self._public_host(f"server{next(self._sites)}", ipv6=ipv6)
        host.second_address, _ = self._public_address()
        self._ip(host.namespace, f"addr add {host.second_address}/24 dev eth0")
        return host

    def _public_host(self, name: str, *, ipv6: bool) -> Host:
        namespace = self._namespace(name, ipv6=ipv6)
        address, v6 = self._public_address()
        self._link(namespace, "eth0", self._internet, address)
        self._ip(namespace, f"route add default via {_GATEWAY}")
        if ipv6:
            self._ip(namespace, f"addr add {v6}/64 dev eth0", f"route add default via {_GATEWAY_V6}")
        return Host(self._ground, namespace, address, v6 if ipv6 else None)

    def _public_address(self) -> tuple[str, str]:
        number = next(self._addresses)
        return f"203.0.113.{number}", f"2001:db8::{number}"

    def _namespace(self, name: str, *, ipv6: bool) -> str:
        full = f"{self._name}-{name}"
        self._ground.check("ip", "netns", "add", full)
        self._namespaces.append(full)
        # A bridge is a switch here: what it carries within a site is not the site's NAT's business. And a host
        # without IPv6 has no link-local address either, which would be a second way between two hosts of a site.
        off = int(not ipv6)
        self._sysctl(
            full,
            "net.bridge.bridge-nf-call-iptables=0",
            f"net.ipv6.conf.all.disable_ipv6={off}",
            f"net.ipv6.conf.default.disable_ipv6={off}",
            # Nobody else has these addresses, and who waits for that to be found out waits a second (RFC 4862 §5.4).
            "net.ipv6.conf.default.accept_dad=0",
        )
        self._ip(full, "link set lo up")
        return full

    def _link(self, namespace: str, interface: str, far: tuple[str, str], address: str) -> None:
        """Give a namespace an interface, plugged into the bridge of another: (namespace, bridge)."""
        switch, bridge = far
        port = f"port{next(self._ports)}"
        self._ip(
            namespace,
            f"link add {interface} type veth peer name {port} netns {switch}",
            f"addr add {address}/24 dev {interface}",
            f"link set {interface} up",
        )
        self._ip(switch, f"link set {port} master {bridge} up")

    def _ip(self, namespace: str, *commands: str) -> None:
        self._ground.check("ip", "-n", namespace, "-batch", "-", text="\n".join(commands))

    def _sysctl(self, namespace: str, *settings: str) -> None:
        self._ground.check("ip", "netns", "exec", namespace, "sysctl", "-eqw", *settings)

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
        ground.run("kill", "-9", *pids)
    ground.run("ip", "netns", "delete", namespace)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
