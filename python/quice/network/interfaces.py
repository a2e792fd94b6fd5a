"""The addresses of this machine's network interfaces."""

from __future__ import annotations

import ipaddress
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import ifaddr

_LINUX = sys.platform == "linux"
_IF_INET6 = Path("/proc/net/if_inet6")
_DUPLICATE, _OPTIMISTIC, _TENTATIVE = 0x08, 0x04, 0x40


@dataclass(frozen=True)
class LocalAddress:
    """An address of this machine, with its zone if it is an IPv6 link-local one, and its interface's name."""

    host: str
    interface: str

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        return ipaddress.ip_address(self.host)


def local_addresses() -> list[LocalAddress]:
    """The addresses that a peer could be reached from: those of loopback only when there are no others.

    Not those of interfaces that are down or unplugged, nor those that can't be sent from yet: IPv6 first makes sure
    that nobody else has an address (RFC 4862 §5.4).
    """
    adapters = list(ifaddr.get_adapters())
    down = set(_down(adapter.name for adapter in adapters))
    unready = _unready()
    usable = [
        LocalAddress(_host(ip), adapter.nice_name)
        for adapter in adapters
        if adapter.name not in down
        for ip in adapter.ips
        if (adapter.name, _bare(ip)) not in unready
    ]
    usable = [address for address in usable if not address.ip.is_unspecified and not address.ip.is_multicast]
    return [address for address in usable if not address.ip.is_loopback] or usable


if sys.platform == "win32":

    def _down(interfaces: Iterable[str]) -> Iterator[str]:
        """Windows does not list the addresses of those that are off."""
        return iter(())

else:
    import fcntl

    _GET_FLAGS = 0x8913 if sys.platform == "linux" else 0xC0206911
    """The ioctl SIOCGIFFLAGS; on BSD and macOS it says the size of what it takes."""
    _IFREQ = struct.Struct("16sH22x")
    _UP_AND_RUNNING = 0x1 | 0x40

    def _down(interfaces: Iterable[str]) -> Iterator[str]:
        """Those that are off, or have no carrier; the kernel leaves them their IPv4 addresses."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            for name in interfaces:
                # One that is gone meanwhile, or that can't be asked about, is told of by its addresses.
                with suppress(OSError):
                    answer = fcntl.ioctl(asking, _GET_FLAGS, _IFREQ.pack(name.encode(), 0))
                    if _IFREQ.unpack(answer)[1] & _UP_AND_RUNNING != _UP_AND_RUNNING:
                        yield name


def _unready() -> set[tuple[str, str]]:
    """The interfaces and IPv6 addresses that nothing can be sent from, where the system tells."""
    unready = set()
    if _LINUX:
        with suppress(OSError):
            for line in _IF_INET6.read_text().splitlines():
                address, _, _, _, flag_digits, interface = line.split()
                flags = int(flag_digits, 16)
                # An optimistic address is tentative too, but may be used (RFC 4429).
                if flags & _DUPLICATE or flags & (_TENTATIVE | _OPTIMISTIC) == _TENTATIVE:
                    unready.add((interface, str(ipaddress.IPv6Address(int(address, 16)))))
    return unready


def _bare(ip: ifaddr.IP) -> str:
    return ip.ip if isinstance(ip.ip, str) else ip.ip[0].partition("%")[0]


def _host(ip: ifaddr.IP) -> str:
    if isinstance(ip.ip, str):
        return ip.ip
    host, _, scope = ip.ip
    return f"{host}%{ip.nice_name}" if scope and ipaddress.ip_address(host.partition("%")[0]).is_link_local else host
