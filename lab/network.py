"""Sites, hosts and an internet between them, in network namespaces.

    with Lab() as lab:
        server = lab.server()
        alice = lab.site(Nat.PORT_RESTRICTED).host()
        bob = lab.site(Nat.SYMMETRIC).host()
        alice.run("ping", "-c1", server.address)

The internet is a bridge in a namespace of its own. Addresses are from the ranges for documentation and for
private use, and nothing leaves the namespaces.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from lab.nat import RULES, Nat

_PREFIX = "quice"
_counter = itertools.count()


class LabError(RuntimeError):
    """The lab could not be built; the text has what the tool said."""


def available() -> str | None:
    """None where a lab can be built, else why not."""
    if os.geteuid() != 0:
        return "the lab needs root: it makes network namespaces"
    for tool, package in (("ip", "iproute2"), ("nft", "nftables")):
        if subprocess.run(["/bin/sh", "-c", f"command -v {tool}"], capture_output=True).returncode:
            return f"the lab needs `{tool}`: install the package {package}"
    probe = subprocess.run(["ip", "netns", "add", f"{_PREFIX}-probe-{os.getpid()}"], capture_output=True, text=True)
    if probe.returncode:
        return f"no network namespaces here: {probe.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", f"{_PREFIX}-probe-{os.getpid()}"], check=True)
    return None


class Host:
    """A network namespace with one interface, in which programs run."""

    def __init__(self, namespace: str, address: str, second_address: str = "") -> None:
        self.namespace = namespace
        self.address = address
        self.second_address = second_address

    def popen(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        """Start a program on this host; its output is text."""
        return subprocess.Popen(["ip", "netns", "exec", self.namespace, *command], text=True, **options)

    def run(self, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program on this host to its end and return its output; raises when it fails."""
        return subprocess.run(
            ["ip", "netns", "exec", self.namespace, *command],
            check=True,
            capture_output=True,
            text=True,
            **options,
        )


class Site:
    """A network behind one NAT, or right on the internet."""

    def __init__(self, lab: Lab, nat: Nat, number: int) -> None:
        self.nat = nat
        self._lab = lab
        self._number = number
        self._hosts = 0
        if nat is not Nat.PUBLIC:
            self.address = lab._public_address()
            self._router = lab._namespace(f"r{number}")
            lab._link(self._router, "wan", lab._internet, f"s{number}", self.address)
            _ip(
                f"-n {self._router} link add lan type bridge",
                f"-n {self._router} addr add 192.168.{number}.1/24 dev lan",
                f"-n {self._router} link set lan up",
                f"-n {self._router} route add default via {_GATEWAY}",
            )
            _sysctl(self._router, "net.ipv4.ip_forward=1")
            _nft(self._router, RULES[nat])

    def host(self) -> Host:
        """Add a host to the site."""
        self._hosts += 1
        name = self._lab._namespace(f"h{self._number}-{self._hosts}")
        if self.nat is Nat.PUBLIC:
            address = self._lab._public_address()
            self._lab._link(name, "eth0", self._lab._internet, f"h{self._number}x{self._hosts}", address)
            _ip(f"-n {name} route add default via {_GATEWAY}")
        else:
            address = f"192.168.{self._number}.{10 + self._hosts}"
            self._lab._link(name, "eth0", self._router, f"h{self._hosts}", address, bridge="lan")
            _ip(f"-n {name} route add default via 192.168.{self._number}.1")
        return Host(name, address)


_GATEWAY = "203.0.113.1"


class Lab:
    """An internet with sites; a context manager that leaves nothing behind."""

    def __init__(self) -> None:
        self._name = f"{_PREFIX}-{os.getpid()}-{next(_counter)}"
        self._namespaces: list[str] = []
        self._sites = 0
        self._addresses = itertools.count(10)

    def __enter__(self) -> Lab:
        try:
            self._internet = self._namespace("net")
            _ip(
                f"-n {self._internet} link add bridge type bridge",
                f"-n {self._internet} addr add {_GATEWAY}/24 dev bridge",
                f"-n {self._internet} link set bridge up",
            )
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
        for name in self._namespaces:
            pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split()
            if pids:
                subprocess.run(["kill", "-9", *pids], capture_output=True)
        for name in self._namespaces:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)
        self._namespaces.clear()

    def site(self, nat: Nat) -> Site:
        """Add a site behind a NAT of this kind."""
        self._sites += 1
        return Site(self, nat, self._sites)

    def server(self) -> Host:
        """Add a host on the internet with a second address, as a server that measures NATs needs."""
        host = self.site(Nat.PUBLIC).host()
        host.second_address = self._public_address()
        _ip(f"-n {host.namespace} addr add {host.second_address}/24 dev eth0")
        return host

    def _public_address(self) -> str:
        return f"203.0.113.{next(self._addresses)}"

    def _namespace(self, name: str) -> str:
        full = f"{self._name}-{name}"
        _ip(f"netns add {full}")
        self._namespaces.append(full)
        _ip(f"-n {full} link set lo up")
        # No IPv6 in the lab: a link-local address would be a second way between two hosts of a site.
        # A bridge is a switch here: what it carries within a site is not the site's NAT's business.
        _sysctl(full, "net.bridge.bridge-nf-call-iptables=0")
        _sysctl(full, "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
        return full

    def _link(self, namespace: str, interface: str, far: str, port: str, address: str, bridge: str = "bridge") -> None:
        """Give a namespace an interface that is plugged into a bridge in another."""
        _ip(
            f"-n {namespace} link add {interface} type veth peer name {port} netns {far}",
            f"-n {namespace} addr add {address}/24 dev {interface}",
            f"-n {namespace} link set {interface} up",
            f"-n {far} link set {port} master {bridge} up",
        )


def _ip(*commands: str) -> None:
    for command in commands:
        _check(["ip", *command.split()])


def _nft(namespace: str, rules: str) -> None:
    _check(["ip", "netns", "exec", namespace, "nft", "-f", "-"], rules)


def _sysctl(namespace: str, *settings: str) -> None:
    _check(["ip", "netns", "exec", namespace, "sysctl", "-eqw", *settings])


def _check(command: Sequence[str], text: str = "") -> None:
    result = subprocess.run(command, input=text, capture_output=True, text=True)
    if result.returncode:
        raise LabError(f"{' '.join(command)}: {result.stderr.strip()}")
