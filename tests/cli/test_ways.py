"""Which ways a command's connections take: relays and policies by options, and what is told of them."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from quice.server import Server
from quice.server.relay import RelaySettings
from quice.turn.credentials import time_limited
from tests.cli.commands import quice, run
from tests.cli.test_terminal import shown

SECRET = "shared"
HIDDEN = "this side uses no address but those of its relays"
HIDING = "the peer has told no address but those of its relays"


@pytest.fixture
async def unrelayed() -> AsyncIterator[str]:
    """A server that relays nothing."""
    async with Server("127.0.0.1", 0, 0, relay=RelaySettings(serve=False)) as server:
        yield server.url


@pytest.fixture
async def relay() -> AsyncIterator[str]:
    """A relay that is nobody's rendezvous."""
    async with Server("127.0.0.1", 0, 0, relay=RelaySettings(secret=SECRET)) as server:
        yield next(url for url in server.turn if url.endswith("udp"))


@pytest.fixture
def account() -> dict[str, str]:
    credentials = time_limited(SECRET, time.time() + 600, "somebody")
    return {"QUICE_RELAY_USER": credentials.username, "QUICE_RELAY_PASSWORD": credentials.password}


async def test_a_ping_with_the_policy_relay_says_that_it_is_relayed_and_why(url: str, tmp_path: Path) -> None:
    async with quice("ping", "--identity", tmp_path / "identity", "--server", url, "--json") as answering:
        ticket = (await answering.event("ticket"))["ticket"]
        async with quice("ping", ticket, "--count", "1", "--policy", "relay", "--json") as ping:
            await ping.succeeded()
        answered = await answering.event("relayed")
    names = [event["event"] for event in ping.events]
    # At first, and with what is known at the end.
    assert names == ["path", "relayed", "report", "pong", "relayed", "done"]
    assert ping.events[0]["kind"] == "relay"
    assert ping.events[1]["reason"] == HIDDEN
    assert answered["reason"] == HIDING


async def test_people_are_told_why_a_ping_is_not_direct(url: str, tmp_path: Path) -> None:
    async with quice("ping", "--identity", tmp_path / "identity", "--server", url, "--json") as answering:
        ticket = (await answering.event("ticket"))["ticket"]
        status, output, errors = await run("ping", ticket, "--count", "1", "--policy", "relay")
        assert (status, errors) == (0, "")
        path, reason, *_ = output.splitlines()
        assert path.startswith("relay path to ")
        assert reason == f"not direct: {HIDDEN}"

        lines = await shown(80, "ping", ticket, "--watch", "--count", "2", "--interval", "0.1", "--policy", "relay")
    assert any("│ * │ relay │ " in line for line in lines)
    assert f"not direct: {HIDDEN}" in lines


async def test_a_direct_ping_says_nothing_of_relays(url: str, tmp_path: Path) -> None:
    async with quice("ping", "--identity", tmp_path / "identity", "--server", url, "--json") as answering:
        ticket = (await answering.event("ticket"))["ticket"]
        async with quice("ping", ticket, "--count", "1", "--policy", "direct", "--json") as ping:
            await ping.succeeded()
    assert ping.events[0]["kind"] in ("lan", "direct")
    assert "relayed" not in [event["event"] for event in ping.events]


@pytest.mark.parametrize("hidden", ["send", "receive"])
async def test_files_go_through_the_relay_if_either_side_says_so(
    url: str, source: Path, out: Path, hidden: str
) -> None:
    (source / "file").write_bytes(os.urandom(1_000_000))
    policies = {command: ("--policy", "relay") if command == hidden else () for command in ("send", "receive")}
    async with quice("send", source / "file", "--server", url, *policies["send"], "--json") as send:
        ticket = (await send.event("ticket"))["ticket"]
        async with quice("receive", ticket, "--out", out, *policies["receive"], "--json") as receive:
            await receive.succeeded()
        await send.succeeded()
    assert (out / "file").read_bytes() == (source / "file").read_bytes()
    for name, command in (("send", send), ("receive", receive)):
        kinds = [event["kind"] for event in command.events if event["event"] == "path"]
        assert set(kinds) == {"relay"}
        (relayed,) = [event for event in command.events if event["event"] == "relayed"]
        assert relayed["reason"] == (HIDDEN if name == hidden else HIDING)


async def test_a_relay_that_is_named_is_used_and_its_password_is_told_to_nobody(
    unrelayed: str, relay: str, account: dict[str, str], tmp_path: Path
) -> None:
    password = account["QUICE_RELAY_PASSWORD"]
    options = ("--identity", tmp_path / "identity", "--server", unrelayed, "--relay", relay)
    async with quice("ping", *options, "--json", environment=account) as answering:
        ticket = (await answering.event("ticket"))["ticket"]
        arguments = ("ping", ticket, "--count", "1", "--policy", "relay", "--relay", relay)
        async with quice(*arguments, "--json", environment=account) as ping:
            await ping.succeeded()
        options = ("--relay-user", account["QUICE_RELAY_USER"], "--relay-password", password)
        status, output, errors = await run(*arguments, *options)
        assert (status, errors) == (0, "")
    assert ping.events[0]["kind"] == "relay"
    assert password not in "".join(ping.lines) + ping.errors + output


async def test_the_help_does_not_show_the_password_of_the_environment() -> None:
    for command in ("send", "receive", "ping"):
        _, output, _ = await run(command, "--help", environment={"QUICE_RELAY_PASSWORD": "secret12"})
        assert "QUICE_RELAY_PASSWORD" in output.replace(" ", "").replace("│", "").replace("\n", "")
        assert "secret12" not in output


async def test_the_policy_relay_without_a_relay_ends_at_once_and_says_what_to_do(unrelayed: str, out: Path) -> None:
    async with quice("ping", "--server", unrelayed, "--identity", out.parent / "key", "--json") as answering:
        ticket = (await answering.event("ticket"))["ticket"]
        status, _, errors = await run("ping", ticket, "--policy", "relay")
    assert status == 1
    assert "this endpoint has no relay" in errors
    assert "`--relay`" in errors


async def test_a_peer_with_the_policy_relay_and_no_relay_says_so_at_once(unrelayed: str, tmp_path: Path) -> None:
    options = ("--server", unrelayed, "--identity", tmp_path / "identity", "--policy", "relay", "--json")
    async with quice("ping", *options) as answering:
        ticket = (await answering.event("ticket"))["ticket"]
        async with quice("ping", ticket, "--json") as ping:
            error = await ping.event("error")
            assert await ping.ended() == 1
    assert error["kind"] == "refused"
    assert "use relays alone, and it has none" in error["message"]


async def test_a_table_of_paths_keeps_the_addresses_on_a_narrow_terminal(url: str, tmp_path: Path) -> None:
    async with quice("ping", "--identity", tmp_path / "identity", "--server", url, "--json") as answering:
        ticket = (await answering.event("ticket"))["ticket"]
        lines = await shown(60, "ping", ticket, "--watch", "--count", "2", "--interval", "0.1")
        remote = (await answering.event("path"))["local"]
    assert all(len(line) <= 60 for line in lines)
    table = next(line for line in lines if "kind" in line)
    assert "remote" in table
    assert "MTU" not in table
    assert any(remote in line and "available" in line for line in lines)
