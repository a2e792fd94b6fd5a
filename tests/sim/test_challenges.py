"""Checks by QUIC itself: a connection that begins on a detour becomes direct, and a peer can't abuse that."""

from __future__ import annotations

import asyncio
import bisect
import contextlib
from collections.abc import AsyncIterator, Iterable

import pytest

from quice import Connection, Endpoint, PathKind, _native
from quice.challenges import Challenged, Challenger
from quice.ice import CandidateKind
from quice.server import Server
from quice.server.relay import NO_RELAY, RelaySettings
from quice.sim.host import Host
from quice.sim.kinds import Nat
from quice.sim.link import Conditions
from quice.sim.machine import SimMachine
from quice.sim.nat import Hairpinning, NatBehaviour
from quice.sim.packet import Fate, Passage, Protocol
from quice.sim.simulation import Simulation
from quice.stun.discovery import Behaviour
from quice.wire import Address
from tests.sim.sockets import address
from tests.sim.test_paths import echo, longest_pause

ALPN = "challenges/1"
NEAR = Conditions(delay=0.02)
FAR = Conditions(delay=0.075)
STUN_PORT = 3478


@contextlib.asynccontextmanager
async def endpoints(
    server: Host,
    one: Host,
    two: Host,
    *,
    checks: tuple[str, str] = ("quic", "quic"),
    relay: RelaySettings = NO_RELAY,
) -> AsyncIterator[tuple[Endpoint, Endpoint]]:
    """Two endpoints that know their public addresses."""
    async with contextlib.AsyncExitStack() as stack:
        with server:
            service = await stack.enter_async_context(Server(relay=relay))
        made: list[Endpoint] = []
        for machine, kind in zip((one, two), checks, strict=True):
            with machine:
                bind = Endpoint.bind(server=service.url, alpns=[ALPN], checks=kind)  # type: ignore[arg-type]
                made.append(await stack.enter_async_context(bind))
        await asyncio.sleep(2)
        yield made[0], made[1]


@contextlib.asynccontextmanager
async def connected(near: Endpoint, far: Endpoint, to: Address) -> AsyncIterator[tuple[Connection, Connection]]:
    """A connection straight to an address, as each side sees it."""
    with on(near):
        connection = await near.connect(far.peer, alpn=ALPN, address=to)
    with on(far):
        yield connection, await far.accept()


def on(endpoint: Endpoint) -> Host:
    """The host that an endpoint is on."""
    machine = endpoint._surroundings._machine
    assert isinstance(machine, SimMachine)
    return machine.host


class Detour:
    """Two homes behind NATs, whose hosts are in one VPN too: the long way round."""

    def __init__(self, seed: int = 3) -> None:
        self.simulation = Simulation(seed)
        world = self.simulation.world
        self.server = world.host("server")
        # A NAT of its own, whose public address is one more way that is no shorter.
        vpn = world.site("vpn", nat=Nat.PORT_RESTRICTED, lan="10.8.0.0/24")
        self.hosts: list[Host] = []
        for name in ("alice", "bob"):
            host = world.site(f"{name}'s", nat=Nat.PORT_RESTRICTED, uplink=NEAR).host(name, interface="wlan0")
            vpn.join(host, "tun0", metric=10, link=FAR)
            self.hosts.append(host)
        self.alice, self.bob = (host for host in self.hosts)

    def external(self, name: str) -> str:
        """The public address of this one's home."""
        return self.simulation.world.sites[f"{name}'s"].external[0]


def ways(connection: Connection) -> list[tuple[str, str]]:
    """The peer's address of each path, and its status."""
    return [(path.remote.host, path.status) for path in connection.paths]


