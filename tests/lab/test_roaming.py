"""Hosts that change networks, and sites that lose each other alone."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest

from lab import probe
from lab.ground import LabError, available
from lab.link import Conditions
from lab.network import Lab
from lab.site import Programs
from quice.sim.kinds import Nat

UNAVAILABLE = available()
pytestmark = [pytest.mark.lab, pytest.mark.skipif(UNAVAILABLE is not None, reason=str(UNAVAILABLE))]

ECHO = """
import socket, sys
sock = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
sock.bind((sys.argv[1], 7))
print("ready", flush=True)
while True:
    sock.sendto(*sock.recvfrom(2048))
"""
# One socket, as an application has it: asks every 20 ms, over all changes, and notes when what came back was sent.
ASK = """
import json, select, socket, sys, time
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
sock = socket.socket(family, socket.SOCK_DGRAM)
print("ready", flush=True)
answered = []
while not select.select([sys.stdin], [], [], 0.02)[0]:
    try:
        sock.sendto(b"%f" % time.monotonic(), (sys.argv[1], 7))
    except OSError:
        pass
    while select.select([sock], [], [], 0)[0]:
        answered.append(float(sock.recv(2048)))
print(json.dumps(answered))
"""


class Asking:
    """A program on a host that asks an echo all the time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def end(self) -> list[float]:
        """When each question was asked that was answered."""
        output, _ = self._process.communicate("\n")
        return msgspec.json.decode(output, type=list[float])


@contextmanager
def _running(host: Programs, program: str, address: str) -> Iterator[subprocess.Popen[str]]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with host.popen(sys.executable, "-c", program, address, **pipes) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@contextmanager
def _asking(host: Programs, address: str) -> Iterator[Asking]:
    with _running(host, ASK, address) as process:
        yield Asking(process)


def test_a_host_that_changes_networks_is_behind_the_other_nat_and_comes_back() -> None:
    with Lab() as lab:
        server = lab.server()
        wifi, lte = (lab.site(nat) for nat in (Nat.PORT_RESTRICTED, Nat.PORT_RESTRICTED_RANDOM))
        phone = lab.roamer(wifi)
        home, mobile = phone.uplink, phone.add(lte)
        with probe.serving(server, server.address, server.second_address):
            assert probe.mapping_of(phone, server.address, 5000).host == wifi.address
            phone.use(mobile)
            assert probe.mapping_of(phone, server.address, 5000).host == lte.address
            addresses = phone.run("ip", "-brief", "address")
            assert mobile.address is not None
            assert home.address is not None
            assert mobile.address in addresses
            assert home.address not in addresses
            phone.use(home)
            assert probe.mapping_of(phone, server.address, 5000).host == wifi.address
        assert home.address in phone.run("ip", "-brief", "address")


def test_a_change_of_networks_takes_no_longer_than_its_packets() -> None:
    """A lab whose interfaces came up late would be measured, and not what runs in it."""
    with Lab() as lab:
        server = lab.server()
        wifi, lte = (lab.site(Nat.PORT_RESTRICTED, conditions=Conditions(delay)) for delay in (0.01, 0.02))
        phone = lab.roamer(wifi)
        home, mobile = phone.uplink, phone.add(lte)
        with _running(server, ECHO, server.address), _asking(phone, server.address) as asking:
            for uplink in (mobile, home, mobile, home):
                server.run("sleep", "0.3")
                phone.use(uplink)
            server.run("sleep", "0.3")
            answered = asking.end()
    gaps = sorted(after - before for before, after in itertools.pairwise(answered))
    # Each interface comes up twice; the longest gap of all may be the machine's.
    assert gaps[-2] < 0.25


def test_an_uplink_without_ipv4_has_ipv6_alone() -> None:
    with Lab() as lab:
        server = lab.server(ipv6=True)
        old = lab.site(Nat.PORT_RESTRICTED)
        new = lab.site(Nat.PORT_RESTRICTED, ipv6=True, firewall=True)
        phone = lab.roamer(old)
        modern = phone.add(new, ipv4=False)
        assert server.ipv6 is not None
        with _running(server, ECHO, server.ipv6):
            phone.use(modern)
            with _asking(phone, server.ipv6) as asking:
                server.run("sleep", "0.3")
                assert asking.end()
        assert phone.run("ip", "-4", "route") == ""


def test_an_uplink_can_lose_ipv4_and_keep_ipv6() -> None:
    with Lab() as lab:
        server = lab.server(ipv6=True)
        phone = lab.roamer(lab.site(Nat.PORT_RESTRICTED, ipv6=True))
        phone.uplink.lose_ipv4()
        assert phone.run("ip", "-4", "route") == ""
        assert server.ipv6 is not None
        with _running(server, ECHO, server.ipv6), _asking(phone, server.ipv6) as asking:
            server.run("sleep", "0.3")
            assert asking.end()


@pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])
def test_two_sites_that_are_parted_lose_each_other_alone(ipv6: bool) -> None:
    with Lab() as lab:
        server = lab.server(ipv6=True)
        one, two = lab.site(Nat.PORT_RESTRICTED, ipv6=True), lab.site(Nat.PUBLIC, ipv6=True)
        here, there = one.host(), two.host()

        def reached(address: str) -> int:
            with _asking(here, address) as asking:
                server.run("sleep", "0.2")
                return len(asking.end())

        target, other = ((host.ipv6 or "") if ipv6 else host.address for host in (there, server))
        with _running(there, ECHO, target), _running(server, ECHO, other):
            assert reached(target)
            one.part(two)
            assert not reached(target)
            assert reached(other)
            one.rejoin(two)
            assert reached(target)


@pytest.mark.slow
def test_a_parting_is_silent() -> None:
    """Nobody is told that the other is unreachable, for as long as it takes a router to forget its neighbours."""
    with Lab() as lab:
        one, two = lab.site(Nat.PORT_RESTRICTED), lab.site(Nat.PUBLIC)
        here, there = one.host(), two.host()
        one.part(two)
        with pytest.raises(LabError, match="timed out"):
            here.run(sys.executable, "-c", CONNECTED, there.address)


# A connected UDP socket is told of ICMP errors; a neighbour that does not answer is given up after three seconds.
CONNECTED = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.connect((sys.argv[1], 7))
sock.settimeout(0.5)
for _ in range(9):
    sock.send(b"there?")
    try:
        sock.recv(100)
    except TimeoutError:
        pass
raise SystemExit("timed out")
"""
