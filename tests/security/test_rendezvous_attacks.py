"""What the owner of a rendezvous server can do to those who meet there: keep them apart, and nothing else.

Each test is an attack that works without the defence it names; the server is told to be honest again at its end, and
what the peers had said still arrives.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import AsyncIterator, Iterable

import msgspec
import pytest

from quice import Endpoint
from quice.errors import PeerUnreachableError
from quice.ice import Candidate, CandidateKind
from quice.identity import Identity, PeerId
from quice.signal.messages import (
    VERSION,
    Answer,
    Bye,
    CandidateFound,
    Description,
    EndOfCandidates,
    Message,
    Offer,
    encode,
)
from quice.signal.seal import Seal
from quice.signal.sealed import RendezvousSignalling
from quice.signal.sequence import Envelope
from quice.sim.packet import Fate, Passage, Protocol
from quice.sim.simulation import Simulation
from quice.sim.world import World
from quice.wire import Address
from tests.security.malicious import PATIENCE, Client, Passing, Scene, honestly, malicious, scene

PWD = "0123456789abcdef012345"
OFFER = Offer(version=VERSION, ufrag="alice", pwd=PWD, alpn="test/1")
ANSWER = Answer(ufrag="bobs", pwd=PWD)
FORGED = Answer(ufrag="attacker", pwd=PWD)
CANDIDATE = Candidate(kind=CandidateKind.HOST, address=Address("192.0.2.1", 5000), priority=2130706431, foundation="f")


@pytest.fixture
async def met(simulation: Simulation, world: World) -> AsyncIterator[Scene]:
    async with scene(world) as found:
        yield found


async def received(session: RendezvousSignalling, seconds: float = PATIENCE) -> list[Message]:
    """All that comes of a session in that time."""
    found: list[Message] = []

    async def receive() -> None:
        while True:
            found.append(await session.receive())

    receiving = asyncio.create_task(receive())
    await asyncio.wait([receiving], timeout=seconds)
    receiving.cancel()
    await asyncio.gather(receiving, return_exceptions=True)
    return found


async def begun(met: Scene, offer: Offer = OFFER) -> tuple[RendezvousSignalling, RendezvousSignalling]:
    """A session of Alice's with Bob, on both sides, with the offer read."""
    near = met.alice.open(met.bob.peer)
    await near.send(offer)
    far = await met.bob.begun.get()
    assert await far.receive() == offer
    return near, far


async def over(client: Client, session: RendezvousSignalling) -> None:
    """Have a session that is over for good."""
    await session.close()
    while client.sessions.lingering:
        await asyncio.sleep(1)


def sealed(sender: Identity, receiver: PeerId, session: bytes, message: Message, number: int = 1) -> bytes:
    """What somebody makes who knows all of the protocol."""
    envelope = msgspec.msgpack.encode(Envelope(number, 0, encode(message)))
    return Seal(sender, receiver, session, random.Random(1)).seal(envelope)


class Impostor(Identity):
    """The attacker's own key under another's name."""

    def __init__(self, claimed: PeerId) -> None:
        super().__init__(b"m" * 32)
        self.peer = claimed


# Keys


async def test_what_one_peer_says_can_t_be_delivered_as_another_s(met: Scene) -> None:
    met.server.meddle = lambda passing: [passing.altered(sender=met.carol.peer)]
    near = met.alice.open(met.bob.peer)
    await near.send(OFFER)
    await asyncio.sleep(PATIENCE)
    assert met.bob.begun.empty()
    assert met.bob.sessions.unopened > 0
    met.server.meddle = honestly
    assert (await met.bob.begun.get()).peer == met.alice.peer


async def test_what_is_for_one_peer_says_nothing_to_another(met: Scene) -> None:
    met.server.meddle = lambda passing: [passing.altered(receiver=met.carol.peer)]
    near = met.alice.open(met.bob.peer)
    await near.send(OFFER)
    await asyncio.sleep(PATIENCE)
    assert met.carol.begun.empty()
    assert met.carol.sessions.unopened > 0
    met.server.meddle = honestly
    assert (await met.bob.begun.get()).peer == met.alice.peer


