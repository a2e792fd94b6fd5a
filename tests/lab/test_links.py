"""The weather on a lab's links: late, lost and in order, as was asked."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest

from lab.ground import available
from lab.link import Conditions
from lab.network import Lab
from lab.site import Host
from quice.sim.kinds import Nat

UNAVAILABLE = available()
pytestmark = [pytest.mark.lab, pytest.mark.skipif(UNAVAILABLE is not None, reason=str(UNAVAILABLE))]

DELAY = 0.025

# Datagrams to an echo, each with its number and, for UDP GSO, several in one call; prints what came back and when.
ECHO = """
import socket, sys
sock = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
sock.bind((sys.argv[1], 7))
print("ready", flush=True)
while True:
    sock.sendto(*sock.recvfrom(2048))
"""
ASK = """
import json, select, socket, sys, time
address, count, pause, segments = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
sock.connect((address, 7))
if segments > 1:
    sock.setsockopt(socket.IPPROTO_UDP, 103, 100)
answers, sent = [], []

def take(seconds):
    until = time.perf_counter() + seconds
    while (left := until - time.perf_counter()) > 0:
        if select.select([sock], [], [], left)[0]:
            number = int(sock.recv(2048))
            answers.append((number, time.perf_counter() - sent[number]))

for batch in range(count):
    numbers = range(batch * segments, (batch + 1) * segments)
    sent += [time.perf_counter()] * segments
    sock.send(b"".join(b"%-100d" % number for number in numbers))
    take(pause)
take(0.5)
print(json.dumps(answers))
"""


@contextmanager
def _running(host: Host, program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A program on a host, once it has said that it is ready."""
    with host.popen(sys.executable, "-c", program, *arguments, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def _round_trips(
    one: Host, two: Host, *, count: int, pause: float, segments: int = 1, ipv6: bool = False
) -> list[tuple[int, float]]:
    """Numbers and seconds of the datagrams that came back."""
    address = (two.ipv6 or "") if ipv6 else two.address
    with _running(two, ECHO, address):
        output = one.run(sys.executable, "-c", ASK, address, str(count), str(pause), str(segments))
    return msgspec.json.decode(output, type=list[tuple[int, float]])


LISTEN = """
import socket, sys
listener = socket.create_server((sys.argv[1], 80))
print("ready", flush=True)
connection, _ = listener.accept()
print(sum(map(len, iter(lambda: connection.recv(65536), b""))), flush=True)
"""
SEND = """
import socket, sys
with socket.create_connection((sys.argv[1], 80)) as connection:
    connection.sendall(bytes(int(sys.argv[2])))
"""


def _send_by_tcp(one: Host, two: Host, size: int) -> int:
    """How much of it arrived."""
    with _running(two, LISTEN, two.address) as listener:
        one.run(sys.executable, "-c", SEND, two.address, str(size))
        assert listener.stdout is not None
        return int(listener.stdout.readline())


def _sorted_times(answers: list[tuple[int, float]]) -> list[float]:
    return sorted(seconds for _, seconds in answers)


def test_a_delay_is_there_each_way_and_precise() -> None:
    with Lab() as lab:
        one = lab.site(Nat.PORT_RESTRICTED, conditions=Conditions(DELAY)).host()
        two = lab.site(Nat.PUBLIC, conditions=Conditions(DELAY)).host()
        times = _sorted_times(_round_trips(one, two, count=20, pause=0.11))
    assert len(times) == 20
    assert times[0] >= 4 * DELAY
    # The quickest cost under 0.5 ms for each crossing; the rest is what a busy machine makes of it.
    assert times[0] < 4 * (DELAY + 0.0005)


def test_neighbours_are_found_undelayed() -> None:
    """Else the first packet would take twice its time: ARP and IPv6 neighbour discovery come before it."""
    with Lab() as lab:
        one = lab.site(Nat.PUBLIC, ipv6=True, conditions=Conditions(DELAY)).host()
        two = lab.site(Nat.PUBLIC, ipv6=True).host()
        for ipv6 in (False, True):
            (_, first), *_ = _round_trips(one, two, count=1, pause=0.1, ipv6=ipv6)
            assert 2 * DELAY <= first < 3 * DELAY


def test_jitter_makes_packets_later_and_changes_no_order() -> None:
    jitter = 0.01
    with Lab() as lab:
        one = lab.site(Nat.PUBLIC, conditions=Conditions(DELAY, jitter)).host()
        two = lab.site(Nat.PUBLIC).host()
        answers = _round_trips(one, two, count=200, pause=0.002)
    times = _sorted_times(answers)
    assert [number for number, _ in answers] == list(range(200))
    assert times[0] >= 2 * DELAY
    assert times[-1] - times[0] > jitter


@pytest.mark.parametrize("segments", [1, 10])
def test_packets_are_lost_as_often_as_was_asked_and_each_on_its_own(segments: int) -> None:
    """Ten in one call of the program are one buffer in the kernel, and still ten packets."""
    with Lab() as lab:
        one = lab.site(Nat.PUBLIC, conditions=Conditions(loss=0.2)).host()
        two = lab.site(Nat.PUBLIC).host()
        answers = _round_trips(one, two, count=1000 // segments, pause=0.001 * segments, segments=segments)
    # Each packet crosses the link twice: 0.8² of 1000 come back, with a standard deviation of 15.2.
    assert abs(len(answers) - 640) < 5 * 15.2
    if segments > 1:
        batches = {number // segments for number, _ in answers}
        assert len(batches) > 0.9 * 100


def test_tcp_crosses_a_delayed_link_with_its_checksums() -> None:
    """What leaves a program as one large segment, and without a checksum, arrives as packets that have one."""
    with Lab() as lab:
        one = lab.site(Nat.PORT_RESTRICTED, conditions=Conditions(0.001)).host()
        server = lab.server(conditions=Conditions(0.001))
        assert _send_by_tcp(one, server, 5_000_000) == 5_000_000


def test_a_cut_link_loses_everything_in_silence_until_it_is_restored() -> None:
    for conditions in (Conditions(), Conditions(0.005)):
        with Lab() as lab:
            one = lab.site(Nat.PUBLIC, conditions=conditions).host()
            two = lab.server()
            assert len(_round_trips(one, two, count=1, pause=0.05)) == 1
            one.link.cut()
            assert "state UP" in one.run("ip", "link", "show", "eth0")
            assert _round_trips(one, two, count=3, pause=0.05) == []
            one.link.restore()
            assert len(_round_trips(one, two, count=1, pause=0.05)) == 1


def test_a_link_can_stop_carrying_udp_alone() -> None:
    with Lab() as lab:
        one, server = lab.site(Nat.PUBLIC).host(), lab.server()
        one.link.block_udp()
        assert _round_trips(one, server, count=3, pause=0.05) == []
        assert _send_by_tcp(one, server, 1000) == 1000
