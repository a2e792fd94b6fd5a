"""What every sans-I/O machine of quice speaks: addresses and datagrams to send.

A machine is fed bytes and the time, and asked for bytes and the next time it wants to be woken:

    receive(datagram, source, destination, now)   bytes in; never raises on what a stranger can send
    timeout() -> float | None                     when it next wants handle_timeout, on the caller's clock
    handle_timeout(now)
    transmits() -> Iterator[Transmit]             bytes out, each returned once
    events() -> Iterator[Event]                   what the layer above must know, each returned once

Times are seconds as float on whatever clock the caller uses; randomness is a `random.Random` passed in.
The same inputs at the same times give the same outputs, byte for byte.
"""

from __future__ import annotations

import ipaddress
from typing import NamedTuple, Protocol

# RFC 1918 §3 and RFC 4193 §3.
_PRIVATE = [ipaddress.ip_network(n) for n in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")]


class Address(NamedTuple):
    """A transport address: an IP address in text, as `ipaddress` prints it, and a port.

    An IPv6 link-local address carries its zone: `fe80::1%eth0`.
    """

    host: str
    port: int

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        """The IP address, with its zone for link-local IPv6."""
        return ipaddress.ip_address(self.host)

    @property
    def without_zone(self) -> Address:
        """The address as another machine knows it: a zone means something on its own alone (RFC 4007 §6)."""
        host, zone, _ = self.host.partition("%")
        return Address(host, self.port) if zone else self

    @property
    def is_private(self) -> bool:
        """Whether it is one of a network of its own, and means something only there."""
        ip = self.without_zone.ip
        return ip.is_loopback or ip.is_link_local or any(ip in network for network in _PRIVATE)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Transmit(NamedTuple):
    """A datagram to send. `source` None leaves the choice of the local address to the socket."""

    data: bytes
    source: Address | None
    destination: Address


class Random(Protocol):
    """The randomness a machine may use: `random.SystemRandom` in life, a seeded `random.Random` in tests."""

    def getrandbits(self, k: int, /) -> int: ...


def random_bytes(rng: Random, count: int) -> bytes:
    """That many random bytes."""
    return rng.getrandbits(8 * count).to_bytes(count, "big")
