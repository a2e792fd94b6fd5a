"""A peer that names somebody else's address has next to nothing sent there, whatever it does."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from quice import Connection, Endpoint, TransportConfig
from quice._native import Event
from quice.budgets import CALLERS_BURST, CALLERS_RATE, PEER_BURST, PEER_RATE, Budgets
from quice.errors import ConnectError
from quice.ice import Budget
from quice.identity import Identity
from quice.signal.messages import Answer, CandidateFound, Establish
from quice.signal.queues import signalling_pair
from quice.signal.session import MAX_CANDIDATES
from quice.sim.host import Host
from quice.sim.kinds import Nat
from quice.sim.link import Conditions
from quice.sim.packet import Fate, Packet, Passage, Protocol
from quice.sim.simulation import Simulation
from quice.sim.world import World
from quice.stun.attributes import IceControlling, Priority, UseCandidate, Username
from quice.stun.message import Kind, Message, Method
from quice.wire import Address
from tests.engine.multihomed import MultihomedPair
from tests.security.hostile import ALPN, LONG_UFRAG, PWD, Caller, lesser_than, named, restart
from tests.security.tampering import Tampering
from tests.security.victim import Victim

HEADERS = 28 / 128
"""What IP and UDP add at most: to the shortest check there is."""
FORBIDDEN = [
    Address(host, port)
    for host, port in (
        ("127.0.0.1", 8080),
        ("0.0.0.0", 80),
        ("0.1.2.3", 80),
        ("224.0.0.251", 5353),
        ("239.255.255.250", 1900),
        ("255.255.255.255", 9),
        ("240.0.0.1", 9),
        ("169.254.7.7", 80),
        ("169.254.169.254", 80),
        ("100.100.100.200", 80),
        ("192.0.0.192", 80),
        ("168.63.129.16", 80),
        ("10.0.0.1", 22),
        ("172.16.0.1", 22),
        ("192.168.1.1", 80),
        ("100.64.0.1", 22),
        ("::1", 8080),
        ("::", 80),
        ("ff02::fb", 5353),
        ("fe80::1", 80),
        ("fd00:ec2::254", 80),
        ("fd20:ce::254", 80),
        ("fd12:3456::1", 22),
        ("64:ff9b::a9fe:a9fe", 80),
        ("64:ff9b::a00:1", 22),
        ("2002:7f00:1::1", 80),
    )
]


def limit(seconds: float, burst: float = PEER_BURST, rate: float = PEER_RATE) -> float:
    """Bytes on the wire that may come to a victim within so many seconds."""
    return (burst + seconds * rate) * (1 + HEADERS)


def sent_by(world: World, host: Host) -> list[Address]:
    """Where this host sends to, from now on."""
    destinations: list[Address] = []

    def watch(passage: Passage) -> None:
        if passage.fate is Fate.SENT and passage.place == host.name:
            destinations.append(passage.packet.destination)

    world.watch(watch)
    return destinations


async def bound(host: Host, **options: object) -> Endpoint:
    """An endpoint there that knows all its candidates."""
    with host:
        endpoint = await Endpoint.bind(alpns=[ALPN], **options)  # type: ignore[arg-type]
        await asyncio.sleep(1)
    return endpoint


@pytest.mark.slow
@pytest.mark.parametrize("establish", [Establish.INITIATOR, Establish.SIMULTANEOUS], ids=lambda each: each.value)
async def test_a_peer_that_offers_sessions_without_end_has_a_fixed_amount_sent_to_a_victim(
    world: World, establish: Establish
) -> None:
    victim, target = Victim(world), world.host("target", ipv4=2)
    endpoint = await bound(target)
    caller = Caller(endpoint, lesser_than(endpoint.peer).peer)
    with target:
        await caller.call_for(60, victim.addresses(60), establish)
        await asyncio.sleep(20)
    assert caller.offers > 200
    # It is limited by the budget, not by something else.
    assert PEER_BURST < victim.bytes < limit(80)
    assert victim.most_in(10) < limit(10)


@pytest.mark.slow
async def test_a_peer_that_calls_with_ever_new_keys_has_a_fixed_amount_sent_to_a_victim(world: World) -> None:
    victim, target = Victim(world), world.host("target")
    endpoint = await bound(target)
    with target:
        for number in range(3000):
            # Any of them may be the lesser one: they open simultaneously, if they are not.
            peer = Identity(number.to_bytes(32, "big")).peer
            await Caller(endpoint, peer).call(victim.addresses(8), establish=Establish.SIMULTANEOUS)
            await asyncio.sleep(0.02)
    assert CALLERS_BURST / 2 < victim.bytes < limit(70, CALLERS_BURST, CALLERS_RATE)


@pytest.mark.slow
async def test_a_peer_that_is_called_and_names_a_victim_has_a_fixed_amount_sent_there(world: World) -> None:
    victim, target = Victim(world), world.host("target")
    endpoint = await bound(target)
    peer = Identity(bytes(32)).peer
    answers: list[asyncio.Task[None]] = []

    async def call() -> None:
        ours, theirs = signalling_pair()

        async def answer() -> None:
            await theirs.receive()
            await theirs.send(Answer(ufrag=LONG_UFRAG, pwd=PWD, candidates=named(victim.addresses(60))))

        answers.append(asyncio.create_task(answer()))
        with contextlib.suppress(ConnectError):
            await endpoint.connect(peer, alpn=ALPN, signalling=ours)

    with target:
        for _ in range(10):
            await asyncio.gather(*(call() for _ in range(20)))
    seconds = asyncio.get_running_loop().time()
    assert PEER_BURST / 2 < victim.bytes < limit(seconds)


@pytest.mark.parametrize("count", [MAX_CANDIDATES, 2000])
async def test_a_flood_of_candidates_in_one_session_has_sixty_four_of_them_checked_at_most(
    world: World, count: int
) -> None:
    victim, target = Victim(world), world.host("target")
    endpoint = await bound(target)
    with target:
        signalling = await Caller(endpoint, lesser_than(endpoint.peer).peer).call([], ufrag="abcd")
        for candidate in named(victim.addresses(count)):
            await signalling.send(CandidateFound(candidate=candidate, ufrag="abcd"))
        await asyncio.sleep(30)
    # Who names more than there may be in a session has ended it, and nothing more is checked.
    assert len(victim.ports) == 64 if count == MAX_CANDIDATES else len(victim.ports) < 64


async def test_an_address_that_answers_is_checked_as_if_there_were_no_budget(world: World) -> None:
    """What protects others costs peers nothing: a session among a hundred is as fast as the first."""
    alice, bob = world.host("alice"), world.host("bob")
    here, there = await bound(alice), await bound(bob)
    budget = here._surroundings.budgets.of(there.peer, 0.0, calls=False)
    for _ in range(100):
        ours, theirs = signalling_pair()
        with bob:
            answering = asyncio.create_task(there.respond(here.peer, theirs))
        with alice:
            connection = await here.connect(there.peer, alpn=ALPN, signalling=ours)
            await answering
            connection.close()
    assert budget.left(asyncio.get_running_loop().time()) > PEER_BURST / 2


async def test_nothing_is_sent_to_what_is_nobodys_or_only_ours(world: World) -> None:
    target = world.host("target", ipv6=1)
    endpoint = await bound(target)
    destinations = sent_by(world, target)
    with target:
        for establish in (Establish.INITIATOR, Establish.SIMULTANEOUS):
            caller = Caller(endpoint, lesser_than(endpoint.peer).peer)
            await caller.call(FORBIDDEN, establish=establish)
            await asyncio.sleep(30)
    assert destinations == []


async def test_private_addresses_are_tried_by_who_has_one(world: World) -> None:
    target = world.site("home", nat=Nat.PORT_RESTRICTED, lan="192.168.7.0/24").host("target")
    endpoint = await bound(target)
    destinations = sent_by(world, target)
    private = [address for address in FORBIDDEN if address.host in ("10.0.0.1", "172.16.0.1", "192.168.1.1")]
    with target:
        await Caller(endpoint, lesser_than(endpoint.peer).peer).call(FORBIDDEN)
        await asyncio.sleep(30)
    assert {each.host for each in destinations} == {each.host for each in private} | {"100.64.0.1"}


async def test_a_peer_that_restarts_without_end_within_a_connection_has_a_fixed_amount_sent(
    simulation: Simulation, world: World
) -> None:
    victim, target, evil = Victim(world), world.host("target"), world.host("evil")
    here, there = await bound(target), await bound(evil)
    with target:
        accepting = asyncio.create_task(here.accept())
    with evil:
        connection = await there.connect(here.peer, alpn=ALPN, address=Address(first(target), here.port))
        await accepting
        control = connection._control
        assert control is not None
        for number in range(300):
            session = control.open()
            with contextlib.suppress(ConnectError):
                await session.send(restart(victim.addresses(60), number))
            await asyncio.sleep(0.2)
            await session.close()
        assert not connection.is_closed
    assert PEER_BURST / 2 < victim.bytes < limit(60)


PRIVATE = ("10.0.0.1", 22)
PROBES = TransportConfig(nat_traversal=True)
PROBES_AT_ONCE, PROBES_IN_THE_LONG_RUN = 300, 5
MOVES_AT_ONCE, MOVES_IN_THE_LONG_RUN = 64, 1
FULL = 1228
"""The most bytes of a packet on a path that is not validated, with the headers of IP and UDP."""


@pytest.mark.parametrize("own", [("203.0.113.5", 5000), ("192.168.1.5", 5000)], ids=["public", "private"])
def test_the_engine_probes_private_addresses_only_if_it_has_one(own: tuple[str, int]) -> None:
    pair = MultihomedPair(PROBES)
    near, far = pair.connected()
    far.add_nat_traversal_address(PRIVATE)
    near.add_nat_traversal_address(own)
    pair.advance(0.1)
    near.initiate_nat_traversal_round()
    pair.advance(6.0)
    probed = [destination for _, side, destination in pair.strays if side is pair.client]
    assert probed == [] if own[0].startswith("203") else set(probed) == {PRIVATE}


def test_a_peer_has_so_many_probes_sent_however_many_connections_it_has() -> None:
    pair = MultihomedPair(PROBES)
    connections = [pair.connected()[0]]
    for _ in range(3):
        before = len(pair.server.seen(Event.Connected))
        connections.append(pair.connect())
        pair.drive(lambda before=before: len(pair.server.seen(Event.Connected)) > before)  # type: ignore[misc]
        pair.advance(0.1)
    started = pair.now
    for start in range(300):
        for number, connection in enumerate(connections):
            address = ("203.0.113.9", 1 + start * 4 + number)
            connection.add_nat_traversal_address(address)
            connection.initiate_nat_traversal_round()
            pair.advance(0.05)
            connection.remove_nat_traversal_address(address)
    seconds = pair.now - started
    probes = [size for _, side, size in pair.strays if side is pair.server]
    assert PROBES_AT_ONCE < len(probes) <= PROBES_AT_ONCE + PROBES_IN_THE_LONG_RUN * seconds + 1


def first(host: Host) -> str:
    """The host's IPv4 address."""
    return next(each.host for each in host.addresses() if each.interface != "lo" and each.ip.version == 4)


