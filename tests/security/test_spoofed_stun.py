"""STUN from somebody who is not the peer: off the path, who sees nothing, and on it, who sees all but the password."""

from __future__ import annotations

import asyncio
import random

import pytest

from fuzz.mutation import mutate
from quice import Endpoint
from quice.ice import Base, CandidateKind, Gathered, Gatherer, PairState, Role, Selected
from quice.server import Server
from quice.sim.host import Host
from quice.sim.kinds import Nat
from quice.sim.packet import Packet, Protocol
from quice.sim.world import World
from quice.stun import responses
from quice.stun.attributes import UseCandidate, XorMappedAddress
from quice.stun.message import Kind, Message, Method
from quice.wire import Address, Transmit
from tests.ice.scripted import PWD, STRANGER, Scripted, remote
from tests.security.hostile import ALPN
from tests.security.victim import Victim

GUESSES = 2000
CODES = (300, 400, 401, 403, 420, 438, 487, 500)
SERVER = Address("192.0.2.1", 3478)
HERE = Address("10.0.0.1", 5000)
FORGED = Address("203.0.113.66", 6666)


def outlook(peer: Scripted) -> object:
    """All that an agent goes by: who may change it, decides."""
    return peer.agent.report, peer.agent.role, peer.agent.timeout(), peer.agent.selected


@pytest.mark.parametrize("code", [None, *CODES])
def test_answers_to_guessed_transactions_change_nothing(code: int | None) -> None:
    peer = Scripted()
    check = peer.first_check()
    before, rng = outlook(peer), random.Random(1)
    for _ in range(GUESSES):
        assert not peer.answer(check, transaction=rng.randbytes(12), code=code, key="guessed")
    assert outlook(peer) == before
    assert peer.events() == []


@pytest.mark.parametrize("code", [None, *CODES])
@pytest.mark.parametrize("known", [False, True], ids=["before the peer answers", "after the peer has answered"])
def test_who_sees_the_transaction_and_lacks_the_password_changes_nothing(code: int | None, known: bool) -> None:
    peer = Scripted(Role.CONTROLLED)
    check = peer.first_check()
    if known:
        assert peer.answer(check)
        peer.events()
    before = outlook(peer)
    for key in ("guessed", "", peer.agent.credentials.pwd):
        peer.answer(check, code=code, key=key)
        peer.answer(check, code=code, key=key, source=STRANGER)
    assert outlook(peer) == before
    assert peer.events() == []
    assert known or peer.answer(check)
    assert peer.state() is PairState.SUCCEEDED


@pytest.mark.parametrize("role", list(Role))
def test_a_forged_487_does_not_turn_the_roles(role: Role) -> None:
    peer = Scripted(role)
    check = peer.first_check()
    peer.answer(check, code=487, key="guessed")
    assert peer.agent.role is role
    # The peer's own does.
    peer.answer(check, code=487)
    assert peer.agent.role is role.opposite


@pytest.mark.parametrize("key", ["guessed", "", PWD])
def test_a_forged_nomination_selects_nothing_and_makes_nothing_be_sent(key: str) -> None:
    peer = Scripted(Role.CONTROLLED)
    peer.answer(peer.first_check())
    peer.events()
    before = outlook(peer)
    for source in (remote(1).address, STRANGER):
        data = peer.request(nominate=True, key=key)
        assert UseCandidate() in Message.decode(data).attributes
        assert not peer.receive(data, source)
    assert outlook(peer) == before
    assert peer.sent() == []
    assert peer.events() == []
    # The peer's own does.
    peer.check(remote(1).address, nominate=True)
    assert any(isinstance(event, Selected) for event in peer.events())


def test_forged_requests_by_the_thousand_leave_nothing_behind() -> None:
    peer = Scripted(Role.CONTROLLED, credentials=False)
    before, rng = outlook(peer), random.Random(2)
    for number in range(GUESSES):
        source = Address(f"198.51.{rng.randrange(256)}.{rng.randrange(1, 255)}", rng.randrange(1, 1 << 16))
        assert not peer.receive(peer.request(nominate=True, key="guessed", number=number), source)
    assert peer.sent() == []
    assert outlook(peer) == before


@pytest.mark.parametrize("size", [0, 1, 19, 20, 21, 1500, 65_507])
def test_oversized_and_garbled_messages_are_nobodys(size: int) -> None:
    peer, rng = Scripted(), random.Random(size)
    before = outlook(peer)
    samples = (peer.request(nominate=True, key="guessed"), peer.request(key="guessed") + bytes(2000))
    for _ in range(200):
        for data in (rng.randbytes(size), b"\0\1" + rng.randbytes(size), mutate(rng, samples)):
            assert not peer.receive(data, remote(1).address)
    assert peer.sent() == []
    assert outlook(peer) == before


