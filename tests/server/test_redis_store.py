"""Several servers that are one service, by Redis."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest
from redis.asyncio import Redis

from quice.identity import Identity
from quice.server import Server
from quice.server import redis_store as redis_module
from quice.server.redis_store import RedisStore
from quice.server.relay import NO_RELAY
from quice.signal import protocol
from quice.signal.protocol import (
    ClaimMailbox,
    MailboxBody,
    MailboxOpened,
    MailboxTaken,
    OpenMailbox,
    Refused,
    Registered,
    Undeliverable,
)
from tests.server.peers import SESSION, raw_peer, until
from tests.server.redis_server import RedisServer, needs_redis, redis

__all__ = ["redis"]
pytestmark = needs_redis

Serve = Callable[[], "contextlib.AbstractAsyncContextManager[Server]"]


@pytest.fixture
def serve(redis: RedisServer) -> Serve:
    @contextlib.asynccontextmanager
    async def serve() -> AsyncIterator[Server]:
        async with Server("127.0.0.1", 0, 0, relay=NO_RELAY, store=RedisStore(redis.url)) as server:
            yield server

    return serve


def store_of(server: Server) -> RedisStore:
    assert isinstance(server._store, RedisStore)
    return server._store


async def test_peers_at_two_servers_reach_each_other(serve: Serve) -> None:
    async with serve() as one, serve() as other, raw_peer(one) as near, raw_peer(other) as far:
        await near.registered()
        await far.registered()
        for number in range(20):
            await near.deliver(far.peer, bytes([number]))
        assert [await far.body() for _ in range(20)] == [bytes([number]) for number in range(20)]
        await far.deliver(near.peer, b"back")
        assert await near.body() == b"back"


async def test_a_message_to_a_peer_that_is_nowhere_comes_back(serve: Serve) -> None:
    nobody = Identity.generate().peer
    async with serve() as one, serve(), raw_peer(one) as near:
        await near.registered()
        await near.deliver(nobody, b"hello?")
        assert await near.receive() == Undeliverable(to=nobody.key, session=SESSION)


async def test_a_message_to_a_peer_that_has_left_comes_back_however_lately_it_was_there(serve: Serve) -> None:
    async with serve() as one, serve() as other, raw_peer(one) as near:
        await near.registered()
        async with raw_peer(other) as far:
            await far.registered()
            await near.deliver(far.peer, b"here")
            assert await far.body() == b"here"
        await until(lambda: len(other.rendezvous) == 0)
        await near.deliver(far.peer, b"and now?")
        assert await near.receive() == Undeliverable(to=far.peer.key, session=SESSION)


async def test_a_peer_that_registers_at_another_server_leaves_the_first(serve: Serve) -> None:
    identity = Identity.generate()
    async with serve() as one, serve() as other, raw_peer(one) as near, raw_peer(one, identity) as old:
        await near.registered()
        await old.registered()
        await near.deliver(identity.peer, b"to the old one")
        assert await old.body() == b"to the old one"
        async with raw_peer(other, identity) as new:
            await new.registered()
            assert await old.ended() == (protocol.REPLACED, "registered again")
            await near.deliver(identity.peer, b"to the new one")
            assert await new.body() == b"to the new one"
        await until(lambda: len(other.rendezvous) == 0)


async def test_a_peer_that_comes_and_goes_between_servers_is_found_at_the_last(serve: Serve) -> None:
    identity = Identity.generate()
    async with serve() as one, serve() as other, serve() as third, raw_peer(third) as near:
        await near.registered()
        async with contextlib.AsyncExitStack() as stack:
            for number, server in enumerate([one, other, one, one, other, other, one]):
                peer = await (await stack.enter_async_context(raw_peer(server, identity))).registered()
                await near.deliver(identity.peer, bytes([number]))
                assert await peer.body() == bytes([number])


async def test_a_peer_that_does_not_want_to_replace_is_refused_at_every_server(serve: Serve) -> None:
    identity = Identity.generate()
    async with serve() as one, serve() as other:
        async with raw_peer(one, identity) as first:
            await first.registered()
            async with raw_peer(other, identity) as second:
                await second.register(replace=False)
                assert await second.receive() == Refused(text="this peer is registered on another connection")
        await until(lambda: len(one.rendezvous) == 0)
        await store_of(one).settle()
        async with raw_peer(other, identity) as third:
            await third.register(replace=False)
            assert isinstance(await third.receive(), Registered)


async def test_a_message_to_a_peer_whose_server_has_just_died_waits_for_it_to_come_back(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_module, "LEASE", 0.3)
    monkeypatch.setattr(redis_module, "_RENEWAL", 0.1)
    identity = Identity.generate()
    async with serve() as one, serve() as other, raw_peer(one) as near:
        await near.registered()
        async with serve() as dying, raw_peer(dying, identity) as far:
            await far.registered()
            await near.deliver(identity.peer, b"before")
            assert await far.body() == b"before"
            await die(dying)
            # Into the inbox of a process that is not yet known to be dead, and to one that is.
            await near.deliver(identity.peer, b"meanwhile")
            await asyncio.sleep(0.5)
            await near.deliver(identity.peer, b"after")
            async with raw_peer(other, identity) as again:
                await again.registered()
                assert {await again.body(), await again.body()} == {b"meanwhile", b"after"}


async def test_a_message_that_a_dying_server_has_taken_is_reported(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_module, "LEASE", 0.3)
    monkeypatch.setattr(redis_module, "_RENEWAL", 0.1)
    async with serve() as one, serve() as dying, raw_peer(one) as near, raw_peer(dying) as far:
        await near.registered()
        await far.registered()
        store = store_of(dying)
        taken = asyncio.Event()
        monkeypatch.setattr(store, "_unpack", lambda _data: taken.set())
        await near.deliver(far.peer, b"taken, and never delivered")
        await taken.wait()
        await die(dying)
        assert await near.receive() == Undeliverable(to=far.peer.key, session=SESSION)


async def test_without_redis_peers_at_the_same_server_still_reach_each_other(serve: Serve, redis: RedisServer) -> None:
    async with serve() as one, serve() as other, raw_peer(one) as near, raw_peer(one) as beside, raw_peer(other) as far:
        for peer in (near, beside, far):
            await peer.registered()
        redis.kill()
        await until(lambda: store_of(one).trouble is not None)
        await near.deliver(beside.peer, b"still here")
        assert await beside.body() == b"still here"
        await near.deliver(far.peer, b"out of reach")
        assert isinstance(await near.receive(), Undeliverable)
        async with raw_peer(one) as late:
            await late.registered()
            # It knows nobody when it is back: all are told of again.
            redis.start()
            await until(lambda: store_of(one).trouble is store_of(other).trouble is None)
            await far.deliver(late.peer, b"found")
            assert await late.body() == b"found"
            await near.deliver(far.peer, b"again")
            assert await far.body() == b"again"


async def test_a_redis_that_does_not_answer_holds_up_no_registration_for_long(
    serve: Serve, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_module, "_TIMEOUT", 0.3)
    monkeypatch.setattr(redis_module, "_BLOCK", 0.1)
    async with serve() as one, raw_peer(one) as near:
        await near.registered()
        redis.stop()
        try:
            async with raw_peer(one) as beside:
                await asyncio.wait_for(beside.registered(), 2)
                await near.deliver(beside.peer, b"hello")
                assert await beside.body() == b"hello"
        finally:
            redis.go_on()
        await until(lambda: store_of(one).trouble is None)


async def test_a_server_that_ends_leaves_nothing_in_redis(serve: Serve, redis: RedisServer) -> None:
    async with serve() as one, raw_peer(one) as near:
        async with serve() as other, raw_peer(other) as far:
            await near.registered()
            await far.registered()
            await near.deliver(far.peer, b"hello")
            await far.body()
            await store_of(one).settle()
        keys = await store_of(one)._redis.keys("quice:*")
        mine = store_of(one).process.encode()
        assert set(keys) == {b"quice:process:" + mine, b"quice:at:" + near.peer.key}


async def die(server: Server) -> None:
    """Have a server do nothing any more, and say nothing to anybody: as when its process is killed."""
    store = store_of(server)
    store._closed = True
    for task in store._tasks:
        task.cancel()
    await asyncio.gather(*store._tasks, return_exceptions=True)
    await store._redis.connection_pool.disconnect()
    server._listener.close()
    server._connections.cut_off()
    store_of(server)._claims.clear()
    store_of(server)._released.clear()
    server.rendezvous._peers.clear()


async def test_what_the_server_has_to_say_of_a_mailbox_waits_for_a_peer_that_is_out_of_reach(
    serve: Serve, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quice.server.rendezvous._PAUSES", (0.2,) * 20)
    async with serve() as one, serve() as other, raw_peer(one) as alice, raw_peer(other) as bob:
        await alice.registered()
        await bob.registered()
        await alice.send(OpenMailbox(body=b"greeting"))
        opened = await alice.receive()
        assert isinstance(opened, MailboxOpened)
        async with Redis.from_url(redis.url) as client:
            place = b"quice:at:" + alice.peer.key
            entry = await client.getdel(place)
            await bob.send(ClaimMailbox(number=opened.number))
            assert isinstance(await bob.receive(), MailboxBody)
            await asyncio.sleep(0.5)
            await client.set(place, entry)
        assert await alice.receive() == MailboxTaken(number=opened.number, peer=bob.peer.key)
