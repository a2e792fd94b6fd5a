"""The TURN service of `quice serve` and clients that others have written: aioice, pion, and coturn's test client."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import shutil
from collections.abc import AsyncIterator

import pytest
from aioice.turn import create_turn_endpoint

from interop.programs import client_of_pion, pion_unavailable
from quice.server import Server
from quice.server.relay import RelaySettings
from quice.wire import Address
from tests.server.relayed import SECRET, credentials, sink

UCLIENT = shutil.which("turnutils_uclient")
TRANSPORTS = ("udp", "tcp")


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    relay = RelaySettings(secret=SECRET, allow=(ipaddress.ip_network("127.0.0.0/8"),), rate=None, quota=64)
    async with Server("127.0.0.1", 0, 0, relay=relay) as server:
        yield server


class _Inbox(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.received: asyncio.Queue[tuple[bytes, tuple[str, int]]] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.received.put_nowait((data, addr))


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_aioice_relays_through_it(transport: str) -> None:
    account = credentials()
    async with serving() as server, sink() as (plain, at):
        endpoint, inbox = await create_turn_endpoint(
            _Inbox, tuple(server.stun), account.username, account.password, transport=transport
        )
        relayed = endpoint.get_extra_info("sockname")
        loop = asyncio.get_running_loop()
        for data in (b"hello", b"x" * 1200):
            endpoint.sendto(data, tuple(at))
            assert await loop.sock_recvfrom(plain, 2048) == (data, relayed)
            plain.sendto(data, relayed)
            assert await inbox.received.get() == (data, tuple(at))
        endpoint.close()
        while len(server.relay.turn):
            await asyncio.sleep(0.01)


@pytest.mark.slow
@pytest.mark.skipif(pion_unavailable() is not None, reason=str(pion_unavailable()))
@pytest.mark.timeout(300)  # The first test with pion builds its programs, with all that they stand on.
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_pion_relays_through_it(transport: str) -> None:
    binary = await asyncio.to_thread(client_of_pion)
    account = credentials()
    async with serving() as server, sink() as (plain, at):
        options = ["-server", str(server.stun), "-user", account.username, "-password", account.password]
        options += ["-peer", str(at)] + (["-tcp"] if transport == "tcp" else [])
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(binary, *options, stdin=pipe, stdout=pipe)
        assert process.stdin is not None
        assert process.stdout is not None
        relayed = (await process.stdout.readline()).decode().strip()
        loop = asyncio.get_running_loop()
        for word in (b"hello", b"again", b"x" * 1200):
            process.stdin.write(word + b"\n")
            data, source = await loop.sock_recvfrom(plain, 2048)
            assert (data, str(Address(*source))) == (word, relayed)
            plain.sendto(word[::-1], source)
            assert (await process.stdout.readline()).strip() == word[::-1]
        process.stdin.close()
        assert await process.wait() == 0
        while len(server.relay.turn):
            await asyncio.sleep(0.01)


@pytest.mark.slow
@pytest.mark.skipif(UCLIENT is None, reason="coturn: install the package coturn")
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("way", ["channels", "indications"])
async def test_coturns_test_client_loses_nothing(transport: str, way: str) -> None:
    assert UCLIENT is not None
    async with serving() as server:
        options = ["-y", "-c", "-W", SECRET, "-u", "somebody", "-n", "20", "-m", "4", "-l", "800"]
        options += ["-t"] if transport == "tcp" else []
        options += ["-s"] if way == "indications" else []
        process = await asyncio.create_subprocess_exec(
            UCLIENT, *options, "-p", str(server.stun.port), "127.0.0.1", stdout=asyncio.subprocess.PIPE
        )
        output = (await process.communicate())[0].decode()
        assert process.returncode == 0, output
        sent, received = re.findall(r"tot_send_msgs=(\d+), tot_recv_msgs=(\d+)", output)[-1]
        assert int(received) == int(sent) > 0
        assert "Total lost packets 0" in output
