"""A network namespace, and what its tools are told."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from lab.ground import ENVIRONMENT, Ground

# `ip netns exec` gives each program a mount namespace of its own, in which a file can be another one.
_KNOWING = ("sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"')


class Namespace:
    """A named network namespace. What fails in it raises `LabError`, with what the tool said."""

    def __init__(self, ground: Ground, name: str, *, ipv6: bool) -> None:
        self.name = name
        self.ipv6 = ipv6
        self._ground = ground
        self._names: Path | None = None
        self.enter = (*ground.enter, *self._inside())
        """What to put before a command so that it runs here."""

    def know(self, names: Path) -> None:
        """Have programs that are started here from now on take this file for /etc/hosts."""
        self._names = names
        self.enter = (*self._ground.enter, *self._inside())

    def build(self) -> None:
        """Make it, with a loopback interface that is up."""
        self._ground.check("ip", "netns", "add", self.name)
        # A bridge is a switch here: what it carries within a site is not the site's NAT's business. And a host
        # without IPv6 has no link-local address either, which would be a second way between two hosts of a site.
        off = int(not self.ipv6)
        self.sysctl(
            "net.bridge.bridge-nf-call-iptables=0",
            f"net.ipv6.conf.all.disable_ipv6={off}",
            f"net.ipv6.conf.default.disable_ipv6={off}",
            # Nobody else has these addresses, and who waits for that to be found out waits a second (RFC 4862 §5.4).
            "net.ipv6.conf.default.accept_dad=0",
        )
        self.ip("link set lo up")

    def run(self, *command: str, text: str = "") -> str:
        """Run a program here to its end and return its output."""
        return self._ground.check(*self._inside(), *command, text=text)

    def popen(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        """Start a program here; its output is text. `options` are those of `subprocess.Popen`."""
        return subprocess.Popen([*self.enter, *command], text=True, **{"env": ENVIRONMENT} | options)

    def _inside(self) -> tuple[str, ...]:
        knowing = (*_KNOWING, str(self._names)) if self._names is not None else ()
        return ("ip", "netns", "exec", self.name, *knowing)

    def ip(self, *commands: str) -> None:
        """Run commands of `ip` here, all or up to the first that fails."""
        self._ground.check("ip", "-n", self.name, "-batch", "-", text="\n".join(commands))

    def nft(self, rules: str) -> None:
        """Run commands of `nft` here, all or none."""
        self.run("nft", "-f", "-", text=rules)

    def sysctl(self, *settings: str) -> None:
        """Set what this kernel has of these settings."""
        self.run("sysctl", "-eqw", *settings)