async def settled(connection: Connection, remote: str, within: float) -> float:
    """How long it takes until data goes to this address of the peer's."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    while [path.remote.host for path in connection.paths if path.status == "available"] != [remote]:
        assert loop.time() < started + within, connection.paths
        await asyncio.sleep(0.005)
    return loop.time() - started


async def drain(connection: Connection, gaps: list[float]) -> bytes:
    """Read the peer's stream to its end, and note how long nothing came each time."""
    loop = asyncio.get_running_loop()
    stream = await connection.accept_stream()
    received, last = bytearray(), loop.time()
    while data := await stream.read():
        gaps.append(loop.time() - last)
        last = loop.time()
        received += data
    return bytes(received)


def test_a_connection_through_a_vpn_becomes_direct_without_a_pause() -> None:
    place = Detour()
    data = bytes(range(256)) * 8192

    async def main() -> tuple[float, list[float]]:
        async with (
            endpoints(place.server, place.alice, place.bob) as (near, far),
            connected(near, far, Address(address(place.bob, index=1), far.port)) as (here, there),
        ):
            gaps: list[float] = []
            reading = asyncio.create_task(drain(there, gaps))
            stream = await here.open_stream(unidirectional=True)
            writing = asyncio.create_task(stream.write(data))
            took = await settled(here, place.external("bob"), within=2)
            await writing
            stream.finish()
            assert await reading == data
            await asyncio.sleep(5)
            assert ways(here) == [(place.external("bob"), "available")]
            assert ways(there) == [(place.external("alice"), "available")]
            return took, gaps[1:]

    with place.simulation:
        took, gaps = place.simulation.run(main())
    # Two round trips of the old path at most: the peer's addresses come, and a round through its NAT goes.
    assert took < 0.6
    # Of the old path's round trip, which paces what is sent.
    assert max(gaps) < 0.35


def test_an_acknowledgement_that_is_sent_last_raises_no_suspicion() -> None:
    place = Detour()
    late: list[Passage] = []
    vpn = address(place.bob, index=1)

    def watch(passage: Passage) -> None:
        if passage.fate is Fate.SENT and passage.packet.destination.host == vpn:
            late.append(passage)

    place.simulation.world.watch(watch)

    async def main() -> None:
        async with (
            endpoints(place.server, place.alice, place.bob) as (near, far),
            connected(near, far, Address(vpn, far.port)) as (here, there),
        ):
            await settled(here, place.external("bob"), within=2)
            # What one round lasts.
            await asyncio.sleep(5)
            late.clear()
            for _ in range(25):
                there.send_datagram(b"at another moment between two looks each time")
                await asyncio.sleep(2.52)
            assert not late
            assert ways(here) == [(place.external("bob"), "available")]

    with place.simulation:
        place.simulation.run(main())


def test_what_is_asked_and_answered_is_not_held_up_by_the_move() -> None:
    place = Detour()

    async def main() -> tuple[float, float]:
        async with (
            endpoints(place.server, place.alice, place.bob) as (near, far),
            connected(near, far, Address(address(place.bob, index=1), far.port)) as (here, there),
        ):
            answering = asyncio.create_task(echo(there))
            during = await longest_pause(here, 3)
            after = await longest_pause(here, 3)
            answering.cancel()
            return during, after

    with place.simulation:
        during, after = place.simulation.run(main())
    assert during < 0.32
    assert after < 0.1


def test_the_long_way_is_taken_again_when_the_direct_one_falls_silent() -> None:
    place = Detour()

    async def main() -> float:
        vpn = address(place.bob, index=1)
        async with (
            endpoints(place.server, place.alice, place.bob) as (near, far),
            connected(near, far, Address(vpn, far.port)) as (here, there),
        ):
            answering = asyncio.create_task(echo(there))
            await settled(here, place.external("bob"), within=2)
            place.simulation.world.sites["bob's"].link.change(Conditions(loss=1.0))
            pause = await longest_pause(here, 10)
            assert ways(here) == [(vpn, "available")]
            answering.cancel()
            return pause

    with place.simulation:
        assert place.simulation.run(main()) < 4.0