async def test_the_server_can_t_begin_a_session_in_a_peer_s_name(met: Scene) -> None:
    alice, bob = met.alice.peer, met.bob.peer
    session = b"s" * 16
    for sender in (Impostor(alice), Impostor(bob)):
        await met.server.give(Passing(alice, bob, session, sealed(sender, bob, session, OFFER)))
    envelope = msgspec.msgpack.encode(Envelope(1, 0, encode(OFFER)))
    await met.server.give(Passing(alice, bob, session, envelope))
    await asyncio.sleep(PATIENCE)
    assert met.bob.begun.empty()
    assert met.bob.sessions.unopened == 3
    await begun(met)


async def test_noise_leaves_nothing_behind(met: Scene) -> None:
    near, _far = await begun(met)
    dice = random.Random(1)
    for number in range(300):
        sessions = (near.key[1], dice.randbytes(16))
        for session in sessions:
            await met.server.give(Passing(met.alice.peer, met.bob.peer, session, dice.randbytes(number)))
            await met.server.give(Passing(PeerId(dice.randbytes(32)), met.bob.peer, session, dice.randbytes(number)))
    await asyncio.sleep(PATIENCE)
    assert (len(met.bob.sessions.active), len(met.bob.sessions.begun), len(met.bob.sessions.lingering)) == (1, 1, 0)
    # Of those whose sender is no key at all, nothing was even tried.
    assert 600 < met.bob.sessions.unopened < 1200
    gc.collect()
    assert sum(isinstance(each, RendezvousSignalling) for each in gc.get_objects()) == 2


# Candidates and answers


async def test_the_server_can_t_answer_in_a_peer_s_place_with_candidates_of_its_own(met: Scene) -> None:
    def answer(passing: Passing) -> list[Passing]:
        if passing.sender == met.alice.peer:
            return [passing]
        body = sealed(Impostor(met.bob.peer), met.alice.peer, passing.session, FORGED)
        return [passing.altered(body=body)]

    met.server.meddle = answer
    near, far = await begun(met)
    await far.send(ANSWER)
    assert await received(near) == []
    met.server.meddle = honestly
    assert await near.receive() == ANSWER


async def test_an_answer_can_t_be_moved_to_another_session_of_the_same_peers(met: Scene) -> None:
    (one, first), (other, second) = await begun(met), await begun(met, msgspec.structs.replace(OFFER, ufrag="again"))
    sessions = {one.key[1]: other.key[1], other.key[1]: one.key[1]}
    met.server.meddle = lambda passing: [passing.altered(session=sessions[passing.session])]
    answers = [ANSWER, msgspec.structs.replace(ANSWER, ufrag="second")]
    await first.send(answers[0])
    await second.send(answers[1])
    assert await received(one, PATIENCE / 2) == await received(other, PATIENCE / 2) == []
    met.server.meddle = honestly
    assert [await one.receive(), await other.receive()] == answers


async def test_a_peer_s_words_can_t_be_given_back_to_it_as_the_other_s(met: Scene) -> None:
    near, far = await begun(met)
    await asyncio.sleep(PATIENCE)
    offer = met.server.passed[0]
    unopened = met.alice.sessions.unopened
    await met.server.give(offer.altered(sender=met.bob.peer, receiver=met.alice.peer))
    assert await received(near) == []
    assert met.alice.sessions.unopened == unopened + 1
    await far.send(ANSWER)
    assert await near.receive() == ANSWER


# Numbers and acknowledgements


async def test_no_byte_of_what_passes_can_be_changed(met: Scene) -> None:
    """The numbers and acknowledgements of the envelope are sealed with the message, and nothing is beside them."""
    near, far = await begun(met)
    met.server.meddle = lambda passing: []
    await near.send(EndOfCandidates())
    await far.send(ANSWER)
    await asyncio.sleep(0.01)
    candidates, answer = met.server.passed[-2:]
    assert (candidates.sender, answer.sender) == (met.alice.peer, met.bob.peer)
    before = [(side._sequence._received, set(side._sequence._unacknowledged)) for side in (near, far)]
    for passing in (candidates, answer):
        for place in range(len(passing.body)):
            for bit in range(8):
                changed = bytearray(passing.body)
                changed[place] ^= 1 << bit
                await met.server.give(passing.altered(body=bytes(changed)))
    await asyncio.sleep(0.5)
    assert [(side._sequence._received, set(side._sequence._unacknowledged)) for side in (near, far)] == before
    assert (near._incoming.qsize(), far._incoming.qsize()) == (0, 0)
    met.server.meddle = honestly
    assert (await near.receive(), await far.receive()) == (ANSWER, EndOfCandidates())


