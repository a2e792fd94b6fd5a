"""Notices of the system become changes that are told: once each, and soon."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from quice.network import LocalAddress, Monitor, NetworkChange, NetworkState, SystemWatch
from quice.network import system as system_watch
from quice.network.suspension import Clocks, Suspension
from quice.sim.simulation import Simulation

HERE, THERE = LocalAddress("192.0.2.1", "eth0"), LocalAddress("192.0.2.2", "eth0")


class Network:
    """A network that the test changes, and what was told of it."""

    def __init__(self) -> None:
        self.addresses = [HERE]
        self.looks = 0
        self.told: asyncio.Queue[NetworkChange] = asyncio.Queue()

    def look(self) -> NetworkState:
        self.looks += 1
        return NetworkState.of(self.addresses, ())


@pytest.fixture
def network() -> Network:
    return Network()


async def test_many_notices_at_once_are_one_look_and_one_change(simulation: Simulation, network: Network) -> None:
    monitor = Monitor(network.look, network.told.put_nowait)
    for _ in range(100):
        monitor.notice()
    network.addresses = [THERE]
    assert await network.told.get() == NetworkChange(added=(THERE,), removed=(HERE,))
    assert simulation.loop.time() == pytest.approx(0.01)
    await asyncio.sleep(10)
    assert (network.looks, network.told.qsize()) == (2, 0)


async def test_what_is_back_before_anybody_looks_is_no_change(simulation: Simulation, network: Network) -> None:
    monitor = Monitor(network.look, network.told.put_nowait)
    network.addresses = []
    monitor.notice()
    await asyncio.sleep(0.005)
    network.addresses = [HERE]
    monitor.notice()
    await asyncio.sleep(10)
    assert (network.looks, network.told.qsize()) == (2, 0)


async def test_a_system_that_never_stops_giving_notices_is_looked_at_twenty_times_a_second(
    simulation: Simulation, network: Network
) -> None:
    monitor = Monitor(network.look, network.told.put_nowait)
    while simulation.loop.time() < 1:
        monitor.notice()
        await asyncio.sleep(0.001)
    assert 19 <= network.looks <= 22


async def test_a_change_that_follows_another_is_told_within_a_tenth_of_a_second(
    simulation: Simulation, network: Network
) -> None:
    monitor = Monitor(network.look, network.told.put_nowait)
    network.addresses = []
    monitor.notice()
    assert (await network.told.get()).removed == (HERE,)
    network.addresses = [HERE]
    monitor.notice()
    await network.told.get()
    assert simulation.loop.time() < 0.1


async def test_nothing_is_told_after_closing(simulation: Simulation, network: Network) -> None:
    monitor = Monitor(network.look, network.told.put_nowait)
    network.addresses = [THERE]
    monitor.notice()
    monitor.close()
    await asyncio.sleep(10)
    assert network.told.empty()


class Machine:
    """A machine whose clocks the test moves."""

    def __init__(self) -> None:
        self.awake = self.always = 100.0

    def run(self, seconds: float) -> None:
        self.awake += seconds
        self.always += seconds

    def suspend(self, seconds: float) -> None:
        self.always += seconds

    @property
    def clocks(self) -> Clocks:
        return Clocks(lambda: self.awake, lambda: self.always)


def test_a_suspension_shows_once_in_the_clock_that_goes_on() -> None:
    machine = Machine()
    suspension = Suspension(machine.clocks, interval=2.0)
    machine.run(2)
    assert not suspension.is_over()
    machine.suspend(60)
    machine.run(0.1)
    assert suspension.is_over()
    machine.run(2)
    assert not suspension.is_over()


def test_a_program_that_was_stopped_is_seen_by_how_late_its_timer_is() -> None:
    machine = Machine()
    suspension = Suspension(machine.clocks, interval=2.0)
    machine.run(5)
    assert not suspension.is_over()
    machine.run(60)
    assert suspension.is_over()
    machine.run(2)
    assert not suspension.is_over()


def test_clocks_that_drift_apart_are_no_suspension() -> None:
    machine = Machine()
    suspension = Suspension(machine.clocks, interval=2.0)
    for _ in range(100_000):
        machine.run(2)
        machine.suspend(0.001)
        assert not suspension.is_over()


@pytest.fixture
def kernel() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of the socket on which notices come: ours, and the kernel's."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    with ours, its:
        yield ours, its


async def test_a_notice_of_the_kernel_has_the_network_looked_at(
    kernel: tuple[socket.socket, socket.socket], network: Network
) -> None:
    ours, its = kernel
    watch = SystemWatch(network.told.put_nowait, look=network.look, notices=lambda: ours)
    network.addresses = [THERE]
    its.send(bytes(16))
    assert (await network.told.get()).added == (THERE,)
    watch.close()
    watch.close()
    assert ours.fileno() == -1


async def test_a_notice_after_a_suspension_tells_of_it_before_the_timer_does(
    kernel: tuple[socket.socket, socket.socket], network: Network
) -> None:
    ours, its = kernel
    machine = Machine()
    watch = SystemWatch(network.told.put_nowait, look=network.look, clocks=machine.clocks, notices=lambda: ours)
    machine.suspend(60)
    its.send(bytes(16))
    assert await network.told.get() == NetworkChange(woken=True)
    watch.close()


async def test_a_suspension_is_told_of_without_any_notice(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_watch, "_INTERVAL", 0.01)
    machine = Machine()
    watch = SystemWatch(network.told.put_nowait, look=network.look, clocks=machine.clocks)
    machine.suspend(60)
    assert await network.told.get() == NetworkChange(woken=True)
    watch.close()


async def test_where_the_kernel_gives_no_notices_the_network_is_looked_at_again_and_again(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system_watch, "_INTERVAL", 0.01)
    watch = SystemWatch(network.told.put_nowait, look=network.look, notices=lambda: None)
    network.addresses = [THERE]
    assert (await network.told.get()).added == (THERE,)
    watch.close()
    looks = network.looks
    await asyncio.sleep(0.05)
    assert network.looks == looks


async def test_a_loop_that_reads_no_sockets_has_the_network_looked_at_again_and_again(
    kernel: tuple[socket.socket, socket.socket], network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(system_watch, "_INTERVAL", 0.01)
    monkeypatch.setattr(asyncio.get_running_loop(), "add_reader", refuse)
    ours, _ = kernel
    watch = SystemWatch(network.told.put_nowait, look=network.look, notices=lambda: ours)
    network.addresses = [THERE]
    assert (await network.told.get()).added == (THERE,)
    watch.close()