def test_neighbours_who_met_at_their_public_address_find_each_other_on_their_lan() -> None:
    simulation = Simulation(seed=5)
    cone = NatBehaviour(
        Behaviour.ENDPOINT_INDEPENDENT, Behaviour.ENDPOINT_INDEPENDENT, hairpinning=Hairpinning.EXTERNAL_SOURCE
    )
    site = simulation.world.site("home", nat=cone, uplink=NEAR)
    server = simulation.world.host("server")
    alice, bob = (site.host(name) for name in ("alice", "bob"))

    async def main() -> float:
        async with endpoints(server, alice, bob) as (near, far):
            public = next(
                each.address for each in far._surroundings.discovery.candidates if each.kind is not CandidateKind.HOST
            )
            assert public.host == site.external[0]
            async with connected(near, far, public) as (here, there):
                assert [path.kind for path in here.paths] == [PathKind.DIRECT]
                answering = asyncio.create_task(echo(there))
                pause = await longest_pause(here, 3)
                assert [path.kind for path in here.paths] == [PathKind.LAN]
                assert ways(here) == [(address(bob), "available")]
                assert ways(there) == [(address(alice), "available")]
                answering.cancel()
                return pause

    with simulation:
        assert simulation.run(main()) < 0.1


def test_with_signalling_stun_finds_the_first_way_and_sends_no_more() -> None:
    place = Detour()
    stun: list[Passage] = []

    def watch(passage: Passage) -> None:
        packet = passage.packet
        peers = packet.sender in ("alice", "bob") and packet.destination.port != STUN_PORT
        if passage.fate is Fate.SENT and peers and packet.protocol is Protocol.UDP and packet.data[0] < 4:
            stun.append(passage)

    place.simulation.world.watch(watch)

    async def main() -> None:
        async with endpoints(place.server, place.alice, place.bob) as (near, far):
            with place.alice:
                here = await near.connect(far.peer, alpn=ALPN)
            with place.bob:
                there = await far.accept()
            await asyncio.sleep(1)
            assert stun
            stun.clear()
            await asyncio.sleep(60)
            assert not stun
            assert not near._surroundings._receivers
            assert not far._surroundings._receivers
            assert ways(here) == [(place.external("bob"), "available")]
            assert ways(there) == [(place.external("alice"), "available")]
            assert here.report is not None

    with place.simulation:
        place.simulation.run(main())


@pytest.mark.parametrize("checks", [("quic", "stun"), ("stun", "quic"), ("stun", "stun")])
def test_unless_both_sides_want_it_stun_finds_the_better_way(checks: tuple[str, str]) -> None:
    place = Detour()

    async def main() -> None:
        vpn = address(place.bob, index=1)
        async with endpoints(place.server, place.alice, place.bob, checks=checks) as (near, far):
            async with connected(near, far, Address(vpn, far.port)) as (here, there):
                await asyncio.sleep(10)
                assert ways(here) == [(place.external("bob"), "available")]
                for connection in (here, there):
                    with pytest.raises(_native.NatTraversalRefused, match="not negotiated"):
                        connection._native.add_nat_traversal_address(("203.0.113.9", 1))
            with place.alice:
                await near.connect(far.peer, alpn=ALPN)
            with place.bob:
                await far.accept()
            await asyncio.sleep(1)
            # Sessions go on, and look after their connections' paths.
            assert len(near._surroundings._receivers) == len(far._surroundings._receivers) == 2

    with place.simulation:
        place.simulation.run(main())


FORBIDDEN = [
    Address("127.0.0.1", 5000),
    Address("169.254.169.254", 80),
    Address("100.100.100.200", 80),
    Address("224.0.0.251", 5353),
    Address("255.255.255.255", 5000),
    Address("0.0.0.0", 5000),
    Address("169.254.7.7", 5000),
    Address("240.0.0.1", 5000),
]
PROBES_PER_SECOND = 50
PROBES_AT_ONCE, PROBES_IN_THE_LONG_RUN = 300, 5


