"""The rules of mailboxes, in memory and in Redis, on a clock that the test sets."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest
from redis.asyncio import Redis

from quice.identity import Identity, PeerId
from quice.server import mailboxes as rules
from quice.server.mailboxes import Limit, Mailboxes, MailboxStore, MemoryMailboxes, numbers
from quice.server.redis_mailboxes import RedisMailboxes
from quice.signal.protocol import (
    AttendMailbox,
    ClaimMailbox,
    CloseMailbox,
    MailboxBody,
    MailboxClosed,
    MailboxEnd,
    MailboxOpened,
    MailboxTaken,
    MailboxToPeer,
    MailboxToServer,
    OpenMailbox,
    PutMailbox,
)
from tests.server.redis_server import RedisServer, needs_redis

ALICE, BOB, EVE = (Identity.generate().peer for _ in range(3))
Told = list[tuple[PeerId, MailboxToPeer]]


class Service:
    """Mailboxes at a time that the test tells."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.mailboxes = Mailboxes(self.make_store(random.Random(1)))

    def make_store(self, rng: random.Random) -> MailboxStore:
        self.store = MemoryMailboxes(lambda: self.now, rng)
        return self.store

    async def open(self) -> int:
        """How many are open."""
        return len(self.store)

    async def say(self, peer: PeerId, message: MailboxToServer, source: str = "192.0.2.1") -> Told:
        return await self.mailboxes.handle(peer, source, message)

    async def opened(self, peer: PeerId = ALICE, body: bytes = b"greeting", source: str = "192.0.2.1") -> int:
        ((to, answer),) = await self.say(peer, OpenMailbox(body=body), source)
        assert to == peer
        assert isinstance(answer, MailboxOpened), answer
        return answer.number

    async def claimed(self, number: int, peer: PeerId = BOB) -> None:
        assert len(await self.say(peer, ClaimMailbox(number=number))) == 2


class RedisService(Service):
    """The same in Redis."""

    def __init__(self, url: str) -> None:
        self.redis = Redis.from_url(url)
        super().__init__()

    def make_store(self, rng: random.Random) -> MailboxStore:
        return RedisMailboxes(self.redis, rng, lambda: self.now)

    async def open(self) -> int:
        count: int = await self.redis.zcount("quice:mailboxes", f"({self.now + rules.REST!r}", "+inf")
        return count


@pytest.fixture(scope="module")
def one_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(params=["memory", pytest.param("redis", marks=needs_redis)])
async def service(request: pytest.FixtureRequest) -> AsyncIterator[Service]:
    if request.param == "memory":
        yield Service()
    else:
        made = RedisService(request.getfixturevalue("one_redis").url)
        await made.redis.flushall()
        yield made
        await made.redis.aclose()


def gone(peer: PeerId, number: int) -> Told:
    return [(peer, MailboxClosed(number=number, reason=MailboxEnd.GONE))]


def limited(peer: PeerId, number: int) -> Told:
    return [(peer, MailboxClosed(number=number, reason=MailboxEnd.LIMIT))]


async def test_three_bodies_go_between_two_peers(service: Service) -> None:
    number = await service.opened(ALICE, b"greeting")
    assert await service.say(BOB, ClaimMailbox(number=number)) == [
        (ALICE, MailboxTaken(number=number, peer=BOB.key)),
        (BOB, MailboxBody(number=number, peer=ALICE.key, body=b"greeting")),
    ]
    answer, reply = PutMailbox(number=number, body=b"answer"), PutMailbox(number=number, body=b"reply")
    assert await service.say(BOB, answer) == [(ALICE, MailboxBody(number=number, peer=BOB.key, body=b"answer"))]
    assert await service.say(ALICE, reply) == [(BOB, MailboxBody(number=number, peer=ALICE.key, body=b"reply"))]
    # That it is over, the opener knows.
    assert await service.say(BOB, CloseMailbox(number=number)) == []
    assert await service.open() == 0


async def test_only_the_first_to_claim_a_mailbox_gets_it(service: Service) -> None:
    number = await service.opened()
    await service.claimed(number, BOB)
    assert await service.say(EVE, ClaimMailbox(number=number)) == gone(EVE, number)


async def test_who_has_opened_a_mailbox_cannot_claim_it(service: Service) -> None:
    number = await service.opened()
    assert await service.say(ALICE, ClaimMailbox(number=number)) == gone(ALICE, number)
    await service.claimed(number, BOB)


async def test_a_stranger_hears_the_same_of_a_mailbox_of_others_as_of_none(service: Service) -> None:
    number = await service.opened()
    await service.claimed(number, BOB)
    for message in (
        ClaimMailbox(number=number),
        AttendMailbox(number=number),
        PutMailbox(number=number, body=b"of eve"),
        CloseMailbox(number=number),
    ):
        of_none = await service.say(EVE, msgspec.structs.replace(message, number=999_999))
        assert await service.say(EVE, message) == (gone(EVE, number) if of_none else [])
    # None of it has changed anything.
    (told_alice,) = await service.say(BOB, PutMailbox(number=number, body=b"answer"))
    assert told_alice == (ALICE, MailboxBody(number=number, peer=BOB.key, body=b"answer"))


