"""Who gets which address: ranges for documentation, benchmarks and private use only, so that no packet is ever real."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterator

from quice.sim.interface import IpInterface

# RFC 5737 §3, and RFC 2544's range for what does not fit.
_PUBLIC = ("203.0.113.0/24", "198.51.100.0/24", "192.0.2.0/24", "198.18.0.0/15")
# RFC 3849 §2. The first of its networks is the internet's own, the others are those of sites.
_PUBLIC_V6 = int(ipaddress.IPv6Address("2001:db8::"))
_LINK_LOCAL = int(ipaddress.IPv6Address("fe80::"))
_FIRST_HOST = 11
_SITE_BITS, _SUBNET_BITS = 80, 16


class Lan:
    """The networks of one site and the leases in them. `ipv4`: None where public addresses are leased one by one."""

    def __init__(
        self,
        number: int,
        public: Iterator[str] | None,
        ipv4: ipaddress.IPv4Network | None,
        ipv6: ipaddress.IPv6Network | None,
    ) -> None:
        self.ipv4 = ipv4
        self.ipv6 = ipv6
        self.number = number
        self._public = public
        self._hosts = itertools.count(_FIRST_HOST)

    def ipv4_address(self) -> str:
        """The IPv4 address of one more host."""
        if self.ipv4 is not None:
            return str(self.ipv4[next(self._hosts)])
        if self._public is None:
            raise ValueError("this site has no IPv4")
        return next(self._public)

    @property
    def networks(self) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
        """Those that are on the link."""
        return [network for network in (self.ipv4, self.ipv6) if network is not None]

    def lease(self) -> list[IpInterface]:
        """The addresses of one more host, of each family that the site has."""
        number = next(self._hosts)
        leased: list[IpInterface] = []
        if self.ipv4 is not None:
            leased.append(ipaddress.IPv4Interface((self.ipv4[number], self.ipv4.prefixlen)))
        elif self._public is not None:
            leased.append(ipaddress.IPv4Interface(next(self._public)))
        if self.ipv6 is not None:
            leased.append(ipaddress.IPv6Interface((self.ipv6[number], self.ipv6.prefixlen)))
            link_local = ipaddress.IPv6Address(_LINK_LOCAL + (self.number << _SUBNET_BITS) + number)
            leased.append(ipaddress.IPv6Interface((link_local, 64)))
        return leased


class Addressing:
    """The registry of a world."""

    def __init__(self) -> None:
        self._ipv4 = _public_ipv4()
        self._ipv6 = itertools.count(_PUBLIC_V6 + _FIRST_HOST)
        self._sites = itertools.count(1)

    def ipv4(self) -> str:
        """One more public IPv4 address."""
        return next(self._ipv4)

    def ipv6(self) -> str:
        """One more IPv6 address right on the internet."""
        return str(ipaddress.IPv6Address(next(self._ipv6)))

    def lan(self, network: str | None, *, ipv4: bool, ipv6: bool, translated: bool, carrier: bool) -> Lan:
        """Networks for one more site. `translated`: whether its IPv4 addresses are private."""
        number = next(self._sites)
        private = ipaddress.IPv4Network(network or _private(number, carrier=carrier)) if ipv4 and translated else None
        public = self._ipv4 if ipv4 and not translated else None
        prefix = ipaddress.IPv6Network((_PUBLIC_V6 + (number << _SITE_BITS), 64)) if ipv6 else None
        return Lan(number, public, private, prefix)


def _public_ipv4() -> Iterator[str]:
    for network in _PUBLIC:
        hosts = ipaddress.IPv4Network(network).hosts()
        yield from (str(host) for host in itertools.islice(hosts, _FIRST_HOST - 1, None))


def _private(number: int, *, carrier: bool) -> str:
    high, low = divmod(number, 256)
    if carrier:
        return f"100.{64 + high}.{low}.0/24"  # RFC 6598
    return f"192.168.{low}.0/24" if high == 0 else f"10.{high}.{low}.0/24"