def test_what_an_authentic_request_draws_from_us_is_no_lever() -> None:
    """The peer knows the password, and may write another's address on its requests. Only the answer goes there unasked,
    and it is shorter; the check that it triggers is of the peer's budget."""
    peer = Scripted()
    data = peer.request()
    peer.receive(data, STRANGER)
    answers = [sent for sent in peer.sent() if sent.message.kind is Kind.SUCCESS]
    assert [sent.to for sent in answers] == [STRANGER]
    assert len(answers[0].transmit.data) <= len(data)


def question(gatherer: Gatherer) -> Transmit:
    """The request that a gatherer sends to its one server."""
    (sent,) = gatherer.transmits()
    return sent


def found(gatherer: Gatherer) -> list[Address]:
    """The reflexive addresses that a gatherer believes in."""
    events = [event for event in gatherer.events() if isinstance(event, Gathered)]
    return [each.candidate.address for each in events if each.candidate.kind is CandidateKind.SERVER_REFLEXIVE]


def test_a_reflexive_address_from_who_is_not_the_server_is_not_believed() -> None:
    gatherer = Gatherer([Base(HERE, "eth0")], [SERVER], random.Random(3), 0.0)
    sent, rng = question(gatherer), random.Random(4)
    asked = Message.decode(sent.data)
    for _ in range(GUESSES):
        guess = Message(Method.BINDING, Kind.REQUEST, rng.randbytes(12), ())
        # With the server's address on it, as anybody can write it.
        assert not gatherer.receive(responses.success(guess, XorMappedAddress(FORGED)), SERVER, HERE, 0.01)
    # From elsewhere not even with the right transaction.
    answer = responses.success(asked, XorMappedAddress(FORGED))
    assert not gatherer.receive(answer, STRANGER, HERE, 0.01)
    assert not gatherer.receive(answer, SERVER, Address("10.0.0.2", 5000), 0.01)
    assert found(gatherer) == []
    mapped = Address("198.51.100.7", 40000)
    assert gatherer.receive(responses.success(asked, XorMappedAddress(mapped)), SERVER, HERE, 0.02)
    assert found(gatherer) == [mapped]
    # Nor does a second answer replace the first.
    gatherer.receive(answer, SERVER, HERE, 0.03)
    assert found(gatherer) == []


def forged(data: bytes, source: Address, destination: Address) -> Packet:
    """A packet of somebody who writes what source they like."""
    return Packet(Protocol.UDP, source, destination, data, sender="eve")


async def connect(near: Endpoint, far: Endpoint, alice: Host) -> float:
    """Seconds until one reaches the other."""
    with alice:
        connection = await near.connect(far.peer, alpn=ALPN)
    assert connection.connect_seconds is not None
    return connection.connect_seconds


async def test_peers_connect_through_a_rain_of_forged_stun(world: World, rendezvous: Server) -> None:
    """Off the path, with every address that there is on the packets: what comes is connected with is the peer."""
    here, there = (world.site(nat=Nat.FULL_CONE) for _ in range(2))
    alice, bob, eve = here.host("alice"), there.host("bob"), Victim(world, "eve")
    with bob:
        far = await Endpoint.bind(server=rendezvous.url, alpns=[ALPN])
    with alice:
        near = await Endpoint.bind(server=rendezvous.url)
        await asyncio.sleep(1)
    rng = random.Random(5)
    targets = [c.address for e in (near, far) for c in e._surroundings.discovery.candidates]
    before = [endpoint._surroundings.discovery.candidates for endpoint in (near, far)]

    def rain() -> None:
        for target in targets:
            request = Message(Method.BINDING, Kind.REQUEST, rng.randbytes(12), (UseCandidate(),))
            success = responses.success(request, XorMappedAddress(Address(eve.address, 9)), key=b"guessed")
            error = responses.error(request, rng.choice(CODES), key=b"guessed")
            for data in (request.encode(b"guessed"), success, error):
                source = rng.choice([*targets, Address(rendezvous.stun.host, rendezvous.stun.port)])
                world.internet.from_inside(forged(data, source, target))

    connecting = asyncio.create_task(connect(near, far, alice))
    while not connecting.done():
        rain()
        await asyncio.sleep(0.002)
    assert await connecting < 1.0
    assert [endpoint._surroundings.discovery.candidates for endpoint in (near, far)] == before
    assert eve.bytes == 0
