"""What people and programs are told of a connection's paths."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from quice import Address, Connection, Endpoint, PathChanged, PathOpened
from quice.cli.output import Output
from quice.cli.watch import live_paths, path_changes
from tests.cli.commands import Event, quice
from tests.cli.test_terminal import shown

ALPN = "test/1"


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[Connection]:
    async with Endpoint.bind(alpns=[ALPN]) as server, Endpoint.bind() as client:
        yield await client.connect(server.peer, alpn=ALPN, address=Address("127.0.0.1", server.port))


async def move(connection: Connection) -> None:
    """Open a path from another address of the machine and send over it from now on; the first is closed."""
    events = connection.path_events()
    native, remote = connection._native, connection.paths[0].remote
    while (path := native.open_path(remote, "127.0.0.2", backup=True)) is None:
        await asyncio.sleep(0.01)
    connection._pump.wake()
    async for event in events:
        if isinstance(event, PathOpened):
            native.set_path_status(path, backup=False)
            native.set_path_status(0, backup=True)
            connection._look_at_paths()
            native.close_path(0)
            connection._pump.wake()
        if isinstance(event, PathChanged):
            break
    # Whoever else reads has its turn.
    while len(connection.paths) > 1:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.01)


def printed(capsys: pytest.CaptureFixture[str]) -> list[Event]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


async def test_a_transfer_tells_its_path_at_first_and_each_time_it_changes(capsys: pytest.CaptureFixture[str]) -> None:
    async with connected() as connection:
        async with path_changes(Output(as_json=True), connection):
            await move(connection)
        first, second = printed(capsys)
        assert (first["event"], second["event"]) == ("path", "path")
        assert (first["id"], second["id"]) == (0, 1)
        assert second["local"].startswith("127.0.0.2:")
        assert second["status"] == "available"


async def test_people_are_told_of_a_change_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    async with connected() as connection:
        remote = connection.paths[0].remote
        async with path_changes(Output(as_json=False), connection):
            await move(connection)
        first, second = capsys.readouterr().out.splitlines()
        assert first.startswith(f"lan path to {remote}, ")
        assert second.startswith(f"now lan path to {remote}, ")


async def test_what_watches_tells_every_event_with_the_paths_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    async with connected() as connection:
        async with live_paths(Output(as_json=True), connection):
            await move(connection)
        events = printed(capsys)
    names = [event["event"] for event in events]
    assert names[:2] == ["path", "path_opened"]
    assert {"path_status", "path_closed"} <= set(names)
    changed = events[names.index("path", 1)]
    assert (changed["before"]["id"], changed["id"]) == (0, 1)
    assert {"kind", "local", "remote", "status", "rtt_ms", "loss", "mtu", "sent_bytes", "received_bytes"} <= set(
        changed
    )


async def test_a_watching_ping_shows_a_table_of_the_paths(url: str, tmp_path: Path) -> None:
    async with quice("ping", "--identity", tmp_path / "identity", "--server", url, "--json") as answering:
        ticket = (await answering.event("ticket"))["ticket"]
        lines = await shown(160, "ping", ticket, "--watch", "--count", "3", "--interval", "0.1")
    table = next(line for line in lines if "kind" in line and "status" in line)
    for column in ("local", "remote", "RTT ms", "loss", "MTU", "sent", "received"):
        assert column in table
    assert any("│ * │ lan " in line and "available" in line for line in lines)
    assert any(line.startswith("answer 3 after ") for line in lines)


async def test_a_watching_ping_goes_on_until_it_is_interrupted(url: str, tmp_path: Path) -> None:
    async with quice("ping", "--identity", tmp_path / "identity", "--server", url, "--json") as answering:
        ticket = (await answering.event("ticket"))["ticket"]
        async with quice("ping", ticket, "--watch", "--interval", "0.01", "--json") as ping:
            for number in range(1, 9):
                assert (await ping.event("pong"))["number"] == number
            ping.process.terminate()
            assert await ping.ended() == 0
