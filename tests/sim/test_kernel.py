"""Simulated sockets refuse what this machine's kernel refuses, on loopback."""

from __future__ import annotations

import itertools
import socket
import sys

import pytest

from quice.sim.host import Host
from quice.sim.packet import Protocol
from quice.sim.world import World
from quice.wire import Address

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="simulated hosts refuse what Linux does")

HOSTS = ("127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "::")
KINDS = {Protocol.UDP: socket.SOCK_DGRAM, Protocol.TCP: socket.SOCK_STREAM}


def _has_ipv6() -> bool:
    try:
        kernel_socket(Protocol.UDP, "::1", 0).close()
    except OSError:
        return False
    return True


def kernel_socket(protocol: Protocol, host: str, port: int) -> socket.socket:
    """A bound socket of the kernel."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, KINDS[protocol])
    try:
        if ":" in host:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def kernel_says(protocol: Protocol, first: str, second: str) -> int | None:
    """The errno of binding one port a second time."""
    with kernel_socket(protocol, first, 0) as held:
        try:
            kernel_socket(protocol, second, held.getsockname()[1]).close()
        except OSError as error:
            return error.errno
    return None


def simulator_says(host: Host, protocol: Protocol, first: str, second: str) -> int | None:
    held = host.bind(protocol, Address(first, 0), lambda packet: None)
    try:
        host.bind(protocol, Address(second, held.local.port), lambda packet: None)
    except OSError as error:
        return error.errno
    return None


@pytest.fixture
def host(world: World) -> Host:
    return world.host("alice", ipv6=1)


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("protocol", Protocol)
@pytest.mark.parametrize(("first", "second"), list(itertools.product(HOSTS, HOSTS)))
def test_a_port_is_taken_where_the_kernel_says_so(host: Host, protocol: Protocol, first: str, second: str) -> None:
    assert simulator_says(host, protocol, first, second) == kernel_says(protocol, first, second)


def test_an_address_of_nobody_can_not_be_bound(host: Host) -> None:
    with pytest.raises(OSError) as kernel:  # noqa: PT011 - whatever the kernel says is right
        kernel_socket(Protocol.UDP, "192.0.2.99", 0)
    with pytest.raises(OSError) as simulated:  # noqa: PT011
        host.bind(Protocol.UDP, Address("192.0.2.99", 0), lambda packet: None)
    assert simulated.value.errno == kernel.value.errno


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize(("loopback", "size", "port"), [
    ("127.0.0.1", 65508, 9),
    ("::1", 65528, 9),
    ("127.0.0.1", 1, 0),
    ("::1", 1, 0),
])  # fmt: skip
def test_a_datagram_is_refused_where_the_kernel_refuses_it(host: Host, loopback: str, size: int, port: int) -> None:
    with kernel_socket(Protocol.UDP, loopback, 0) as sock:
        with pytest.raises(OSError) as kernel:  # noqa: PT011
            sock.sendto(bytes(size), (loopback, port))
        if port:
            sock.sendto(bytes(size - 1), (loopback, port))
        binding = host.bind(Protocol.UDP, Address(loopback, 0), lambda packet: None)
        with pytest.raises(OSError) as simulated:  # noqa: PT011
            binding.send(bytes(size), Address(loopback, port))
        if port:
            binding.send(bytes(size - 1), Address(loopback, port))
    assert simulated.value.errno == kernel.value.errno
