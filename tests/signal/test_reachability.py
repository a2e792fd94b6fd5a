"""A peer stays registered, whatever becomes of its network and of its servers; in the simulated internet."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator

import pytest

from quice.errors import PeerUnreachableError, ServerUnreachableError
from quice.identity import Identity
from quice.machine import this_machine
from quice.server import Server
from quice.signal.messages import VERSION, Bye, Offer, Refuse, RefuseReason
from quice.signal.rendezvous import RendezvousClient
from quice.signal.sealed import RendezvousSignalling
from quice.sim.host import Host
from quice.sim.kinds import Nat
from quice.sim.link import Conditions
from quice.sim.simulation import Simulation
from quice.sim.site import Site
from quice.sim.trace import Traffic
from quice.sim.world import World

OFFER = Offer(version=VERSION, ufrag="abcd", pwd="0123456789abcdef012345", alpn="test/1")
DELAY = 0.025
RTT = 2 * DELAY
NOTICED = 0.01
"""Seconds in which a change of network is told."""


@pytest.fixture
def wifi(world: World) -> Site:
    return world.site("wifi", nat=Nat.PORT_RESTRICTED, uplink=Conditions(delay=DELAY))


@pytest.fixture
def lte(world: World) -> Site:
    return world.site("lte", nat=Nat.SYMMETRIC, uplink=Conditions(delay=DELAY))


@pytest.fixture
def phone(wifi: Site) -> Host:
    return wifi.host("phone")


class Peer:
    """A registered peer on a host, which has a look at its server whenever the network changes."""

    def __init__(self, host: Host, *urls: str) -> None:
        self.host = host
        self.sessions: asyncio.Queue[RendezvousSignalling] = asyncio.Queue()
        self.identity = Identity.generate()
        with host:
            self.client = RendezvousClient(urls, self.identity, self.sessions.put_nowait)
            self._watch = this_machine().watch(lambda _: self.check())

    def check(self, within: float | None = None) -> asyncio.Task[None]:
        return self.host.start(self._check(within))

    async def _check(self, within: float | None) -> None:
        with contextlib.suppress(ServerUnreachableError):
            await self.client.check(within)

    async def start(self) -> None:
        with self.host:
            await self.client.start()

    async def close(self) -> None:
        self._watch.close()
        with self.host:
            await self.client.close()

    async def offers_to(self, other: Peer) -> None:
        """Send an offer, which must arrive."""
        with self.host:
            await self.client.open(other.identity.peer).send(OFFER)
        assert await (await other.sessions.get()).receive() == OFFER


@contextlib.asynccontextmanager
async def peer(host: Host, *urls: str) -> AsyncIterator[Peer]:
    there = Peer(host, *urls)
    await there.start()
    try:
        yield there
    finally:
        await there.close()


async def other_registration(peer: Peer) -> None:
    """Wait until the peer is registered on another connection than now."""
    before = peer.client.registrar.registration
    while peer.client.registrar.registration in (before, None):
        await asyncio.sleep(0.001)


async def test_registering_takes_three_round_trips(simulation: Simulation, rendezvous: Server, phone: Host) -> None:
    """One for TCP; one for the WebSocket, whose answer brings the challenge; one for the registration."""
    started = simulation.loop.time()
    async with peer(phone, rendezvous.url) as one:
        assert simulation.loop.time() - started == pytest.approx(3 * RTT)
        assert one.client.is_registered


async def test_a_phone_that_changes_from_wifi_to_lte_is_registered_again_after_three_round_trips(
    simulation: Simulation, rendezvous: Server, phone: Host, wifi: Site, lte: Site
) -> None:
    async with peer(phone, rendezvous.url) as one:
        await asyncio.sleep(10)
        started = simulation.loop.time()
        lte.join(phone, "lte0")
        wifi.leave(phone)
        await other_registration(one)
        assert simulation.loop.time() - started == pytest.approx(NOTICED + 3 * RTT, abs=0.002)


async def test_a_phone_that_is_back_from_no_network_does_not_wait_for_a_back_off(
    simulation: Simulation, rendezvous: Server, phone: Host, wifi: Site
) -> None:
    async with peer(phone, rendezvous.url) as one:
        wifi.leave(phone)
        await asyncio.sleep(300)
        assert not one.client.is_registered
        started = simulation.loop.time()
        wifi.join(phone, "eth0")
        await other_registration(one)
        assert simulation.loop.time() - started == pytest.approx(NOTICED + 3 * RTT, abs=0.002)


async def test_a_connection_that_died_behind_the_router_is_replaced_once_that_is_known(
    simulation: Simulation, rendezvous: Server, phone: Host, wifi: Site
) -> None:
    """The server, asked from an address that it does not know, answers with a reset."""
    async with peer(phone, rendezvous.url) as one:
        wifi.renumber()
        started = simulation.loop.time()
        one.check()
        await other_registration(one)
        assert simulation.loop.time() - started == pytest.approx(RTT + 3 * RTT, abs=0.002)


async def test_a_server_that_answers_a_check_is_kept(
    simulation: Simulation, rendezvous: Server, phone: Host, lte: Site
) -> None:
    async with peer(phone, rendezvous.url) as one:
        before = one.client.registrar.registration
        started = simulation.loop.time()
        await one.check()
        assert simulation.loop.time() - started == pytest.approx(RTT, abs=0.002)
        lte.join(phone, "lte0")
        await asyncio.sleep(60)
        assert one.client.registrar.registration is before


async def test_a_phone_that_changes_its_network_can_be_reached_all_the_time_if_both_work(
    rendezvous: Server, world: World, phone: Host, wifi: Site, lte: Site
) -> None:
    """Make before break: with the old connection alive, no offer is lost."""
    async with peer(phone, rendezvous.url) as one, peer(world.host("other"), rendezvous.url) as other:
        lte.join(phone, "lte0", metric=-1)
        moving = asyncio.create_task(other_registration(one))
        with phone:
            one.client.registrar.renew()
        offers = 0
        while not moving.done():
            await other.offers_to(one)
            offers += 1
        await other.offers_to(one)
        assert offers >= 2


async def test_a_phone_that_changes_networks_again_and_again_ends_up_registered(
    rendezvous: Server, world: World, phone: Host, wifi: Site, lte: Site
) -> None:
    async with peer(phone, rendezvous.url) as one, peer(world.host("other"), rendezvous.url) as other:
        names = itertools.cycle([("eth0", wifi), ("lte0", lte)])
        name, _ = next(names)
        for seconds in (0.02, 0.05, 0.1, 0.11, 0.12, 0.16, 0.2, 0.5, 1, 3):
            before, (name, site) = name, next(names)
            site.join(phone, name)
            phone.unplug(before)
            await asyncio.sleep(seconds)
        await asyncio.sleep(1)
        await other.offers_to(one)


async def test_a_sleeping_laptop_is_registered_again_when_it_wakes(
    simulation: Simulation, rendezvous: Server, phone: Host
) -> None:
    async with peer(phone, rendezvous.url) as one:
        phone.sleep()
        await asyncio.sleep(600)
        assert len(rendezvous.rendezvous) == 0
        phone.wake()
        started = simulation.loop.time()
        await other_registration(one)
        assert simulation.loop.time() - started < 1


async def test_waiting_to_be_registered_ends_with_closing(rendezvous: Server, phone: Host, wifi: Site) -> None:
    async with peer(phone, rendezvous.url) as one:
        await one.client.wait_registered()
        wifi.leave(phone)
        await asyncio.sleep(120)
        with phone:
            waiting = [asyncio.create_task(one.client.wait_registered()), asyncio.create_task(one.client.check())]
        await asyncio.sleep(1)
        await one.close()
        for task in waiting:
            with pytest.raises(ServerUnreachableError, match="closed"):
                await task
        with pytest.raises(ServerUnreachableError, match="closed"):
            await one.client.check()


async def test_a_message_waits_for_a_server_that_is_back_soon_and_fails_for_one_that_is_not(
    simulation: Simulation, world: World, phone: Host
) -> None:
    host = world.host("server")
    with host:
        server = await Server().__aenter__()
    async with peer(phone, server.url) as one, peer(world.host("other"), server.url) as other:
        with host:
            await server.__aexit__(None, None, None)
        await asyncio.sleep(1)
        assert not one.client.is_registered
        with phone:
            late = one.client.open(other.identity.peer)
        started = simulation.loop.time()
        with pytest.raises(ServerUnreachableError, match="is lost"):
            await late.send(OFFER)
        assert simulation.loop.time() - started == pytest.approx(5)
        offering = asyncio.create_task(one.offers_to(other))
        await asyncio.sleep(1)
        with host:
            server = await Server().__aenter__()
        await asyncio.gather(one.check(), other.check())
        await offering


async def servers(simulation: Simulation, *delays: float) -> list[Server]:
    return [
        await simulation.server(f"server{number}", link=Conditions(delay=delay))
        for number, delay in enumerate(delays, 1)
    ]


async def test_the_first_of_several_servers_is_used_though_another_is_faster(
    simulation: Simulation, phone: Host
) -> None:
    near = await servers(simulation, 0.2, 0.0)
    async with peer(phone, *(server.url for server in near)) as one:
        assert one.client.url == near[0].url
        assert {address.host for address in one.client.stun_servers} == {near[0].stun.host}
        await asyncio.sleep(100)
        assert [len(server.rendezvous) for server in near] == [1, 0]


async def test_the_next_server_is_used_after_a_head_start_when_the_first_says_nothing(
    simulation: Simulation, world: World, phone: Host
) -> None:
    first, second = await servers(simulation, 0, 0)
    urls = first.url, second.url
    world.hosts["server1"].interfaces["eth0"].link.cut()
    started = simulation.loop.time()
    async with peer(phone, *urls) as one:
        assert simulation.loop.time() - started == pytest.approx(1 + 3 * RTT)
        assert one.client.url == second.url


async def test_the_next_server_is_used_at_once_when_the_first_is_down(simulation: Simulation, phone: Host) -> None:
    (second,) = await servers(simulation, 0)
    started = simulation.loop.time()
    async with peer(phone, f"ws://{second.stun.host}:9", second.url) as one:
        assert simulation.loop.time() - started == pytest.approx(RTT + 3 * RTT)
        assert one.client.url == second.url


async def test_a_server_that_has_died_is_left_for_the_next_and_not_gone_back_to(
    simulation: Simulation, world: World, phone: Host
) -> None:
    first, second = await servers(simulation, 0, 0)
    async with peer(phone, first.url, second.url) as one:
        with world.hosts["server1"]:
            await first.__aexit__(None, None, None)
        await asyncio.sleep(1)
        assert (one.client.url, one.client.is_registered) == (second.url, True)
        with world.hosts["server1"]:
            again = await Server().__aenter__()
        await asyncio.sleep(1000)
        assert one.client.url == second.url
        with world.hosts["server2"]:
            await second.__aexit__(None, None, None)
        await asyncio.sleep(1)
        assert (one.client.url, len(again.rendezvous)) == (first.url, 1)


async def come_at(simulation: Simulation, server: Server, count: int) -> list[float]:
    """When each of so many peers is at this server, from now on."""
    started, times = simulation.loop.time(), []
    while len(times) < count:
        await asyncio.sleep(0.005)
        times += [simulation.loop.time() - started] * (len(server.rendezvous) - len(times))
    return times


def spread(times: list[float], within: float) -> float:
    """The largest part of them that comes in a tenth of this time."""
    return max(sum(start <= time < start + within / 10 for time in times) for start in times) / len(times)


async def test_those_who_lose_a_server_that_dies_come_to_the_next_at_different_times(
    simulation: Simulation, world: World
) -> None:
    first, second = await servers(simulation, 0, 0)
    async with contextlib.AsyncExitStack() as stack:
        peers = [
            await stack.enter_async_context(peer(world.host(f"peer{number}"), first.url, second.url))
            for number in range(60)
        ]
        assert len(first.rendezvous) == len(peers)
        world.hosts["server1"].start(first.__aexit__(None, None, None))
        times = await come_at(simulation, second, len(peers))
        assert 0.2 < max(times) < 0.3
        assert spread(times, 0.25) < 0.3


async def test_those_whom_a_server_sends_away_come_to_the_next_at_different_times(
    simulation: Simulation, world: World
) -> None:
    first, second = await servers(simulation, 0, 0)
    async with contextlib.AsyncExitStack() as stack:
        peers = [
            await stack.enter_async_context(peer(world.host(f"peer{number}"), first.url, second.url))
            for number in range(60)
        ]
        first.rendezvous.leave(within=10)
        times = await come_at(simulation, second, len(peers))
        assert 8 < max(times) < 10.1
        assert spread(times, 10) < 0.3


async def test_all_servers_that_fail_are_named(simulation: Simulation, phone: Host) -> None:
    (server,) = await servers(simulation, 0)
    urls = [f"ws://{server.stun.host}:9", "ws://nowhere:4780"]
    with pytest.raises(ServerUnreachableError) as failure:
        await Peer(phone, *urls).start()
    assert all(url in str(failure.value) for url in urls)


async def test_no_server_is_a_mistake_of_the_program(phone: Host) -> None:
    with pytest.raises(ValueError, match="no rendezvous server"), phone:
        RendezvousClient([], Identity.generate(), print)


async def test_a_server_with_an_address_that_leads_nowhere_is_reached_by_its_other_one(
    simulation: Simulation, world: World
) -> None:
    with world.host("server", ipv4=2) as host:
        await Server().__aenter__()
    phone = world.site(nat=Nat.PORT_RESTRICTED, uplink=Conditions(delay=DELAY)).host("phone")
    dead, alive = (each.host for each in host.addresses() if each.interface == "eth0")
    host.change_address("eth0", f"{alive}/32")
    with phone:
        phone.machine._names = lambda name: [dead, alive] if name == "server" else []
        started = simulation.loop.time()
        client = RendezvousClient("ws://server:4780", Identity.generate(), print)
        await client.start()
        assert simulation.loop.time() - started == pytest.approx(0.25 + 3 * RTT)
        assert [address.host for address in client.stun_servers] == [dead, alive]
        await client.close()


async def test_a_name_is_not_asked_for_again_where_its_address_answers(
    simulation: Simulation, world: World, rendezvous: Server, phone: Host, wifi: Site, lte: Site
) -> None:
    async with peer(phone, "ws://server:4780") as one:
        phone.machine._names = lambda name: []
        lte.join(phone, "lte0")
        wifi.leave(phone)
        await other_registration(one)


async def test_a_server_that_has_moved_is_found_by_its_name(
    simulation: Simulation, world: World, rendezvous: Server, phone: Host
) -> None:
    async with peer(phone, "ws://server:4780") as one:
        for address, within, waited in (("203.0.113.200", None, 0.2), ("203.0.113.201", 0.06, 0.06)):
            world.hosts["server"].change_address("eth0", f"{address}/32")
            started = simulation.loop.time()
            one.check(within)
            await other_registration(one)
            # The ping, and the address that was the right one, each have their time.
            assert simulation.loop.time() - started == pytest.approx(waited + 0.25 + 3 * RTT, abs=0.002)


async def test_peers_that_lose_their_server_at_once_do_not_come_back_at_once(
    simulation: Simulation, world: World
) -> None:
    (server,) = await servers(simulation, 0)
    async with contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(peer(world.host(f"peer{n}"), server.url)) for n in range(40)]
        with world.hosts["server1"]:
            await server.__aexit__(None, None, None)
            again = await Server().__aenter__()
        lost = simulation.loop.time()
        for early, late in ((0.0, 0.125), (0.125, 0.26)):
            await asyncio.sleep(lost + late - simulation.loop.time())
            back = [each.client.registrar.registration for each in peers]
            assert sum(early < one.since - lost for one in back if one is not None) >= 10
        assert len(again.rendezvous) == len(peers)


@contextlib.asynccontextmanager
async def session(one: Peer, other: Peer) -> AsyncIterator[tuple[RendezvousSignalling, RendezvousSignalling]]:
    """A session whose offer has arrived, and nothing else yet."""
    with one.host:
        near = one.client.open(other.identity.peer)
        await near.send(OFFER)
    far = await other.sessions.get()
    assert await far.receive() == OFFER
    yield near, far
    await near.close()
    await far.close()


@pytest.mark.parametrize("seed", range(20))
def test_a_server_that_is_killed_and_restarted_between_offer_and_answer_is_not_noticed(seed: int) -> None:
    """Whichever of the two is back first."""

    async def main() -> None:
        world = simulation.world
        hosts = [world.host(name, link=Conditions(delay=DELAY)) for name in ("one", "other")]
        (server,) = await servers(simulation, 0)
        async with (
            peer(hosts[0], server.url) as one,
            peer(hosts[1], server.url) as other,
            session(one, other) as (near, far),
        ):
            killed = world.hosts["server1"]
            killed.machine.tcp.abort()
            with killed:
                await server.__aexit__(None, None, None)
                await asyncio.sleep(0.3)
                await Server().__aenter__()
            with hosts[1]:
                await far.send(Bye())
            assert await asyncio.wait_for(near.receive(), 5) == Bye()
            assert other.sessions.empty()

    with Simulation(seed) as simulation:
        simulation.run(main())


@pytest.mark.parametrize("who", ["offering", "answering", "both"])
async def test_whoever_changes_networks_between_offer_and_answer_the_answer_arrives(
    simulation: Simulation, rendezvous: Server, world: World, phone: Host, wifi: Site, lte: Site, who: str
) -> None:
    laptop = world.site("home", nat=Nat.PORT_RESTRICTED, uplink=Conditions(delay=DELAY)).host("laptop")
    async with (
        peer(phone, rendezvous.url) as one,
        peer(laptop, rendezvous.url) as other,
        session(one, other) as (near, far),
    ):
        started = simulation.loop.time()
        for host, name in ((phone, "offering"), (laptop, "answering")):
            if who in (name, "both"):
                host.move(lte)
        with laptop:
            await far.send(Bye())
        assert await near.receive() == Bye()
        assert simulation.loop.time() - started < 1.2


async def test_an_offer_to_who_has_just_changed_networks_in_silence_arrives(
    simulation: Simulation, rendezvous: Server, world: World, phone: Host, wifi: Site, lte: Site
) -> None:
    """The server still sends it to where the phone was; it is sent again."""
    async with peer(phone, rendezvous.url) as one, peer(world.host("other"), rendezvous.url) as other:
        phone.move(lte)
        started = simulation.loop.time()
        await other.offers_to(one)
        assert simulation.loop.time() - started < 1.2
        await asyncio.sleep(10)
        assert one.sessions.empty()


async def test_an_answer_reaches_who_has_closed_its_session_never_and_is_not_sent_for_ever(
    world: World, rendezvous: Server, phone: Host
) -> None:
    async with peer(phone, rendezvous.url) as one, peer(world.host("other"), rendezvous.url) as other:
        async with session(one, other) as (near, far):
            await near.close()
            await far.send(Bye())
        await asyncio.sleep(60)
        assert not one.client.sessions.lingering
        assert not other.client.sessions.lingering
        quiet = Traffic()
        world.watch(quiet)
        await asyncio.sleep(15)
        assert not quiet.packets


async def test_a_refusal_right_before_closing_arrives_though_it_is_lost(
    world: World, rendezvous: Server, phone: Host, lte: Site
) -> None:
    async with (
        peer(phone, rendezvous.url) as one,
        peer(world.host("other"), rendezvous.url) as other,
        session(one, other) as (near, far),
    ):
        phone.move(lte)
        await far.send(Refuse(reason=RefuseReason.BUSY))
        await far.close()
        assert await near.receive() == Refuse(reason=RefuseReason.BUSY)


async def test_a_goodbye_waits_for_no_server_and_arrives_when_there_is_one(
    simulation: Simulation, world: World, rendezvous: Server, phone: Host, wifi: Site
) -> None:
    async with (
        peer(phone, rendezvous.url) as one,
        peer(world.host("other"), rendezvous.url) as other,
        session(one, other) as (near, far),
    ):
        # Time for the offer to be acknowledged.
        await asyncio.sleep(1)
        wifi.leave(phone)
        await asyncio.sleep(60)
        assert not one.client.is_registered
        started = simulation.loop.time()
        with phone:
            await near.send(Bye())
            await near.close()
        assert simulation.loop.time() == started
        wifi.join(phone, "eth0")
        assert await far.receive() == Bye()


async def test_a_peer_that_is_gone_in_the_middle_of_a_session_is_named_in_the_end(
    simulation: Simulation, world: World, rendezvous: Server, phone: Host
) -> None:
    async with peer(phone, rendezvous.url) as one:
        other = Peer(world.host("other"), rendezvous.url)
        await other.start()
        async with session(one, other) as (near, far):
            await far.send(Bye())
            assert await near.receive() == Bye()
            await other.close()
            with phone:
                await near.send(Bye())
            started = simulation.loop.time()
            with pytest.raises(PeerUnreachableError, match=str(other.identity.peer)):
                await near.receive()
            assert 19 < simulation.loop.time() - started < 26