async def test_each_side_puts_one_body_and_no_second(service: Service) -> None:
    number = await service.opened()
    assert await service.say(BOB, PutMailbox(number=number, body=b"unclaimed")) == gone(BOB, number)
    await service.claimed(number, BOB)
    assert await service.say(ALICE, PutMailbox(number=number, body=b"too early")) == gone(ALICE, number)
    for side, first in ((BOB, b""), (ALICE, b"reply")):
        assert await service.say(side, PutMailbox(number=number, body=first)) != gone(side, number)
        assert await service.say(side, PutMailbox(number=number, body=b"another")) == gone(side, number)


async def test_what_may_have_been_lost_is_said_again(service: Service) -> None:
    number = await service.opened()
    assert await service.opened() == number
    assert await service.opened(body=b"another") != number
    assert await service.say(ALICE, AttendMailbox(number=number)) == []
    claim, answer = ClaimMailbox(number=number), PutMailbox(number=number, body=b"answer")
    assert await service.say(BOB, claim) == await service.say(BOB, claim)
    taken = (ALICE, MailboxTaken(number=number, peer=BOB.key))
    assert await service.say(ALICE, AttendMailbox(number=number)) == [taken]
    told = await service.say(BOB, answer)
    assert await service.say(BOB, answer) == told
    assert await service.say(ALICE, AttendMailbox(number=number)) == [taken, *told]
    reply = await service.say(ALICE, PutMailbox(number=number, body=b"reply"))
    assert await service.say(BOB, answer) == reply == await service.say(ALICE, PutMailbox(number=number, body=b"reply"))


@pytest.mark.parametrize(("closes", "is_told"), [(ALICE, BOB), (BOB, ALICE)])
async def test_either_side_ends_it_and_the_other_is_told(service: Service, closes: PeerId, is_told: PeerId) -> None:
    number = await service.opened()
    await service.claimed(number)
    assert await service.say(closes, CloseMailbox(number=number)) == [
        (is_told, MailboxClosed(number=number, reason=MailboxEnd.CLOSED))
    ]
    assert await service.say(BOB, PutMailbox(number=number, body=b"late")) == gone(BOB, number)
    assert await service.say(ALICE, AttendMailbox(number=number)) == gone(ALICE, number)


async def test_a_mailbox_without_attendance_ends(service: Service) -> None:
    number = await service.opened()
    service.now += rules.LIFETIME - 0.001
    assert await service.open() == 1
    service.now += 0.001
    assert await service.open() == 0
    assert await service.say(BOB, ClaimMailbox(number=number)) == gone(BOB, number)


async def test_attendance_keeps_a_mailbox_for_an_hour_and_no_longer(service: Service) -> None:
    number, opened = await service.opened(), service.now
    while service.now < opened + rules.LONGEST - rules.LIFETIME / 2:
        assert await service.say(ALICE, AttendMailbox(number=number)) == []
        service.now += rules.LIFETIME / 2
    await service.say(ALICE, AttendMailbox(number=number))
    service.now = opened + rules.LONGEST - 0.001
    assert await service.open() == 1
    service.now = opened + rules.LONGEST
    assert await service.say(ALICE, AttendMailbox(number=number)) == gone(ALICE, number)


async def test_an_exchange_has_a_minute(service: Service) -> None:
    number = await service.opened()
    service.now += 300
    await service.claimed(number)
    service.now += rules.EXCHANGE - 0.001
    await service.say(ALICE, AttendMailbox(number=number))
    await service.say(BOB, ClaimMailbox(number=number))
    assert await service.open() == 1
    service.now += 0.001
    assert await service.say(BOB, PutMailbox(number=number, body=b"late")) == gone(BOB, number)


