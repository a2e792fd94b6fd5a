"""Ctrl-C and SIGTERM at every stage: the command ends soon, the other side is told, and nobody sees a traceback."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from pathlib import Path

import pytest

from quice.identity import Identity
from quice.ticket import Ticket
from quice.transfer.paths import PARTIAL
from tests.cli.commands import Quice, quice

SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
SOON = 8.0
"""Seconds within which a command is gone; saying goodbye to a peer that is silent takes two."""


async def interrupt(command: Quice, number: signal.Signals, status: int = 1) -> None:
    """Send the signal; the command ends with that status, and says nothing on standard error."""
    command.process.send_signal(number)
    assert await asyncio.wait_for(command.ended(), SOON) == status
    assert command.errors == ""


@pytest.fixture
def file(source: Path) -> Path:
    """A file of zeros, which takes seconds to send and no time to make."""
    path = source / "zeros"
    path.touch()
    os.truncate(path, 2 << 30)
    return path


@SIGNALS
async def test_a_sender_that_waits(url: str, file: Path, number: signal.Signals) -> None:
    async with quice("send", file, "--server", url, "--json") as send:
        await send.event("ticket")
        await interrupt(send, number)


@SIGNALS
async def test_a_sender_while_it_sends(url: str, file: Path, out: Path, number: signal.Signals) -> None:
    async with quice("send", file, "--server", url, "--json") as send:
        ticket = (await send.event("ticket"))["ticket"]
        async with quice("receive", ticket, "--out", out, "--json") as receive:
            await send.progress(0.01)
            await interrupt(send, number)
            assert await asyncio.wait_for(receive.ended(), SOON) == 1
            assert receive.errors == ""
    last = receive.events[-1]
    assert (last["event"], last["kind"]) == ("error", "remote_interrupted")
    assert "the other side was interrupted" in last["message"]
    assert "receive by its new code or ticket" in last["message"]
    assert [path.name for path in out.iterdir()] == [PARTIAL]


@SIGNALS
async def test_a_receiver_while_it_receives(url: str, file: Path, out: Path, number: signal.Signals) -> None:
    async with quice("send", file, "--server", url, "--json") as send:
        ticket = (await send.event("ticket"))["ticket"]
        async with quice("receive", ticket, "--out", out, "--json") as receive:
            await receive.progress(0.01)
            await interrupt(receive, number)
        await send.event("interrupted")
        assert "error" not in [event["event"] for event in send.events]
        # The offer stands.
        assert send.process.returncode is None
        await interrupt(send, number)
    assert [path.name for path in out.iterdir()] == [PARTIAL]


@SIGNALS
async def test_with_bars_on_standard_error_they_are_all_that_is_there(
    url: str, file: Path, out: Path, number: signal.Signals
) -> None:
    async with quice("send", file, "--server", url) as send:
        while not (line := await send.line()).strip().startswith("quice receive "):
            assert line
        async with quice(*line.split()[1:], "--out", out) as receive:
            assert "path" in await receive.line()
            while not out.exists():
                await asyncio.sleep(0.01)
            receive.process.send_signal(number)
            assert await asyncio.wait_for(receive.ended(), SOON) == 1
        send.process.send_signal(number)
        assert await asyncio.wait_for(send.ended(), SOON) == 1
    assert "Traceback" not in receive.errors + send.errors


@SIGNALS
async def test_a_receiver_that_connects_to_a_peer_who_does_not_answer(
    url: str, out: Path, number: signal.Signals
) -> None:
    """The peer is registered, and deaf."""
    from quice.signal.rendezvous import RendezvousClient

    deaf = RendezvousClient(url, Identity.generate(), lambda session: offered.set())
    offered = asyncio.Event()
    await deaf.start()
    try:
        ticket = Ticket(deaf.identity.peer, url, bytes(16))
        async with quice("receive", str(ticket), "--out", out, "--json") as receive:
            await asyncio.wait_for(offered.wait(), SOON)
            await interrupt(receive, number)
        assert receive.lines == []
    finally:
        await deaf.close()


@SIGNALS
async def test_commands_that_connect_to_a_server_which_does_not_answer(file: Path, number: signal.Signals) -> None:
    connected = asyncio.Event()

    async def be_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(be_silent, "127.0.0.1", 0) as silent:
        url = f"ws://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
        peer = Identity.generate().peer
        for arguments in (
            ("send", file, "--server", url),
            ("receive", str(Ticket(peer, url))),
            ("ping", str(peer), "--server", url),
        ):
            connected.clear()
            async with quice(*arguments, "--json") as command:
                await asyncio.wait_for(connected.wait(), SOON)
                await interrupt(command, number)
            assert command.lines == []


@SIGNALS
async def test_ping_between_two_pings_and_who_answers_it(url: str, tmp_path: Path, number: signal.Signals) -> None:
    async with quice("ping", "--identity", tmp_path / "identity", "--server", url, "--json") as answering:
        ticket = (await answering.event("ticket"))["ticket"]
        async with quice("ping", ticket, "--interval", "60", "--json") as ping:
            await ping.event("pong")
            await interrupt(ping, number)
        # To answer until Ctrl-C is its work: done.
        await interrupt(answering, number, status=0)


async def test_a_second_ctrl_c_hurries_and_leaves_no_traceback_either(url: str, file: Path, out: Path) -> None:
    async with quice("send", file, "--server", url, "--json") as send:
        ticket = (await send.event("ticket"))["ticket"]
        async with quice("receive", ticket, "--out", out, "--json") as receive:
            await receive.progress(0.01)
            # The sender stands still, so that the receiver's goodbye has nobody to answer it.
            send.process.send_signal(signal.SIGSTOP)
            for _ in range(3):
                with contextlib.suppress(ProcessLookupError):
                    receive.process.send_signal(signal.SIGINT)
                await asyncio.sleep(0.1)
            # One may come when the command is at its end, and end it on the spot.
            assert await asyncio.wait_for(receive.ended(), SOON) in (1, -signal.SIGINT)
            assert receive.errors == ""
            send.process.send_signal(signal.SIGCONT)


async def test_a_server_with_a_connection_that_says_nothing() -> None:
    async with quice("serve", "--host", "127.0.0.1", "--port", "0", "--stun-port", "0", "--json") as serve:
        url = (await serve.event("ready"))["url"]
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))):
            await interrupt(serve, signal.SIGINT, status=0)
