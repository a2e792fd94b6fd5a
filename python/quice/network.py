"""The machine's network interfaces."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

import ifaddr


@dataclass(frozen=True)
class LocalAddress:
    """An address of this machine, with its zone if it is an IPv6 link-local one, and its interface's name."""

    host: str
    interface: str

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        return ipaddress.ip_address(self.host)


def local_addresses() -> list[LocalAddress]:
    """The addresses that a peer could be reached from: those of loopback only when there are no others."""
    found = [LocalAddress(_host(ip), adapter.nice_name) for adapter in ifaddr.get_adapters() for ip in adapter.ips]
    usable = [address for address in found if not address.ip.is_unspecified and not address.ip.is_multicast]
    return [address for address in usable if not address.ip.is_loopback] or usable


def _host(ip: ifaddr.IP) -> str:
    if isinstance(ip.ip, str):
        return ip.ip
    host, _, scope = ip.ip
    return f"{host}%{ip.nice_name}" if scope and ipaddress.ip_address(host.partition("%")[0]).is_link_local else host