@pytest.mark.parametrize("how", ["closed", "expired"])
async def test_a_number_rests_before_somebody_else_gets_it(
    service: Service, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(rules, "numbers", lambda rng: iter([7]))
    assert await service.opened() == 7
    if how == "closed":
        await service.say(ALICE, CloseMailbox(number=7))
    else:
        service.now += rules.LIFETIME
    service.now += rules.REST - 0.001
    assert await service.say(EVE, OpenMailbox(body=b"")) == limited(EVE, 0)
    service.now += 0.001
    assert await service.opened(EVE) == 7


async def test_a_peer_has_so_many_mailboxes_and_an_address_too(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "OPENINGS_BY_SOURCE", Limit(1000, 0.0))
    opened = [await service.opened(ALICE, bytes([number])) for number in range(rules.MAX_BY_PEER)]
    assert await service.say(ALICE, OpenMailbox(body=b"more")) == limited(ALICE, 0)
    assert await service.say(ALICE, OpenMailbox(body=b"more"), "192.0.2.2") == limited(ALICE, 0)
    for _ in range(rules.MAX_BY_SOURCE - rules.MAX_BY_PEER):
        await service.opened(Identity.generate().peer)
    assert await service.say(BOB, OpenMailbox(body=b"")) == limited(BOB, 0)
    await service.opened(BOB, source="192.0.2.2")
    await service.say(ALICE, CloseMailbox(number=opened[0]))
    await service.opened(ALICE)


async def test_the_server_has_so_many_mailboxes_in_all(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "MAX_MAILBOXES", 3)
    number, *_ = [await service.opened(body=bytes([number])) for number in range(3)]
    assert await service.say(BOB, OpenMailbox(body=b"")) == limited(BOB, 0)
    await service.say(ALICE, CloseMailbox(number=number))
    assert await service.say(BOB, OpenMailbox(body=b"")) == limited(BOB, 0), "a number that rests takes room, too"


async def test_claims_are_limited_by_address_and_come_back_with_time(service: Service) -> None:
    burst, interval = rules.CLAIMS_BY_SOURCE

    async def admitted(tries: int) -> int:
        told = [await service.say(Identity.generate().peer, ClaimMailbox(number=9)) for _ in range(tries)]
        reasons = Counter(answer.reason for ((_, answer),) in told if isinstance(answer, MailboxClosed))
        assert set(reasons) <= {MailboxEnd.GONE, MailboxEnd.LIMIT}
        return reasons[MailboxEnd.GONE]

    assert await admitted(2 * burst) == burst
    service.now += 4 * interval
    assert await admitted(2 * burst) == 4
    service.now += 1e6
    assert await admitted(2 * burst) == burst
    # Elsewhere they go on.
    assert await service.say(EVE, ClaimMailbox(number=9), "192.0.2.2") == gone(EVE, 9)


async def test_claims_are_limited_by_peer_wherever_it_is(service: Service) -> None:
    for number in range(rules.CLAIMS_BY_PEER.burst):
        assert await service.say(EVE, ClaimMailbox(number=9), f"192.0.2.{number}") == gone(EVE, 9)
    assert await service.say(EVE, ClaimMailbox(number=9), "198.51.100.1") == limited(EVE, 9)


async def test_a_claim_beyond_the_limit_burns_nothing(service: Service) -> None:
    number = await service.opened()
    for _ in range(rules.CLAIMS_BY_PEER.burst):
        await service.say(EVE, ClaimMailbox(number=999_999))
    assert await service.say(EVE, ClaimMailbox(number=number)) == limited(EVE, number)
    await service.claimed(number, BOB)


def test_numbers_are_short_and_not_to_be_foreseen() -> None:
    first = Counter(next(numbers(random.Random(seed))) for seed in range(9000))
    assert set(first) == set(range(1, 10))
    assert all(800 < count < 1200 for count in first.values())
    tried = list(numbers(random.Random(1)))
    assert tried == sorted(tried, key=lambda number: len(str(number)))
    assert max(tried) > 99_999


async def test_numbers_stay_short_while_few_are_open(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "OPENINGS_BY_SOURCE", Limit(1000, 0.0))
    opened = [await service.opened(Identity.generate().peer, source=str(number)) for number in range(200)]
    assert len(set(opened)) == 200
    assert max(opened) < 10_000
    assert sorted(opened)[100] < 1000


async def test_what_is_over_leaves_nothing_behind() -> None:
    service = Service()
    for number in range(3000):
        peer, source = Identity(number.to_bytes(32, "big")).peer, str(number)
        mailbox = await service.opened(peer, source=source)
        for _ in range(3):
            await service.say(peer, AttendMailbox(number=mailbox), source)
        if number % 2:
            await service.say(peer, CloseMailbox(number=mailbox), source)
        service.now += 10
    service.now += rules.LIFETIME + rules.REST
    assert await service.open() == 0
    store = service.store
    assert [len(kept) for kept in (store._entries, store._ends, store._by_peer, store._by_source)] == [0] * 4
    assert len(store._allowed) <= 1024


@needs_redis
async def test_all_that_is_in_redis_expires(one_redis: RedisServer) -> None:
    service = RedisService(one_redis.url)
    async with service.redis as redis:
        await redis.flushall()
        number = await service.opened()
        await service.say(ALICE, AttendMailbox(number=number))
        closed = await service.opened(body=b"another")
        await service.say(ALICE, CloseMailbox(number=closed))
        await service.claimed(number)
        await service.say(BOB, PutMailbox(number=number, body=b"answer"))
        lifetimes = {key: await redis.ttl(key) for key in await redis.keys()}
        assert all(0 < left <= 2 * 86400 for left in lifetimes.values()), lifetimes
        # Nothing of what was said is kept of one that is closed.
        assert set(await redis.hkeys(f"quice:mailbox:{closed}")) == {b"ends", b"opened"}  # type: ignore[misc]


@needs_redis
async def test_one_of_many_processes_gets_a_mailbox(one_redis: RedisServer) -> None:
    service = RedisService(one_redis.url)
    async with service.redis as redis:
        await redis.flushall()
        number = await service.opened()
        peers = [Identity.generate().peer for _ in range(rules.CLAIMS_BY_SOURCE.burst)]
        told = await asyncio.gather(*(service.say(peer, ClaimMailbox(number=number)) for peer in peers))
        assert sorted(len(each) for each in told) == [1] * (len(peers) - 1) + [2]
