"""`quice connect`: what goes into one process comes out of the other."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import pty
import random
import signal
from collections.abc import AsyncIterator

import pytest

from quice import Endpoint
from quice.errors import ConnectionClosedError
from quice.server import Server
from quice.ticket import Ticket
from tests.cli.commands import QUICE, Event

_PATIENCE = 40.0
LARGE = random.Random(1).randbytes(5_000_000)


class Side:
    """One running command: standard input and output are data, and its events come on standard error."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        assert process.stdout is not None
        assert process.stderr is not None
        self.shows, self.tells = process.stdout, process.stderr

    @property
    def types(self) -> asyncio.StreamWriter:
        assert self.process.stdin is not None
        return self.process.stdin

    async def event(self, name: str) -> Event:
        while line := await asyncio.wait_for(self.tells.readline(), _PATIENCE):
            event: Event = json.loads(line)
            if event["event"] == name:
                return event
        raise AssertionError(f"no event {name!r}")

    async def says(self, data: bytes) -> None:
        """Type this, and no more."""
        self.types.write(data)
        self.types.close()

    async def ended(self) -> tuple[int, bytes]:
        """The exit status, and what was left to read."""
        rest, _ = await asyncio.wait_for(asyncio.gather(self.shows.read(), self._drained()), _PATIENCE)
        return await asyncio.wait_for(self.process.wait(), _PATIENCE), rest

    async def _drained(self) -> None:
        self.errors = await self.tells.read()


@contextlib.asynccontextmanager
async def side(*arguments: str, stdin: int = asyncio.subprocess.PIPE) -> AsyncIterator[Side]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("QUICE_")}
    process = await asyncio.create_subprocess_exec(
        *QUICE,
        "connect",
        "--json",
        *arguments,
        stdin=stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        # With no terminal to ask, the answer is a line of standard input.
        start_new_session=True,
        limit=1 << 20,
        env=inherited,
    )
    try:
        yield Side(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def introduced(first: Side, second: Side, answer: str) -> None:
    first.types.write(f"{answer}\n".encode())
    await first.event("path")
    await second.event("path")


@contextlib.asynccontextmanager
async def by_hand(*options: str) -> AsyncIterator[tuple[Side, Side]]:
    """Two sides, introduced by two texts."""
    async with side("--manual", *options) as first:
        offer = (await first.event("offer"))["description"]
        async with side("--manual", offer, *options) as second:
            await introduced(first, second, (await second.event("answer"))["description"])
            yield first, second


async def test_two_texts_join_two_processes_and_all_arrives_both_ways() -> None:
    async with by_hand() as (first, second):
        await first.says(LARGE)
        await second.says(b"thanks")
        (status, shown), (other_status, other_shown) = await asyncio.gather(first.ended(), second.ended())
        assert (status, shown) == (0, b"thanks")
        assert other_status == 0
        assert hashlib.sha256(other_shown).digest() == hashlib.sha256(LARGE).digest()


async def test_what_is_typed_before_the_other_side_is_there_arrives_too() -> None:
    async with side("--manual") as first:
        offer = (await first.event("offer"))["description"]
        # An offer says itself that it is one.
        async with side(offer) as second:
            second.types.write(b"early\n")
            answer = (await second.event("answer"))["description"]
            first.types.write(f"{answer}\nat once\n".encode())
            assert await asyncio.wait_for(first.shows.readline(), _PATIENCE) == b"early\n"
            assert await asyncio.wait_for(second.shows.readline(), _PATIENCE) == b"at once\n"
            # A conversation: neither has come to its end yet.
            second.types.write(b"and you?\n")
            assert await asyncio.wait_for(first.shows.readline(), _PATIENCE) == b"and you?\n"
            for each in (first, second):
                each.types.close()
            assert await asyncio.gather(first.ended(), second.ended()) == [(0, b""), (0, b"")]


async def test_a_stun_server_is_all_that_takes_part() -> None:
    async with Server("127.0.0.1", 0, 0) as server, by_hand("--stun", str(server.stun)) as (first, second):
        await first.says(b"question")
        await second.says(b"answer")
        assert await asyncio.gather(first.ended(), second.ended()) == [(0, b"answer"), (0, b"question")]


@pytest.mark.parametrize("text", ["hello\n", "", "{offer}\n"])
async def test_what_is_no_answer_is_told_in_a_line(text: str) -> None:
    async with side("--manual") as first:
        offer = (await first.event("offer"))["description"]
        await first.says(text.format(offer=offer).encode())
        error = await first.event("error")
        assert error["kind"] == ("description" if text else "usage")
        assert (await first.ended())[0] == 2


async def test_at_a_terminal_one_may_paste_again_and_is_done_when_the_other_side_is() -> None:
    keyboard, terminal = pty.openpty()
    try:
        async with side("--manual", stdin=terminal) as first:
            offer = (await first.event("offer"))["description"]
            async with side("--manual", offer) as second:
                answer = (await second.event("answer"))["description"]
                os.write(keyboard, f"{answer[:-9]}\n".encode())
                assert (await first.event("error"))["kind"] == "description"
                os.write(keyboard, f"{answer}\n".encode())
                await second.says(b"that is all")
                assert await asyncio.gather(first.ended(), second.ended()) == [(0, b"that is all"), (0, b"")]
    finally:
        os.close(keyboard)
        os.close(terminal)


async def test_who_has_the_ticket_is_let_in_and_nobody_else(url: str, tmp_path: object) -> None:
    async with side("--listen", "--server", url, "--identity", f"{tmp_path}/identity") as first:
        text = (await first.event("ticket"))["ticket"]
        ticket = Ticket.parse(text)
        async with Endpoint.bind(server=url) as stranger:
            connection = await stranger.connect(ticket.peer, alpn="quice-connect/1")
            stream = await connection.open_stream()
            await stream.write(bytes(16) + b"let me in")
            with pytest.raises(ConnectionClosedError):
                await stream.read()
        async with side(text) as second:
            await second.says(b"it is me")
            await first.says(b"welcome")
            assert await asyncio.gather(first.ended(), second.ended()) == [(0, b"it is me"), (0, b"welcome")]


async def test_an_interruption_of_one_side_is_an_error_of_the_other() -> None:
    async with by_hand() as (first, second):
        first.types.write(b"a beginning\n")
        assert await asyncio.wait_for(second.shows.readline(), _PATIENCE) == b"a beginning\n"
        first.process.send_signal(signal.SIGINT)
        assert (await first.ended())[0] == 1
        error = await second.event("error")
        assert error["kind"] == "peer_interrupted"
        assert "the other side was interrupted" in error["message"]
        assert (await second.ended())[0] == 1


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        (("--listen",), "usage", "--server URL or QUICE_SERVER"),
        (("hello",), "ticket", "does not begin with 'quice1'. Copy it again, whole, as it was printed on the other"),
        (("--manual", "hello"), "description", "does not begin with 'quiceoffer1'"),
        (("--manual", "--stun", "turn:somewhere"), "server_uri", "a port is a number"),
    ],
)
async def test_wrong_values_are_told_beside_the_data(arguments: tuple[str, ...], kind: str, said: str) -> None:
    async with side(*arguments) as command:
        error = await command.event("error")
        assert error["kind"] == kind
        assert said in error["message"]
        assert await command.ended() == (2, b"")