def named(connection: Connection) -> list[Address]:
    """What this side has named by itself."""
    assert isinstance(connection._paths, Challenger | Challenged)
    return list(connection._paths._naming._named)


def rename(connection: Connection, before: Iterable[Address], names: list[Address]) -> list[Address]:
    """Have this side name these addresses and no others any more, and make the most of it."""
    native = connection._native
    for each in before:
        native.remove_nat_traversal_address(each)
    for each in names:
        native.add_nat_traversal_address(each)
    with contextlib.suppress(_native.NatTraversalRefused):
        native.initiate_nat_traversal_round()
    connection._pump.wake()
    return names


@pytest.mark.parametrize("hostile", ["client", "server"])
def test_a_peer_that_names_loopback_metadata_and_multicast_has_nothing_sent_there(hostile: str) -> None:
    place = Detour()
    sent: list[Address] = []
    victim = "bob" if hostile == "client" else "alice"

    def watch(passage: Passage) -> None:
        if passage.fate is Fate.SENT and passage.packet.sender == victim:
            sent.append(passage.packet.destination)

    place.simulation.world.watch(watch)

    async def main() -> None:
        async with (
            endpoints(place.server, place.alice, place.bob) as (near, far),
            connected(near, far, Address(address(place.bob, index=1), far.port)) as (here, there),
        ):
            evil, good = (here, there) if hostile == "client" else (there, here)
            rename(evil, named(evil), FORBIDDEN)
            await asyncio.sleep(30)
            assert good.stats.refused_probes >= 9 * len(FORBIDDEN)

    with place.simulation:
        place.simulation.run(main())
    assert not set(sent) & set(FORBIDDEN)


@pytest.mark.parametrize("hostile", ["client", "server"])
def test_a_peer_that_names_hundreds_of_addresses_has_so_many_probes_sent_in_a_second(hostile: str) -> None:
    place = Detour()
    bystander = place.simulation.world.host("bystander")
    times: list[float] = []
    victim = "bob" if hostile == "client" else "alice"

    def watch(passage: Passage) -> None:
        packet = passage.packet
        if passage.fate is Fate.SENT and packet.sender == victim and packet.destination.host == address(bystander):
            times.append(passage.time)

    place.simulation.world.watch(watch)

    async def main() -> None:
        async with (
            endpoints(place.server, place.alice, place.bob) as (near, far),
            connected(near, far, Address(address(place.bob, index=1), far.port)) as (here, there),
        ):
            evil, good = (here, there) if hostile == "client" else (there, here)
            names = named(evil)
            for start in range(100):
                names = rename(evil, names, [Address(address(bystander), 1 + 8 * start + more) for more in range(8)])
                await asyncio.sleep(0.1)
            answering = asyncio.create_task(echo(good))
            assert await longest_pause(evil, 2) < 0.7
            answering.cancel()
            assert good.stats.refused_probes > 100

    with place.simulation:
        place.simulation.run(main())
    busiest = max(index + 1 - bisect.bisect_right(times, time - 0.9999) for index, time in enumerate(times))
    assert PROBES_PER_SECOND / 2 < busiest <= PROBES_PER_SECOND
    assert len(times) <= PROBES_AT_ONCE + PROBES_IN_THE_LONG_RUN * (times[-1] - times[0])


async def test_a_connection_that_stays_on_a_relay_says_so(simulation: Simulation) -> None:
    world = simulation.world
    server = world.host("server")
    one, two = (world.site(name, nat=Nat.SYMMETRIC).host(f"at {name}") for name in ("home", "office"))
    async with endpoints(server, one, two, relay=RelaySettings()) as (near, far):
        with on(near):
            connection = await near.connect(far.peer, alpn=ALPN)
        with on(far):
            accepted = await far.accept()
        for each in (connection, accepted):
            assert each.path is not None
            assert each.path.kind is PathKind.RELAY
