"""Processes of one service that are killed, drained and come back, while clients go on."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from websockets.exceptions import ConnectionClosed

from quice.identity import Identity
from quice.signal import protocol
from quice.signal.messages import EndOfCandidates, Offer
from quice.signal.protocol import Deliver, Delivered, Undeliverable
from quice.signal.rendezvous import RendezvousClient
from quice.signal.sealed import RendezvousSignalling
from tests.server.peers import RawPeer, raw_peer, until
from tests.server.processes import Process, serving
from tests.server.redis_server import RedisServer, needs_redis, redis
from tests.signal.test_rendezvous_client import OFFER

__all__ = ["redis"]
pytestmark = [needs_redis, pytest.mark.slow]


@contextlib.asynccontextmanager
async def client(*urls: str) -> AsyncIterator[tuple[RendezvousClient, asyncio.Queue[RendezvousSignalling]]]:
    sessions: asyncio.Queue[RendezvousSignalling] = asyncio.Queue()
    made = RendezvousClient(urls, Identity.generate(), sessions.put_nowait)
    await made.start()
    try:
        yield made, sessions
    finally:
        await made.close()


class Receiver:
    """A peer that registers wherever it can, again and again, and notes what it gets."""

    def __init__(self, processes: list[Process]) -> None:
        self.identity = Identity.generate()
        self.got: list[bytes] = []
        self.homes = processes
        self.registered = 0

    async def stay(self) -> None:
        for number in range(1000):
            home = self.homes[number % len(self.homes)]
            with contextlib.suppress(OSError, ConnectionClosed):
                async with raw_peer(home, self.identity) as peer:  # type: ignore[arg-type]
                    await peer.registered()
                    self.registered += 1
                    while True:
                        message = await peer.receive()
                        assert isinstance(message, Delivered)
                        self.got.append(message.body)
            await asyncio.sleep(0.05)


async def gather_reports(sender: RawPeer, reports: list[bytes]) -> None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            message = await sender.receive()
            assert isinstance(message, Undeliverable)
            reports.append(message.session)


class Traffic:
    """Senders at one process, receivers that begin at another; each message is told from all others by its session."""

    def __init__(self, home: Process, doomed: Process, *, senders: int, receivers: int) -> None:
        self.receivers = [Receiver([doomed, home]) for _ in range(receivers)]
        self.reports: list[bytes] = []
        self.sent: list[bytes] = []
        self._home = home
        self._count = senders
        self._tasks: list[asyncio.Task[None]] = []
        self._exits = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Traffic:
        self.senders = [
            await (await self._exits.enter_async_context(raw_peer(self._home))).registered()  # type: ignore[arg-type]
            for _ in range(self._count)
        ]
        self._tasks = [asyncio.create_task(receiver.stay()) for receiver in self.receivers]
        self._tasks += [asyncio.create_task(gather_reports(sender, self.reports)) for sender in self.senders]
        await until(lambda: all(receiver.registered for receiver in self.receivers))
        return self

    async def send(self, count: int) -> None:
        """Each sender sends so many, all at once; no more than the server lets them send without waiting."""

        async def flood(sender: RawPeer) -> None:
            for _ in range(count):
                number = len(self.sent)
                session = number.to_bytes(protocol.SESSION_LENGTH, "big")
                self.sent.append(session)
                to = self.receivers[number % len(self.receivers)].identity.peer
                await sender.send(Deliver(to=to.key, session=session, body=session))
                await asyncio.sleep(0)

        await asyncio.gather(*(flood(sender) for sender in self.senders))

    @property
    def got(self) -> list[bytes]:
        return [body for receiver in self.receivers for body in receiver.got]

    async def settled(self) -> None:
        """Wait until each message has arrived or was reported, and longer, for those that come late."""
        await until(lambda: set(self.got).union(self.reports) == set(self.sent))
        await asyncio.sleep(1)

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._exits.aclose()


async def test_what_is_on_its_way_to_a_process_that_is_killed_arrives_once_or_is_reported(redis: RedisServer) -> None:
    options = ("--redis", redis.url, "--no-relay")
    async with (
        serving(*options) as stays,
        serving(*options) as doomed,
        Traffic(stays, doomed, senders=30, receivers=20) as traffic,
    ):
        flood = asyncio.create_task(traffic.send(100))
        await until(lambda: len(traffic.got) > 500)
        await doomed.kill()
        on_their_way = len(traffic.sent) - len(traffic.got)
        await flood
        await traffic.settled()
        assert on_their_way > 0
        assert len(traffic.got) == len(set(traffic.got))
        assert len(traffic.reports) == len(set(traffic.reports))
        assert len(traffic.got) > len(traffic.sent) / 2


async def test_what_a_process_has_taken_and_not_delivered_is_reported_and_what_it_has_not_taken_arrives(
    redis: RedisServer,
) -> None:
    options = ("--redis", redis.url, "--no-relay")
    async with (
        serving(*options) as stays,
        serving(*options) as doomed,
        Traffic(stays, doomed, senders=1, receivers=1) as traffic,
        Redis.from_url(redis.url) as client,
    ):
        # What it waits for goes to it, and no further.
        doomed.send_signal(signal.SIGSTOP)
        await traffic.send(1)
        await until_pushed(client, 1)
        await traffic.send(1)
        await until_pushed(client, 2)
        await doomed.kill()
        await traffic.settled()
        assert traffic.reports == traffic.sent[:1]
        assert traffic.got == traffic.sent[1:]


async def until_pushed(client: Redis, count: int) -> None:
    """Wait until so many parcels have been put into inboxes."""
    while (await client.info("commandstats")).get("cmdstat_rpush", {}).get("calls", 0) < count:
        await asyncio.sleep(0.01)


async def test_sessions_go_on_when_the_process_of_one_side_is_killed_and_then_that_of_the_other(
    redis: RedisServer,
) -> None:
    options = ("--redis", redis.url, "--no-relay")
    async with (
        serving(*options) as first,
        serving(*options) as second,
        serving(*options) as third,
        client(first.url, third.url) as (one, _),
        client(second.url, third.url) as (other, sessions),
    ):
        near = one.open(other.identity.peer)
        await near.send(OFFER)
        far = await sessions.get()
        assert isinstance(await far.receive(), Offer)
        await first.kill()
        await far.send(EndOfCandidates(ufrag="first"))
        assert await near.receive() == EndOfCandidates(ufrag="first")
        await second.kill()
        await near.send(EndOfCandidates(ufrag="second"))
        assert await far.receive() == EndOfCandidates(ufrag="second")
        assert one.url == other.url == third.url


async def test_a_process_that_is_drained_loses_nothing_and_ends_once_its_peers_have_gone(redis: RedisServer) -> None:
    options = ("--redis", redis.url, "--no-relay", "--drain", "30")
    async with (
        serving(*options) as first,
        serving(*options) as second,
        client(first.url, second.url) as (one, _),
        client(second.url) as (other, sessions),
    ):
        near = one.open(other.identity.peer)
        await near.send(OFFER)
        far = await sessions.get()
        assert isinstance(await far.receive(), Offer)
        first.send_signal(signal.SIGTERM)
        assert (await first.event())["event"] == "draining"
        for number in range(50):
            await far.send(EndOfCandidates(ufrag=f"{number:04}"))
        assert [await near.receive() for _ in range(50)] == [EndOfCandidates(ufrag=f"{n:04}") for n in range(50)]
        assert await asyncio.wait_for(first.ended(), 15) == (0, "")
        assert one.is_registered
        assert one.url == second.url


async def test_a_second_sigterm_ends_a_draining_process_at_once(redis: RedisServer) -> None:
    options = ("--redis", redis.url, "--no-relay", "--drain", "50")
    async with serving(*options) as process, client(process.url):
        process.send_signal(signal.SIGTERM)
        assert (await process.event())["event"] == "draining"
        process.send_signal(signal.SIGTERM)
        assert (await asyncio.wait_for(process.ended(), 10))[0] == 0


async def test_a_redis_that_is_not_there_at_the_beginning_is_named() -> None:
    with pytest.raises(AssertionError, match="Redis"):
        async with serving("--redis", "redis://127.0.0.1:1/0"):
            pass