async def test_the_server_can_t_acknowledge_in_the_receiver_s_place(met: Scene) -> None:
    near, far = await begun(met)
    met.server.meddle = lambda passing: []
    await near.send(EndOfCandidates())
    acknowledgement = msgspec.msgpack.encode(Envelope(0, 2))
    alice, bob, session = met.alice.peer, met.bob.peer, near.key[1]
    forged = Seal(Impostor(bob), alice, session, random.Random(1)).seal(acknowledgement)
    for body in (acknowledgement, forged):
        await met.server.give(Passing(bob, alice, session, body))
    await asyncio.sleep(PATIENCE)
    met.server.meddle = honestly
    assert await far.receive() == EndOfCandidates()


async def test_a_message_that_is_left_out_is_missed_and_those_behind_it_wait(met: Scene) -> None:
    near, far = await begun(met)
    left_out: list[Passing] = []

    def leave_out(passing: Passing) -> list[Passing]:
        if passing.sender == met.bob.peer or left_out:
            return [passing]
        left_out.append(passing)
        return []

    met.server.meddle = leave_out
    said = [CandidateFound(candidate=CANDIDATE), EndOfCandidates(), Bye()]
    for message in said:
        await near.send(message)
    assert await received(far, 0.5) == []
    assert await received(far) == said


async def test_a_session_of_which_the_server_keeps_everything_back_fails(met: Scene) -> None:
    near, far = await begun(met)
    met.server.meddle = lambda passing: []
    await near.send(EndOfCandidates())
    with pytest.raises(PeerUnreachableError):
        await asyncio.wait_for(near.receive(), 60)
    assert await received(far) == []


# Replays


async def test_what_is_delivered_twice_late_and_out_of_order_arrives_once_in_order(met: Scene) -> None:
    dice, kept = random.Random(1), list[Passing]()

    def shuffle(passing: Passing) -> Iterable[Passing]:
        kept.append(passing)
        return dice.choices(kept, k=3)

    met.server.meddle = shuffle
    near = met.alice.open(met.bob.peer)
    names = [f"f{number}" for number in range(30)]
    said: list[Message] = [OFFER]
    said += [CandidateFound(candidate=msgspec.structs.replace(CANDIDATE, foundation=name)) for name in names]
    for message in said:
        await near.send(message)
    far = await met.bob.begun.get()
    answers: list[Message] = [ANSWER, *said[1:], Bye()]
    for message in answers:
        await far.send(message)
    assert await received(far, 60) == said
    assert await received(near, 60) == answers
    assert met.bob.begun.empty()


async def test_an_answer_of_an_earlier_session_is_none_in_a_later_one(met: Scene) -> None:
    near, far = await begun(met)
    await far.send(ANSWER)
    assert await near.receive() == ANSWER
    (old,) = (passing for passing in met.server.passed if passing.sender == met.bob.peer and len(passing.body) > 150)
    await near.close()
    await over(met.bob, far)
    near, far = await begun(met)
    # As it came, and under the number of the session that there is now.
    await met.server.give(old, old.altered(session=near.key[1]))
    assert await received(near) == []
    await far.send(msgspec.structs.replace(ANSWER, ufrag="fresh"))
    assert await near.receive() == msgspec.structs.replace(ANSWER, ufrag="fresh")


async def test_the_offer_of_an_earlier_session_begins_none(met: Scene) -> None:
    near, far = await begun(met)
    await over(met.alice, near)
    await over(met.bob, far)
    of_alice = [passing for passing in met.server.passed if passing.sender == met.alice.peer]
    await met.server.give(*of_alice, *of_alice)
    await met.server.give(*(passing.altered(session=b"n" * 16) for passing in of_alice))
    await asyncio.sleep(PATIENCE)
    assert met.bob.begun.empty()
    await begun(met)