def test_a_budget_is_so_many_bytes_at_once_and_so_many_a_second() -> None:
    budget = Budget(1000, 10)
    assert budget.take(600, 0.0)
    assert not budget.take(600, 0.0)
    assert not budget.take(600, 19.0)
    assert budget.take(600, 20.0)
    budget.give_back(400)
    assert budget.take(400, 20.0)
    assert not budget.take(1, 20.0)
    assert budget.is_whole(120.0)
    assert budget.left(1e6) == 1000


def test_what_a_shared_budget_refuses_is_not_taken_from_ones_own() -> None:
    shared = Budget(100, 0)
    one, other = Budget(80, 0, shared), Budget(80, 0, shared)
    assert one.take(80, 0.0)
    assert not other.take(80, 0.0)
    assert other.left(0.0) == 80
    one.give_back(80)
    assert other.take(80, 0.0)


def test_peers_that_ask_for_nothing_any_more_are_forgotten() -> None:
    budgets = Budgets()
    for number in range(10_000):
        now = number * 0.01
        budgets.of(Identity(number.to_bytes(32, "big")).peer, now, calls=True).take(100, now)
    assert len(budgets) <= 1024


async def connected(world: World, checks: str) -> tuple[Endpoint, Connection, Connection]:
    """An endpoint, a connection that somebody who means no good has made to it, as they see it, and as it does."""
    target, evil = world.host("target"), world.host("evil", link=Conditions(delay=0.02, rate=2e7))
    here, there = await bound(target, checks=checks), await bound(evil, checks=checks)
    with target:
        accepting = asyncio.create_task(here.accept())
    with evil:
        theirs = await there.connect(here.peer, alpn=ALPN, address=Address(first(target), here.port))
    ours = await accepting
    await asyncio.sleep(1)
    return here, theirs, ours


