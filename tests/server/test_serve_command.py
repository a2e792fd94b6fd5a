"""`quice serve`: ready when it says so, and gone when it is told to."""

from __future__ import annotations

import asyncio
import json
import signal
import sys

import pytest

from quice.identity import Identity
from quice.network import local_addresses
from quice.signal.rendezvous import RendezvousClient
from quice.wire import Address

COMMAND = (
    sys.executable,
    "-c",
    "from quice.cli import main; main()",
    "serve",
    "--json",
    "--port",
    "0",
    "--stun-port",
    "0",
)


LINK_LOCAL = next((local.host for local in local_addresses() if local.ip.version == 6 and local.ip.is_link_local), "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "::1",
        pytest.param(
            LINK_LOCAL,
            id="link-local",
            marks=pytest.mark.skipif(not LINK_LOCAL, reason="no IPv6 link-local address here"),
        ),
    ],
)
async def test_its_first_line_says_where_it_is_and_a_signal_ends_it_cleanly(number: int, host: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "--host", host, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        ready = json.loads(await process.stdout.readline())
        assert ready["event"] == "ready"
        client = RendezvousClient(ready["url"], Identity.generate(), print)
        await client.start()
        assert [str(address) for address in client.stun_servers] == [ready["stun"]]
        assert client.stun_servers[0] == Address(host, client.stun_servers[0].port)
        process.send_signal(number)
        _, errors = await process.communicate()
        await client.close()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    assert errors == b""


async def test_a_port_that_is_taken_ends_it_with_one_clear_line() -> None:
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as taken:
        port = taken.sockets[0].getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            *COMMAND, "--host", "127.0.0.1", "--port", str(port), stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        output, errors = await process.communicate()
    assert process.returncode == 1
    (line,) = output.splitlines()
    assert json.loads(line)["event"] == "error"
    assert f"TCP port {port}" in json.loads(line)["message"]
    assert b"Traceback" not in errors
