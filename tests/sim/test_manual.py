"""Two texts that people copy, and a direct connection: no server but for STUN."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

import pytest

from quice import CandidateKind, Endpoint, ManualAnswer, ManualOffer, PathKind, PeerId, RelayServer
from quice.errors import ConnectTimeoutError, DescriptionError, NoPathError
from quice.server import Server
from quice.server.relay import NO_RELAY, RelaySettings
from quice.signal.manual import MAX_TEXT, WrittenAnswer, WrittenOffer
from quice.sim.host import Host
from quice.sim.kinds import BEHAVIOURS, Nat
from quice.sim.link import Conditions
from quice.sim.packet import Packet, Protocol
from quice.sim.simulation import Simulation
from quice.turn.credentials import time_limited
from quice.wire import Address

NEAR = Conditions(delay=0.025)
ALPN = "test/1"
FORGETFUL = replace(BEHAVIOURS[Nat.PORT_RESTRICTED_RANDOM], timeout=30.0)
"""The least that NATs are found to keep a mapping for; RFC 4787 §4.3 wants two minutes."""


@dataclass
class Person:
    """Somebody with a machine behind a NAT."""

    host: Host
    endpoint: Endpoint

    @property
    def peer(self) -> PeerId:
        return self.endpoint.peer

    async def offer(self, alpn: str = ALPN, **options: Any) -> ManualOffer:
        with self.host:
            return await self.endpoint.offer(alpn=alpn, **options)

    async def answer(self, text: str, **options: Any) -> ManualAnswer:
        with self.host:
            return await self.endpoint.answer(text, **options)


@dataclass
class Place:
    """Two people, and a STUN server."""

    alice: Person
    bob: Person
    simulation: Simulation


@contextlib.asynccontextmanager
async def place(simulation: Simulation) -> AsyncIterator[Place]:
    world = simulation.world
    middle = world.host("server")
    hosts = [world.site(nat=FORGETFUL, uplink=NEAR).host(name) for name in ("alice", "bob")]
    async with contextlib.AsyncExitStack() as stack:
        with middle:
            stun = (await stack.enter_async_context(Server(relay=NO_RELAY))).stun
        people = []
        for host in hosts:
            with host:
                endpoint = await stack.enter_async_context(Endpoint.bind(alpns=[ALPN], stun_servers=[stun]))
            people.append(Person(host, endpoint))
        yield Place(*people, simulation)


def simulated(test: Callable[[Place], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A test that takes place."""

    def run() -> None:
        async def main() -> None:
            async with place(simulation) as here:
                await test(here)

        with Simulation(seed=7) as simulation:
            simulation.run(main())

    run.__name__ = test.__name__
    return run


async def passes(near: Any, far: Any) -> bool:
    stream = await near.open_stream()
    await stream.write(b"question")
    return bool(await (await far.accept_stream()).readexactly(8) == b"question")


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("minutes", [0.0, 5.0, 7.0])
def test_behind_two_restricted_nats_it_does_not_matter_how_long_people_take(seed: int, minutes: float) -> None:
    async def main() -> None:
        async with place(simulation) as here:
            offer = await here.alice.offer()
            await asyncio.sleep(60 * minutes / 3)
            answer = await here.bob.answer(offer.description)
            assert answer.peer == here.alice.peer
            await asyncio.sleep(60 * minutes)
            started = asyncio.get_running_loop().time()
            near = await offer.complete(answer.description)
            assert asyncio.get_running_loop().time() - started < 1.0
            assert near.connect_seconds < 1.0
            far = await answer.connected()
            assert (near.peer, far.peer, near.alpn) == (here.bob.peer, here.alice.peer, ALPN)
            assert await passes(near, far)
            assert near.path is not None
            assert near.path.kind is PathKind.DIRECT

    with Simulation(seed=seed) as simulation:
        simulation.run(main())


@pytest.mark.parametrize("policy", ["auto", "relay"])
def test_behind_two_symmetric_nats_the_relay_lets_in_who_comes_minutes_later(policy: str) -> None:
    async def main() -> None:
        world = simulation.world
        middle = world.host("server")
        hosts = [world.site(nat=Nat.SYMMETRIC, uplink=NEAR).host(name) for name in ("alice", "bob")]
        async with contextlib.AsyncExitStack() as stack:
            with middle:
                server = await stack.enter_async_context(Server(relay=RelaySettings(secret="ours")))
            people = []
            for host in hosts:
                with host:
                    secret = time_limited("ours", time.time() + 86_400, "anybody")
                    relay = RelayServer.parse(server.turn, secret.username, secret.password)
                    endpoint = await stack.enter_async_context(
                        Endpoint.bind(alpns=[ALPN], stun_servers=[server.stun], relays=[relay], policy=policy)  # type: ignore[arg-type]
                    )
                people.append(Person(host, endpoint))
            alice, bob = people
            offer = await alice.offer(policy=policy)
            answer = await bob.answer(offer.description)
            for text in (offer.description, answer.description):
                assert len(text) <= MAX_TEXT
            await asyncio.sleep(300)
            near = await offer.complete(answer.description)
            assert await passes(near, await answer.connected())
            assert near.connect_seconds < 1.0
            assert near.path is not None
            assert near.path.kind is PathKind.RELAY

    with Simulation(seed=3) as simulation:
        simulation.run(main())