async def test_a_peer_that_names_victims_within_a_connection_has_a_fixed_amount_sent(world: World) -> None:
    victim = Victim(world)
    _, theirs, _ = await connected(world, "quic")
    native = theirs._native
    names: list[Address] = []
    with world.hosts["evil"]:
        for number in range(600):
            for address in names:
                native.remove_nat_traversal_address(address)
            names = [Address(victim.address, 1000 + 7 * number + each) for each in range(7)]
            for address in names:
                native.add_nat_traversal_address(address)
            native.initiate_nat_traversal_round()
            theirs._pump.wake()
            await asyncio.sleep(0.1)
        await asyncio.sleep(5)
    assert not theirs.is_closed
    # Each is a path challenge that fits a small packet.
    assert 300 < len(victim.packets) <= PROBES_AT_ONCE + PROBES_IN_THE_LONG_RUN * 66
    assert max(size for _, size, _ in victim.packets) < 100


async def test_a_peer_that_writes_a_victims_address_on_its_packets_is_no_lever(world: World) -> None:
    """It is followed to where its packets come from (RFC 9000 §9), with a full packet each time that it moves."""
    victim = Victim(world)
    _, theirs, ours = await connected(world, "stun")
    forged = 0
    rng = random.Random(3)

    def forge(packet: Packet) -> list[Packet]:
        nonlocal forged
        if packet.source.host != first(world.hosts["evil"]) or rng.random() > 0.05:
            return [packet]
        forged += 1
        return [packet.between(Address(victim.address, packet.source.port), packet.destination)]

    with world.hosts["evil"]:
        asking = await theirs.open_stream()
        await asking.write(b"all of it")
    answering = await ours.accept_stream()
    Tampering(world.hosts["evil"], forge)
    with world.hosts["target"]:
        sending = asyncio.create_task(answering.write(bytes(6_000_000)))
    began = asyncio.get_running_loop().time()
    with world.hosts["evil"]:
        await asking.readexactly(6_000_000)
    await sending
    seconds = asyncio.get_running_loop().time() - began
    assert forged > 80
    # Each move there and each back counts; from the last it may not have come back.
    most = MOVES_AT_ONCE + MOVES_IN_THE_LONG_RUN * seconds + 1
    assert FULL * MOVES_AT_ONCE / 2 < victim.bytes <= FULL * most