async def test_an_earlier_offer_is_not_answered_again_by_an_endpoint(simulation: Simulation, world: World) -> None:
    """Answered, it would have the endpoint send checks to where its peer was once."""
    async with malicious(world) as (attacker, url):
        with world.host("bob"):
            far = await Endpoint.bind(server=url, alpns=["test/1"])
        with world.host("alice"):
            near = await Endpoint.bind(server=url)
            connection = await near.connect(far.peer, alpn="test/1")
        await near.close()
        assert connection.is_closed
        await asyncio.sleep(60)
        count = len(attacker.passed)
        await attacker.give(*(passing for passing in attacker.passed[:count] if passing.receiver == far.peer))
        await asyncio.sleep(PATIENCE)
        assert len(attacker.passed) == count
        await far.close()


async def test_what_a_restarted_endpoint_does_with_an_earlier_offer_is_little_and_soon_over(
    simulation: Simulation, world: World
) -> None:
    """It can't know of it: docs/rendezvous.md says what follows, and this is what."""
    identity = Identity(b"b" * 32)
    async with malicious(world) as (attacker, url):
        with world.host("bob"):
            far = await Endpoint.bind(identity, server=url, alpns=["test/1"])
        with world.host("alice"):
            near = await Endpoint.bind(server=url)
            await near.connect(far.peer, alpn="test/1")
        offers = [passing for passing in attacker.passed if passing.receiver == far.peer]
        await far.close()
        await asyncio.sleep(5)
        sent: list[float] = []

        def count(passage: Passage) -> None:
            if (passage.place, passage.packet.protocol, passage.fate) == ("bob", Protocol.UDP, Fate.SENT):
                sent.append(passage.time)

        with world.hosts["bob"]:
            again = await Endpoint.bind(identity, server=url, alpns=["test/1"])
        accepting = asyncio.create_task(again.accept())
        world.watch(count)
        started = simulation.loop.time()
        await attacker.give(*offers)
        await asyncio.sleep(60)
        assert not accepting.done()
        assert 0 < len(sent) < 30
        assert sent[-1] - started < 10
        accepting.cancel()
        await near.close()
        await again.close()


async def test_earlier_restarts_of_a_connection_are_not_answered_again(simulation: Simulation, world: World) -> None:
    """They would have a connection tried at the addresses of another day."""
    async with malicious(world) as (attacker, url):
        public = [world.site() for _ in range(3)]
        bob, alice = public[0].host("bob"), public[1].host("alice")
        with bob:
            far = await Endpoint.bind(server=url, alpns=["test/1"])
        with alice:
            near = await Endpoint.bind(server=url)
            connection = await near.connect(far.peer, alpn="test/1")
        await asyncio.sleep(20)
        count = len(attacker.passed)
        alice.move(public[2])
        await asyncio.sleep(60)
        assert not connection.is_closed
        assert len(attacker.passed) > count
        passed = list(attacker.passed)
        await attacker.give(*(passing for passing in passed if passing.receiver in attacker.peers))
        await asyncio.sleep(30)
        assert attacker.passed == passed
        assert not connection.is_closed
        await near.close()
        await far.close()


# Reading


async def test_the_server_sees_no_address_no_credential_and_no_protocol(
    simulation: Simulation, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[Message] = []

    def noting(message: Message) -> bytes:
        said.append(message)
        return encode(message)

    monkeypatch.setattr("quice.signal.sealed.encode", noting)
    async with malicious(world) as (attacker, url):
        with world.host("bob", ipv6=1):
            far = await Endpoint.bind(server=url, alpns=["secret-protocol/1"])
        with world.host("alice", ipv6=1):
            near = await Endpoint.bind(server=url)
            await near.connect(far.peer, alpn="secret-protocol/1")
        await near.close()
        await far.close()
    candidates = [message.candidate for message in said if isinstance(message, CandidateFound)]
    secrets = [b"secret-protocol"]
    for message in said:
        if isinstance(message, Description):
            secrets += [message.ufrag.encode(), message.pwd.encode()]
            candidates += message.candidates
    for candidate in candidates:
        secrets += [candidate.address.host.encode(), candidate.address.ip.packed]
    assert len(candidates) >= 4
    assert len(secrets) >= 5 + 2 * len(candidates)
    seen = b"".join(attacker.frames)
    assert near.peer.key in seen
    assert [secret for secret in secrets if secret in seen] == []