@simulated
async def test_the_texts_are_short_and_name_the_address_that_the_nat_gives(here: Place) -> None:
    async with await here.alice.offer() as offer, await here.bob.answer(offer.description) as answer:
        assert len(offer.description) <= MAX_TEXT
        assert len(answer.description) <= MAX_TEXT
        offered = WrittenOffer.parse(offer.description).offer
        answered = WrittenAnswer.parse(answer.description).answer
        for each in (offered, answered):
            assert {candidate.kind for candidate in each.candidates} == {
                CandidateKind.HOST,
                CandidateKind.SERVER_REFLEXIVE,
            }


@simulated
async def test_the_connection_is_for_who_has_answered_and_not_for_accept(here: Place) -> None:
    offer = await here.alice.offer()
    answer = await here.bob.answer(offer.description)
    accepting = asyncio.create_task(here.bob.endpoint.accept())
    await offer.complete(answer.description)
    assert not (await answer.connected()).is_closed
    assert not accepting.done()
    accepting.cancel()


@simulated
async def test_a_wrong_text_is_told_and_the_right_one_still_counts(here: Place) -> None:
    offer, other = await here.alice.offer(), await here.alice.offer()
    answer, stray = await here.bob.answer(offer.description), await here.bob.answer(other.description)
    for text, reason in (
        (offer.description, "it is an offer"),
        (stray.description, "another offer than this"),
        (answer.description[:-1], "checksum|cut off"),
    ):
        with pytest.raises(DescriptionError, match=reason):
            await offer.complete(text)
    assert await passes(await offer.complete(answer.description), await answer.connected())


@simulated
async def test_an_answer_that_is_pasted_twice_gives_the_connection_twice(here: Place) -> None:
    async with await here.alice.offer() as offer, await here.bob.answer(offer.description) as answer:
        first = await offer.complete(answer.description)
        assert await offer.complete(answer.description) is first
    assert not first.is_closed


@simulated
async def test_an_offer_that_two_have_answered_is_for_the_first_alone(here: Place) -> None:
    async with await here.alice.offer() as offer:
        host = here.simulation.world.site(nat=FORGETFUL, uplink=NEAR).host("carol")
        with host:
            carol = Person(host, await Endpoint.bind(alpns=[ALPN]))
        answers = [await each.answer(offer.description) for each in (here.bob, carol)]
        await offer.complete(answers[0].description)
        with pytest.raises(DescriptionError, match="another peer"):
            await offer.complete(answers[1].description)
        await carol.endpoint.close()


@simulated
async def test_an_offer_is_not_for_who_has_made_it_nor_for_another_application(here: Place) -> None:
    async with await here.alice.offer() as offer, await here.alice.offer("other/1") as other:
        with pytest.raises(DescriptionError, match="own offer"):
            await here.alice.answer(offer.description)
        with pytest.raises(DescriptionError, match="'other/1'"):
            await here.bob.answer(other.description)
        with pytest.raises(NoPathError, match="relays alone"):
            await here.alice.offer(policy="relay")


@simulated
async def test_an_answer_that_never_arrives_is_waited_for_as_long_as_was_said(here: Place) -> None:
    loop = asyncio.get_running_loop()
    offer = await here.alice.offer(patience=120)
    started = loop.time()
    answer = await here.bob.answer(offer.description, patience=90)
    with pytest.raises(NoPathError):
        await answer.connected()
    assert 89 < loop.time() - started < 92
    await asyncio.sleep(40)
    with pytest.raises(NoPathError, match="no answer to the offer came within 120 s"):
        await offer.complete(answer.description)


@simulated
async def test_an_answer_of_somebody_who_has_gone_is_given_up_in_time(here: Place) -> None:
    loop = asyncio.get_running_loop()
    offer = await here.alice.offer()
    answer = await here.bob.answer(offer.description)
    await here.bob.endpoint.close()
    started = loop.time()
    with pytest.raises(ConnectTimeoutError):
        await offer.complete(answer.description, timeout=20)
    assert loop.time() - started == pytest.approx(20, abs=0.5)


@simulated
async def test_stun_servers_that_are_silent_hold_an_offer_up_for_three_seconds(here: Place) -> None:
    loop = asyncio.get_running_loop()
    with here.simulation.world.site(nat=FORGETFUL, uplink=NEAR).host("carol"):
        async with Endpoint.bind(stun_servers=[Address("203.0.113.250", 3478)]) as carol:
            started = loop.time()
            async with await carol.offer(alpn=ALPN) as offer:
                assert loop.time() - started == pytest.approx(3.0, abs=0.1)
                offered = WrittenOffer.parse(offer.description).offer
    assert [candidate.kind for candidate in offered.candidates] == [CandidateKind.HOST]


@simulated
async def test_who_answers_sends_little_to_the_addresses_that_an_offer_names(here: Place) -> None:
    offer = await here.alice.offer()
    named = [candidate.address for candidate in WrittenOffer.parse(offer.description).offer.candidates]
    await offer.close()
    sent: Counter[Address] = Counter()
    site = next(iter(here.bob.host.interfaces.values())).router

    class Counted:
        """A box on the way out of the site."""

        def outbound(self, packet: Packet, now: float) -> Packet | None:
            if packet.protocol is Protocol.UDP:
                sent[packet.destination] += len(packet.data)
            return packet

        def inbound(self, packet: Packet, now: float) -> Packet | None:
            return packet

    site.boxes.insert(0, Counted())
    answer = await here.bob.answer(offer.description)
    with pytest.raises(NoPathError):
        await answer.connected()
    assert all(sent[address] < 15_000 for address in named)
    assert any(sent[address] > 5_000 for address in named)