async def test_checks_under_a_victims_address_draw_no_more_than_they_bring_and_the_budget(world: World) -> None:
    """The peer knows our password, and writes the victim's address on its checks. They are answered there, by less than
    has come; what they trigger is of its budget."""
    victim, target = Victim(world), world.host("target")
    endpoint = await bound(target)
    there = Address(first(target), endpoint.port)
    sent = 0
    with target:
        for call in range(4):
            caller = Caller(endpoint, lesser_than(endpoint.peer).peer)
            signalling = await caller.call([], ufrag=LONG_UFRAG, establish=Establish.SIMULTANEOUS)
            answer = await signalling.receive()
            assert isinstance(answer, Answer)
            for number in range(2000):
                request = Message(
                    Method.BINDING,
                    Kind.REQUEST,
                    (call * 10_000 + number).to_bytes(12, "big"),
                    (Username(f"{answer.ufrag}:u"), Priority(1_800_000_000), IceControlling(1), UseCandidate()),
                )
                source = Address(victim.address, 1000 + number % 50)
                packet = Packet(Protocol.UDP, source, there, request.encode(answer.pwd.encode()), sender="evil")
                sent += packet.size
                world.internet.from_inside(packet)
                await asyncio.sleep(0.005)
    answers = sum(size for _, size, data in victim.packets if data[:2] == b"\1\1")
    assert 0 < answers < sent
    assert 10_000 < victim.bytes - answers < limit(50)
