"""A million datagrams from a stranger, while a transfer runs: nothing breaks, fills up or is told at length."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import random
import resource
import sys
from typing import Any

import pytest

from quice import Address, Connection, Endpoint
from quice.server import Server
from tests.endpoint.conftest import ALPN
from tests.endpoint.noise import TABLE, queues

DATAGRAMS = 1_000_000
_MEMORY = 24 << 20
"""Bytes by which the process may grow between a quarter of them and all: what its queues may hold, and no more."""
_LOG_LINES = 20


def resident() -> int:
    """Bytes of memory that this process has now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


async def send(connection: Connection, enough: asyncio.Event) -> bytes:
    """Send until it is enough; returns the digest of what was sent."""
    rng = random.Random(3)
    stream = await connection.open_stream(unidirectional=True)
    digest = hashlib.sha256()
    while not enough.is_set():
        block = rng.randbytes(1 << 16)
        digest.update(block)
        await stream.write(block)
        # The noise is to have most of the machine.
        await asyncio.sleep(0.01)
    stream.finish()
    return digest.digest()


async def receive(connection: Connection) -> tuple[bytes, int]:
    """Receive a stream to its end; returns the digest and the size of what came."""
    stream = await connection.accept_stream()
    digest, size = hashlib.sha256(), 0
    while block := await stream.read():
        digest.update(block)
        size += len(block)
    return digest.digest(), size


async def reconnect(client: Endpoint, server: Endpoint, enough: asyncio.Event) -> int:
    """Make one connection after the other through the rendezvous server; returns how many."""
    count = 0
    while not enough.is_set():
        async with await client.connect(server.peer, alpn=ALPN) as near, await server.accept() as far:
            stream = await near.open_stream()
            await stream.write(b"hello")
            assert await (await far.accept_stream()).readexactly(5) == b"hello"
        count += 1
        await asyncio.sleep(0.2)
    return count


@pytest.mark.slow
@pytest.mark.asyncio(loop_factories=["asyncio"])
@pytest.mark.timeout(400)
@pytest.mark.skipif(not TABLE.exists(), reason="needs /proc/net/udp, to see that nothing is dropped in the kernel")
async def test_a_million_datagrams_of_every_kind_while_a_transfer_runs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    async with (
        Server("127.0.0.1", 0, 0) as rendezvous,
        Endpoint.bind(server=rendezvous.url, alpns=[ALPN], host="127.0.0.1") as server,
        Endpoint.bind(server=rendezvous.url, host="127.0.0.1") as client,
    ):
        near = await client.connect(server.peer, alpn=ALPN, address=Address("127.0.0.1", server.port))
        far = await server.accept()
        enough = asyncio.Event()
        receiving = asyncio.create_task(receive(far))
        sending = asyncio.create_task(send(near, enough))
        reconnecting = asyncio.create_task(reconnect(client, server, enough))

        ports = (server.port, client.port, rendezvous.stun.port)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.endpoint.noise", str(DATAGRAMS), "19", *map(str, ports)),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        lines, memory = [], []
        async for line in process.stdout:
            lines.append(line)
            memory.append(resident())
        sent: dict[str, int] = json.loads(lines[-1])
        assert await process.wait() == 0
        dropped = sum(queues()[port][1] for port in ports)

        enough.set()
        digest = await sending
        assert (await asyncio.wait_for(receiving, 30))[0] == digest
        connections = await reconnecting
        near.close()
    assert sum(sent.values()) - dropped >= DATAGRAMS, dropped
    assert connections > 5
    assert failures == []
    told = [record.getMessage() for record in caplog.get_records("call")]
    assert len(told) <= _LOG_LINES, told[:_LOG_LINES]
    growth = max(memory[len(memory) // 4 :]) - memory[len(memory) // 4]
    assert growth <= _MEMORY, [size >> 20 for size in memory]
