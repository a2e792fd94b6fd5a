"""What programs see of a simulated host: its names, its datagrams, its sleep."""

from __future__ import annotations

import asyncio
import socket

import pytest

from quice.machine import this_machine
from quice.sim.clock import NowhereError
from quice.sim.host import Host
from quice.sim.link import Conditions
from quice.sim.simulation import Simulation
from quice.sim.world import World
from tests.sim.clock import HeapClock
from tests.sim.sockets import address

NEAR = Conditions(delay=0.02)


class Inbox(asyncio.DatagramProtocol):
    """Keeps what it gets, from whom, and on which machine."""

    def __init__(self) -> None:
        self.received: list[tuple[bytes, tuple[str, int], str]] = []
        self.errors: list[Exception] = []
        self.ended = False

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.received.append((data, addr, _here()))

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True


def _here() -> str:
    machine = this_machine()
    assert hasattr(machine, "host")
    name: str = machine.host.name
    return name


@pytest.fixture
def world(simulation: Simulation) -> World:
    return simulation.world


@pytest.fixture
def alice(world: World) -> Host:
    return world.host("alice", link=NEAR)


@pytest.fixture
def bob(world: World) -> Host:
    return world.host("bob", ipv6=1, link=NEAR)


async def inbox(
    host: Host, local: tuple[str, int] | None = None, remote: tuple[str, int] | None = None
) -> tuple[asyncio.DatagramTransport, Inbox]:
    with host:
        loop = asyncio.get_running_loop()
        return await loop.create_datagram_endpoint(Inbox, local_addr=local, remote_addr=remote)


async def test_datagrams_arrive_in_the_context_of_their_receiver(alice: Host, bob: Host) -> None:
    sender, _ = await inbox(alice)
    _, received = await inbox(bob, ("0.0.0.0", 9))
    with alice:
        sender.sendto(b"hello", (address(bob), 9))
        await asyncio.sleep(1)
    assert received.received == [(b"hello", (address(alice), sender.get_extra_info("sockname")[1]), "bob")]


async def test_a_connected_endpoint_hears_only_its_peer(alice: Host, bob: Host) -> None:
    peer, answers = await inbox(bob, (address(bob), 9))
    stranger, _ = await inbox(bob)
    connected, heard = await inbox(alice, remote=(address(bob), 9))
    connected.sendto(b"hello")
    await asyncio.sleep(1)
    _, source, _ = answers.received[0]
    stranger.sendto(b"from a stranger", source)
    peer.sendto(b"from the peer", source)
    await asyncio.sleep(1)
    assert [data for data, *_ in heard.received] == [b"from the peer"]


async def test_an_endpoint_without_a_peer_needs_a_destination(alice: Host) -> None:
    transport, _ = await inbox(alice)
    with pytest.raises(ValueError, match="no destination"):
        transport.sendto(b"hello")


async def test_what_can_not_be_sent_is_told_and_what_is_closed_sends_nothing(alice: Host, bob: Host) -> None:
    transport, told = await inbox(alice)
    transport.sendto(bytes(70_000), (address(bob), 9))
    assert isinstance(told.errors[0], OSError)
    transport.close()
    transport.sendto(b"too late", (address(bob), 9))
    await asyncio.sleep(0)
    assert told.ended
    assert transport.is_closing()
    again, _ = await inbox(alice, transport.get_extra_info("sockname"))
    assert again.get_extra_info("sockname") == transport.get_extra_info("sockname")


async def test_hosts_know_each_other_by_name(alice: Host, bob: Host) -> None:
    loop = asyncio.get_running_loop()
    with alice:
        found = [(family, name[:2]) for family, *_, name in await loop.getaddrinfo("bob", 80)]
        assert found == [(socket.AF_INET, (address(bob), 80)), (socket.AF_INET6, (address(bob, version=6), 80))]
        assert [name[0] for *_, name in await loop.getaddrinfo("192.0.2.7", 80)] == ["192.0.2.7"]
        with pytest.raises(socket.gaierror, match="no host 'carol'"):
            await loop.getaddrinfo("carol", 80)


async def test_a_sleeping_host_hears_nothing_and_its_timers_wait(
    simulation: Simulation, alice: Host, bob: Host
) -> None:
    sender, _ = await inbox(alice)
    _, received = await inbox(bob, ("0.0.0.0", 9))
    loop = simulation.loop
    woken: list[tuple[str, float]] = []

    async def alarm(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        woken.append((name, loop.time()))

    for name, seconds in (("late", 50), ("third", 5), ("second", 3), ("first", 1)):
        bob.start(alarm(name, seconds))
    cancelled = bob.start(alarm("cancelled", 4))
    alice.start(alarm("alice", 4))
    await asyncio.sleep(2)
    bob.sleep()
    sender.sendto(b"asleep", (address(bob), 9))
    await asyncio.sleep(8)
    assert woken == [("first", 1), ("alice", 4)]
    cancelled.cancel()
    bob.wake()
    sender.sendto(b"awake", (address(bob), 9))
    await asyncio.sleep(50)
    assert woken[2:] == [("second", 10), ("third", 10), ("late", 50)]
    assert [data for data, *_ in received.received] == [b"awake"]


async def test_a_host_can_be_entered_in_another_and_by_many_tasks(alice: Host, bob: Host) -> None:
    seen: list[str] = []

    async def visit(host: Host, seconds: float) -> None:
        with host:
            await asyncio.sleep(seconds)
            seen.append(_here())

    with alice:
        with bob, alice:
            assert _here() == "alice"
        await asyncio.gather(visit(bob, 1), visit(bob, 2), visit(alice, 3))
        assert _here() == "alice"
        await asyncio.create_task(visit(bob, 1))
        assert _here() == "alice"
    assert seen == ["bob", "bob", "alice", "bob"]
    with pytest.raises(NowhereError):
        _here()


def test_programs_run_only_in_a_simulation() -> None:
    host = World(seed=1, clock=HeapClock()).host("alice")
    with pytest.raises(RuntimeError, match="only on hosts of a Simulation's world"), host:
        pass


async def fail() -> None:
    raise OSError("the disk is full")


def test_a_program_that_fails_fails_the_run(simulation: Simulation, alice: Host) -> None:
    async def main() -> None:
        alice.start(fail())
        await asyncio.sleep(1)

    with pytest.raises(OSError, match="the disk is full"):
        simulation.run(main())
    simulation.run(asyncio.sleep(1))


def test_a_program_whose_failure_is_awaited_does_not(simulation: Simulation, alice: Host) -> None:
    async def main() -> bool:
        with pytest.raises(OSError, match="the disk is full"):
            await alice.start(fail())
        alice.start(asyncio.sleep(1)).cancel()
        await asyncio.sleep(1)
        return True

    assert simulation.run(main())


def test_two_machines_roll_different_dice_and_each_the_same_again() -> None:
    def roll(seed: int) -> list[float]:
        with Simulation(seed) as simulation:
            return [simulation.world.host(name).machine.random.random() for name in ("alice", "bob")]

    assert roll(1) == roll(1)
    assert len({*roll(1), *roll(2)}) == 4
