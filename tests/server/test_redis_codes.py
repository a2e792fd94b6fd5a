"""Short codes between peers at different processes of one service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from quice import Endpoint
from quice.errors import CodeGoneError, WrongCodeError
from quice.signal.codes import Code
from quice.signal.mailbox import OfferedCode
from tests.server.processes import Process, serving
from tests.server.redis_server import RedisServer, needs_redis, redis

__all__ = ["redis"]
pytestmark = [needs_redis, pytest.mark.slow]


@pytest.fixture
async def processes(redis: RedisServer) -> AsyncIterator[list[Process]]:
    options = ("--redis", redis.url, "--no-relay")
    async with serving(*options) as one, serving(*options) as other:
        yield [one, other]


def at(*processes: Process) -> Any:
    return Endpoint.bind(server=[process.url for process in processes], host="127.0.0.1")


def other_words(code: OfferedCode) -> Code:
    first, second = code.code.words
    return Code(code.code.number, (first, "clover" if second != "clover" else "clockwork"))


async def test_two_peers_at_different_processes_meet_by_a_code(processes: list[Process]) -> None:
    one, other = processes
    async with at(one) as alice, at(other) as bob:
        code = await alice.offer_code(b"of alice")
        waiting = asyncio.create_task(code.wait())
        assert await bob.enter_code(str(code), b"of bob") == (alice.peer, b"of alice")
        assert await waiting == (bob.peer, b"of bob")
        with pytest.raises(CodeGoneError):
            await bob.enter_code(str(code))


async def test_a_wrong_code_at_one_process_burns_it_at_all_and_the_other_side_is_told(
    processes: list[Process],
) -> None:
    one, other = processes
    async with at(one) as alice, at(other) as eve, at(other) as bob, at(one) as near:
        code = await alice.offer_code(b"secret")
        waiting = asyncio.create_task(code.wait())
        with pytest.raises(WrongCodeError):
            await eve.enter_code(other_words(code))
        with pytest.raises(WrongCodeError):
            await waiting
        for late in (bob, near):
            with pytest.raises(CodeGoneError):
                await late.enter_code(str(code))


async def test_a_code_outlives_the_process_that_it_was_made_at(processes: list[Process]) -> None:
    one, other = processes
    async with at(one, other) as alice, at(other) as bob:
        code = await alice.offer_code(b"of alice")
        waiting = asyncio.create_task(code.wait())
        await one.kill()
        assert await bob.enter_code(str(code), b"of bob") == (alice.peer, b"of alice")
        assert await waiting == (bob.peer, b"of bob")
        assert alice.server == other.url


async def test_without_redis_a_code_is_asked_for_until_it_is_back(processes: list[Process], redis: RedisServer) -> None:
    one, other = processes
    async with at(one) as alice, at(other) as bob:
        redis.kill()
        offering = asyncio.create_task(alice.offer_code(b"of alice"))
        done, _ = await asyncio.wait([offering], timeout=1)
        assert not done
        redis.start()
        code = await offering
        waiting = asyncio.create_task(code.wait())
        assert (await bob.enter_code(str(code))).peer == alice.peer
        assert (await waiting).peer == bob.peer
