"""Two peers and a code, through a server and whatever happens to it; in the simulated internet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from quice import Endpoint
from quice.errors import (
    CodeGoneError,
    CodeLimitError,
    InvalidCodeError,
    NoServerError,
    ServerUnreachableError,
    WrongCodeError,
)
from quice.server import Server, mailboxes
from quice.server.mailboxes import CLAIMS_BY_PEER, LIFETIME, LONGEST, MAX_BY_PEER
from quice.signal.codes import Code
from quice.signal.mailbox import OfferedCode
from quice.signal.protocol import ClaimMailbox
from quice.sim.host import Host
from quice.sim.kinds import Nat
from quice.sim.link import Conditions
from quice.sim.simulation import Simulation
from quice.sim.site import Site
from tests.server.peers import interrupted_everywhere, until

DELAY = 0.025


@pytest.fixture
def sites(simulation: Simulation) -> list[Site]:
    near = Conditions(delay=DELAY)
    return [simulation.world.site(name, nat=Nat.PORT_RESTRICTED, uplink=near) for name in ("one", "other")]


@pytest.fixture
def hosts(sites: list[Site]) -> tuple[Host, Host]:
    return sites[0].host("alice"), sites[1].host("bob")


@pytest.fixture
async def peers(hosts: tuple[Host, Host], rendezvous: Server) -> tuple[Endpoint, Endpoint]:
    endpoints = []
    for host in hosts:
        with host:
            endpoints.append(await Endpoint.bind(server=rendezvous.url, alpns=["test/1"]))
    return endpoints[0], endpoints[1]


def other_words(code: OfferedCode) -> Code:
    """The same number, and words that somebody guesses."""
    first, second = code.code.words
    return Code(code.code.number, (first, "clover" if second != "clover" else "clockwork"))


async def failed(work: Awaitable[object], error: type[Exception]) -> None:
    with pytest.raises(error):
        await work


async def test_a_code_tells_two_peers_who_the_other_is_and_what_it_says(peers: tuple[Endpoint, Endpoint]) -> None:
    alice, bob = peers
    code = await alice.offer_code(b"of alice")
    waiting = asyncio.ensure_future(code.wait())
    assert await bob.enter_code(str(code).upper(), b"of bob") == (alice.peer, b"of alice")
    assert await waiting == (bob.peer, b"of bob")


async def test_peers_behind_two_nats_connect_by_a_code_alone(
    hosts: tuple[Host, Host], rendezvous: Server, simulation: Simulation
) -> None:
    """All that goes from one person to the other is what can be said aloud."""
    said: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def alice() -> None:
        async with Endpoint.bind(server=rendezvous.url, alpns=["test/1"]) as endpoint:
            code = await endpoint.offer_code()
            said.set_result(str(code))
            peer, _ = await code.wait()
            connection = await endpoint.accept()
            assert connection.peer == peer
            stream = await connection.accept_stream()
            await stream.write(await stream.read())
            stream.finish()
            await connection.wait_closed()

    with hosts[0]:
        task = asyncio.ensure_future(alice())
    with hosts[1]:
        async with Endpoint.bind(server=rendezvous.url) as endpoint:
            code = await said
            before = simulation.loop.time()
            peer, _ = await endpoint.enter_code(code)
            # To the server and back for the greeting; to the server, to alice and all the way back for the reply.
            assert simulation.loop.time() - before == pytest.approx(6 * DELAY, abs=0.01)
            async with await endpoint.connect(peer, alpn="test/1") as connection:
                stream = await connection.open_stream()
                await stream.write(b"hello")
                stream.finish()
                assert await stream.read() == b"hello"
    await task


async def test_a_wrong_code_is_told_to_both_sides_and_burnt(peers: tuple[Endpoint, Endpoint]) -> None:
    alice, bob = peers
    code = await alice.offer_code(b"secret")
    waiting = asyncio.ensure_future(failed(code.wait(), WrongCodeError))
    await failed(bob.enter_code(other_words(code)), WrongCodeError)
    await waiting
    # The right words come too late.
    await failed(bob.enter_code(code.code), CodeGoneError)


async def test_who_takes_a_code_and_says_nothing_burns_it(
    peers: tuple[Endpoint, Endpoint], simulation: Simulation
) -> None:
    alice, bob = peers
    code = await alice.offer_code()
    assert bob._surroundings.rendezvous is not None
    await bob._surroundings.rendezvous.mailboxes.say(ClaimMailbox(number=code.code.number))
    before = simulation.loop.time()
    await failed(code.wait(), WrongCodeError)
    assert simulation.loop.time() - before == pytest.approx(30, abs=0.2)


async def test_who_leaves_in_the_middle_is_not_waited_for(peers: tuple[Endpoint, Endpoint]) -> None:
    alice, bob = peers
    code = await alice.offer_code()
    entering = asyncio.ensure_future(bob.enter_code(code.code))
    # The claim is on its way; the greeting is not here.
    await asyncio.sleep(2 * DELAY - 0.001)
    entering.cancel()
    await failed(code.wait(), WrongCodeError)


async def test_a_code_that_was_closed_is_no_more(peers: tuple[Endpoint, Endpoint]) -> None:
    alice, bob = peers
    code = await alice.offer_code()
    await code.close()
    await failed(bob.enter_code(code.code), CodeGoneError)
    assert await exchange(alice, bob)


async def test_who_waits_for_a_code_is_told_when_another_task_closes_it(peers: tuple[Endpoint, Endpoint]) -> None:
    alice, bob = peers
    code = await alice.offer_code()
    waiting = asyncio.create_task(code.wait())
    await asyncio.sleep(0)
    await code.close()
    with pytest.raises(CodeGoneError, match="this side has closed it"):
        await waiting
    with pytest.raises(CodeGoneError):
        await bob.enter_code(code.code)


async def test_a_code_ends_with_the_endpoint_that_has_offered_it(peers: tuple[Endpoint, Endpoint]) -> None:
    alice, bob = peers
    code = await alice.offer_code()
    await alice.close()
    await failed(bob.enter_code(code.code), CodeGoneError)


async def test_who_waits_at_an_endpoint_that_is_closed_is_told_at_once(
    peers: tuple[Endpoint, Endpoint], simulation: Simulation
) -> None:
    alice, bob = peers
    code = await alice.offer_code()
    before = simulation.loop.time()
    waiting = asyncio.ensure_future(failed(code.wait(), ServerUnreachableError))
    offering = asyncio.ensure_future(failed(alice.offer_code(), ServerUnreachableError))
    entering = asyncio.ensure_future(failed(bob.enter_code(Code(999_999, code.code.words)), ServerUnreachableError))
    await asyncio.sleep(DELAY / 2)
    await asyncio.gather(alice.close(), bob.close())
    await asyncio.gather(waiting, offering, entering)
    assert simulation.loop.time() - before < 5


async def exchange(alice: Endpoint, bob: Endpoint) -> bool:
    code = await alice.offer_code()
    waiting = asyncio.ensure_future(code.wait())
    entered = await bob.enter_code(code.code)
    return (entered.peer, (await waiting).peer) == (alice.peer, bob.peer)


async def test_a_code_waits_an_hour(peers: tuple[Endpoint, Endpoint], simulation: Simulation) -> None:
    alice, bob = peers
    code = await alice.offer_code()
    waiting = asyncio.ensure_future(code.wait())
    await asyncio.sleep(LONGEST - 10)
    assert (await bob.enter_code(code.code)).peer == alice.peer
    await waiting


async def test_who_waits_longer_is_told_and_so_is_who_comes_later(
    peers: tuple[Endpoint, Endpoint], simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = 2.4 * LIFETIME
    monkeypatch.setattr(mailboxes, "LONGEST", longest)
    alice, bob = peers
    code, before = await alice.offer_code(), simulation.loop.time()
    await failed(code.wait(), CodeGoneError)
    assert simulation.loop.time() - before == pytest.approx(longest, abs=1)
    await failed(bob.enter_code(code.code), CodeGoneError)


async def test_a_code_whose_side_is_gone_without_a_word_ends_after_ten_minutes(
    peers: tuple[Endpoint, Endpoint], sites: list[Site]
) -> None:
    alice, bob = peers
    code = await alice.offer_code()
    sites[0].link.cut()
    await asyncio.sleep(LIFETIME + 1)
    await failed(bob.enter_code(code.code), CodeGoneError)


async def test_the_side_that_has_offered_it_may_lose_its_network_meanwhile(
    peers: tuple[Endpoint, Endpoint], sites: list[Site]
) -> None:
    """What was said to it on the dead connection is said again on the next."""
    alice, bob = peers
    code = await alice.offer_code()
    waiting = asyncio.ensure_future(code.wait())
    sites[0].link.cut()
    entering = asyncio.ensure_future(bob.enter_code(code.code))
    await asyncio.sleep(5)
    sites[0].link.mend()
    alice._surroundings.look_again()
    assert (await waiting).peer == bob.peer
    assert (await entering).peer == alice.peer


@pytest.mark.parametrize("after", [0.0, 1.5 * DELAY, 2.5 * DELAY, 3.5 * DELAY, 4.5 * DELAY, 5.5 * DELAY])
@pytest.mark.parametrize("loses", ["alice", "bob"])
async def test_whatever_is_lost_with_a_connection_is_said_again(
    peers: tuple[Endpoint, Endpoint], sites: list[Site], after: float, loses: str
) -> None:
    alice, bob = peers
    side, site = (alice, sites[0]) if loses == "alice" else (bob, sites[1])
    code = await alice.offer_code(b"of alice")
    waiting = asyncio.ensure_future(code.wait())
    entering = asyncio.ensure_future(bob.enter_code(code.code, b"of bob"))
    await asyncio.sleep(after)
    site.link.cut()
    await asyncio.sleep(1)
    site.link.mend()
    side._surroundings.look_again()
    assert await entering == (alice.peer, b"of alice")
    assert await waiting == (bob.peer, b"of bob")


async def test_a_server_that_was_restarted_knows_no_codes_and_says_so(
    peers: tuple[Endpoint, Endpoint], simulation: Simulation, rendezvous: Server
) -> None:
    alice, bob = peers
    code = await alice.offer_code()
    waiting = asyncio.ensure_future(failed(code.wait(), CodeGoneError))
    host = simulation.world.hosts["server"]
    host.machine.tcp.abort()
    with host:
        await rendezvous.__aexit__(None, None, None)
        await Server().__aenter__()
    await waiting
    assert await exchange(alice, bob)


async def test_a_peer_is_told_when_it_has_offered_or_tried_too_many(peers: tuple[Endpoint, Endpoint]) -> None:
    alice, bob = peers
    codes = [await alice.offer_code() for _ in range(MAX_BY_PEER)]
    assert len({code.code.number for code in codes}) == MAX_BY_PEER
    await failed(alice.offer_code(), CodeLimitError)
    free = next(number for number in range(1, 100) if number not in {code.code.number for code in codes})
    for _ in range(CLAIMS_BY_PEER.burst):
        await failed(bob.enter_code(Code(free, ("crossover", "clockwork"))), CodeGoneError)
    await failed(bob.enter_code(codes[0].code), CodeLimitError)


async def test_several_codes_of_one_peer_are_offered_and_entered_at_once(peers: tuple[Endpoint, Endpoint]) -> None:
    alice, bob = peers
    codes = await asyncio.gather(*(alice.offer_code(bytes([number])) for number in range(4)))
    waiting = asyncio.gather(*(code.wait() for code in codes))
    entered = await asyncio.gather(*(bob.enter_code(code.code) for code in codes))
    assert entered == [(alice.peer, bytes([number])) for number in range(4)]
    assert {paired.peer for paired in await waiting} == {bob.peer}


async def test_nobody_pairs_with_itself(peers: tuple[Endpoint, Endpoint]) -> None:
    alice, bob = peers
    code = await alice.offer_code()
    await failed(alice.enter_code(code.code), CodeGoneError)
    waiting = asyncio.ensure_future(code.wait())
    await bob.enter_code(code.code)
    await waiting


async def test_what_is_no_code_is_refused_before_anybody_is_asked(peers: tuple[Endpoint, Endpoint]) -> None:
    await failed(peers[0].enter_code("7-crossover"), InvalidCodeError)


async def test_an_endpoint_without_a_server_has_no_codes(hosts: tuple[Host, Host]) -> None:
    with hosts[0]:
        endpoint = await Endpoint.bind()
    await failed(endpoint.offer_code(), NoServerError)
    await failed(endpoint.enter_code("7-crossover-clockwork"), NoServerError)


async def test_a_server_that_says_nothing_is_not_waited_for(
    peers: tuple[Endpoint, Endpoint], sites: list[Site], simulation: Simulation
) -> None:
    sites[0].link.cut()
    before = simulation.loop.time()
    await failed(peers[0].offer_code(), ServerUnreachableError)
    assert simulation.loop.time() - before < 11
    await failed(peers[0].enter_code("7-crossover-clockwork"), CodeGoneError)


async def test_an_offer_that_nobody_waits_for_any_more_is_closed_when_it_comes(
    peers: tuple[Endpoint, Endpoint], rendezvous: Server
) -> None:
    alice, bob = peers
    for after in (DELAY / 2, 1.5 * DELAY, 2 * DELAY):
        offering = asyncio.ensure_future(alice.offer_code())
        await asyncio.sleep(after)
        offering.cancel()
        await asyncio.wait([offering])
        assert offering.cancelled()
    await asyncio.sleep(4 * DELAY)
    assert len(rendezvous.rendezvous._mailboxes._store) == 0  # type: ignore[arg-type]
    assert await exchange(alice, bob)


async def test_wherever_an_offer_is_interrupted_no_mailbox_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """At every turn of a real event loop."""
    monkeypatch.setattr(mailboxes, "OPENINGS_BY_SOURCE", mailboxes.Limit(10_000, 0.0))
    monkeypatch.setattr(mailboxes, "MAX_BY_PEER", 10_000)
    monkeypatch.setattr(mailboxes, "MAX_BY_SOURCE", 10_000)

    async def attempt() -> None:
        code = await alice.offer_code()
        await code.close()

    async with Server("127.0.0.1", 0, 0) as server, Endpoint.bind(server=server.url, host="127.0.0.1") as alice:
        turns = await interrupted_everywhere(attempt)
        assert turns > 3
        store = server.rendezvous._mailboxes._store
        await until(lambda: len(store) == 0)  # type: ignore[arg-type]
