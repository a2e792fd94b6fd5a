"""The kernel's own notices, in namespaces: every change is told of within a tenth of a second, and no other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lab.ground import available
from lab.network import Lab
from lab.site import Host
from quice.sim.kinds import Nat

UNAVAILABLE = available()
pytestmark = [pytest.mark.lab, pytest.mark.skipif(UNAVAILABLE is not None, reason=str(UNAVAILABLE))]

SOON = 0.1
# Prints each change, and when it was told, on the clock that all processes share.
WATCH = """
import asyncio, dataclasses, json, time
from quice.machine import this_machine

def tell(change):
    print(json.dumps([time.monotonic(), dataclasses.asdict(change)]), flush=True)

async def main():
    watch = this_machine().watch(tell)
    print("ready", flush=True)
    await asyncio.get_running_loop().create_future()

asyncio.run(main())
"""


class Watching:
    """A program on a host that watches its network."""

    def __init__(self, host: Host, process: subprocess.Popen[str]) -> None:
        self.host = host
        self.pid = process.pid
        self._process = process

    def ip(self, *commands: str) -> dict[str, Any]:
        """Change the network, and return the change that is told."""
        for command in commands:
            self.host.run("ip", *command.split())
        done = time.monotonic()
        told, change = self.next()
        assert told - done < SOON
        return change

    def next(self) -> tuple[float, dict[str, Any]]:
        """The next change, and when it was told."""
        assert self._process.stdout is not None
        told, change = json.loads(self._process.stdout.readline())
        addresses = {key: [each["host"] for each in change[key]] for key in ("added", "removed")}
        return told, {key: value for key, value in (change | addresses).items() if value}


@contextmanager
def watching(host: Host) -> Iterator[Watching]:
    process = host.popen(sys.executable, "-c", WATCH, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield Watching(host, process)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_addresses_that_come_and_go_are_told_of() -> None:
    with Lab() as lab, watching(lab.site(Nat.FULL_CONE, ipv6=True).host()) as watch:
        assert watch.ip("addr add 10.1.2.3/24 dev eth0") == {"added": ["10.1.2.3"]}
        assert watch.ip("addr del 10.1.2.3/24 dev eth0") == {"removed": ["10.1.2.3"]}
        assert watch.ip("addr add 2001:db8:7::7/64 dev eth0 nodad")["added"] == ["2001:db8:7::7"]


def test_an_interface_that_goes_down_takes_its_addresses_with_it_and_brings_them_back() -> None:
    with Lab() as lab:
        host = lab.site(Nat.FULL_CONE).host()
        with watching(host) as watch:
            gone = watch.ip("link set eth0 down")
            assert gone == {"removed": [host.address], "default_route": True}
            assert watch.ip("link set eth0 up") == {"added": [host.address]}


def test_a_cable_that_is_unplugged_takes_its_addresses_with_it() -> None:
    with Lab() as lab:
        host = lab.site(Nat.FULL_CONE).host()
        host.run("ip", "link", "add", "wire", "type", "veth", "peer", "name", "far")
        host.run("ip", "addr", "add", "10.1.2.3/24", "dev", "wire")
        host.run("ip", "link", "set", "wire", "up")
        with watching(host) as watch:
            assert watch.ip("link set far up") == {"added": ["10.1.2.3"]}
            assert watch.ip("link set far down") == {"removed": ["10.1.2.3"]}


def test_another_default_route_is_told_of() -> None:
    with Lab() as lab:
        host = lab.site(Nat.FULL_CONE).host()
        host.run("ip", "route", "add", "10.9.0.0/16", "dev", "eth0")
        with watching(host) as watch:
            assert watch.ip("route replace default via 10.9.0.1 dev eth0 onlink") == {"default_route": True}
            assert watch.ip("route del default") == {"default_route": True}


def test_moving_to_another_network_is_told_of_as_one_change() -> None:
    with Lab() as lab:
        host = lab.site(Nat.FULL_CONE).host()
        host.join(lab.network("vpn", "10.7.0"), "vpn0")
        with watching(host) as watch:
            both = "link set eth0 down", "route add default via 10.7.0.1"
            host.run("sh", "-c", " && ".join(f"ip {command}" for command in both))
            seen: dict[str, Any] = {}
            while seen.get("removed") != [host.address] or "default_route" not in seen:
                seen |= watch.next()[1]


def test_what_changes_no_usable_address_and_no_default_route_is_not_told_of() -> None:
    with Lab() as lab:
        host = lab.site(Nat.FULL_CONE, ipv6=True).host()
        with watching(host) as watch:
            for command in (
                f"addr change {host.ipv6}/64 dev eth0 valid_lft 3000 preferred_lft 2000",
                "link add cable type veth peer name other",
                "link set cable up",
                "link set other up",
                "route add 10.9.0.0/16 dev eth0",
                "link set eth0 mtu 1400",
            ):
                host.run("ip", *command.split())
            time.sleep(2 * SOON)
            assert watch.ip("addr add 10.1.2.3/24 dev eth0") == {"added": ["10.1.2.3"]}


def test_an_address_is_told_of_once_it_can_be_sent_from() -> None:
    with Lab() as lab:
        host = lab.site(Nat.FULL_CONE, ipv6=True).host()
        host.run("sysctl", "-qw", "net.ipv6.conf.eth0.accept_dad=1")
        with watching(host) as watch:
            host.run("ip", "addr", "add", "2001:db8:7::7/64", "dev", "eth0")
            began = time.monotonic()
            told, change = watch.next()
            assert change["added"] == ["2001:db8:7::7"]
            assert told - began > SOON
            host.run(sys.executable, "-c", "import socket; socket.socket(10, 2).bind(('2001:db8:7::7', 0))")


@pytest.mark.slow
def test_a_program_that_was_stopped_for_long_is_told_that_it_has_woken() -> None:
    with Lab() as lab, watching(lab.site(Nat.FULL_CONE).host()) as watch:
        os.kill(watch.pid, signal.SIGSTOP)
        time.sleep(13)
        os.kill(watch.pid, signal.SIGCONT)
        continued = time.monotonic()
        told, change = watch.next()
        assert change == {"woken": True}
        assert told - continued < SOON
