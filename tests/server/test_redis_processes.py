"""Processes of one service that are killed, drained and come back, while clients go on."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator

import pytest
from websockets.exceptions import ConnectionClosed

from quice.identity import Identity
from quice.signal import protocol
from quice.signal.messages import EndOfCandidates, Offer
from quice.signal.protocol import Deliver, Delivered, Undeliverable
from quice.signal.rendezvous import RendezvousClient, RendezvousSignalling
from tests.server.peers import RawPeer, raw_peer, until
from tests.server.processes import Process, serving
from tests.server.redis_server import RedisServer, needs_redis, redis
from tests.signal.test_rendezvous_client import OFFER

__all__ = ["redis"]
pytestmark = [needs_redis, pytest.mark.slow]

_MESSAGES = 3000


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


async def test_what_is_on_its_way_to_a_process_that_is_killed_arrives_once_or_is_reported(redis: RedisServer) -> None:
    options = ("--redis", redis.url, "--no-relay", "--max-per-address", "0")
    async with serving(*options) as stays, serving(*options) as doomed, raw_peer(stays) as sender:  # type: ignore[arg-type]
        await sender.registered()
        receivers = [Receiver([doomed, stays]) for _ in range(20)]
        staying = [asyncio.create_task(receiver.stay()) for receiver in receivers]
        await until(lambda: all(receiver.registered for receiver in receivers))
        reports: list[bytes] = []
        reporting = asyncio.create_task(gather_reports(sender, reports))
        sessions = [number.to_bytes(protocol.SESSION_LENGTH, "big") for number in range(_MESSAGES)]
        for number, session in enumerate(sessions):
            receiver = receivers[number % len(receivers)].identity.peer
            await sender.send(Deliver(to=receiver.key, session=session, body=session))
            if number == _MESSAGES // 4:
                await doomed.kill()
        # Not when they are as many: one that is delivered and reported stands for none that is neither yet.
        await until(lambda: {body for receiver in receivers for body in receiver.got}.union(reports) == set(sessions))
        # One that comes late would come by now.
        await asyncio.sleep(1)
        got = [body for receiver in receivers for body in receiver.got]
        assert len(got) == len(set(got))
        assert len(reports) == len(set(reports))
        assert len(got) > _MESSAGES // 2
        for task in (*staying, reporting):
            task.cancel()
        await asyncio.gather(*staying, reporting, return_exceptions=True)


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
        near = one.open(other._identity.peer)
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
        near = one.open(other._identity.peer)
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
