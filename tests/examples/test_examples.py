"""The examples do what they say."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from quice.errors import SignallingError
from quice.server import Server
from quice.signal import Bye

EXAMPLES = Path(__file__).parents[2] / "examples"


async def start(name: str, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, str(EXAMPLES / name), *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )


async def output(name: str, *arguments: str) -> str:
    process = await start(name, *arguments)
    text, _ = await process.communicate()
    assert process.returncode == 0
    return text.decode()


async def test_signalling_over_queues() -> None:
    assert (await output("signalling_queues.py")).startswith("bob received b'hello' over lan ")


@contextlib.asynccontextmanager
async def started(name: str, *arguments: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """An example that stays, and the line that it prints first."""
    process = await start(name, *arguments)
    try:
        assert process.stdout is not None
        yield process, (await process.stdout.readline()).decode().strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_signalling_over_http() -> None:
    name = "signalling_http.py"
    async with started(name, "serve", "0") as (_, url), started(name, "listen", url) as (listening, peer):
        assert await output(name, "call", url, peer) == "hello, alice\n"
        assert await asyncio.wait_for(listening.wait(), 10) == 0


async def test_http_signalling_is_told_of_a_web_server_that_fails() -> None:
    from examples.signalling_http import ClientSession, HttpSignalling

    async with ClientSession("http://127.0.0.1:9") as http:
        signalling = HttpSignalling(http, "there", "back")
        for act in (signalling.receive(), signalling.send(Bye())):
            with pytest.raises(SignallingError):
                await act
        await signalling.close()


async def test_signalling_by_hand() -> None:
    name = "signalling_by_hand.py"
    async with started(name) as (offering, offer), started(name, offer) as (answering, answer):
        assert offering.stdin is not None
        assert offering.stdout is not None
        offering.stdin.write(f"{answer}\n".encode())
        assert await offering.stdout.readline() == b"hello, alice\n"
        assert await asyncio.wait_for(asyncio.gather(offering.wait(), answering.wait()), 10) == [0, 0]


async def test_echo() -> None:
    async with Server("127.0.0.1", 0, 0) as server:
        service = await start("echo.py", server.url)
        try:
            assert service.stdout is not None
            peer = (await service.stdout.readline()).decode().strip()
            assert (await output("echo.py", server.url, peer, "good morning")).startswith("good morning by ")
        finally:
            service.kill()
            await service.wait()


class Chatting:
    """One side of a chat."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process, self.types, self._output = process, process.stdin, process.stdout

    async def line(self, beginning: str = "") -> str:
        """The next line that begins so."""
        while line := (await self._output.readline()).decode():
            if line.startswith(beginning):
                return line.rstrip()
        raise AssertionError(f"nothing that begins with {beginning!r}")


async def test_trust() -> None:
    async with Server("127.0.0.1", 0, 0) as server:
        bob = Chatting(await start("trust.py", server.url))
        alice = Chatting(await start("trust.py", server.url, await bob.line()))
        try:
            both = (alice, bob)
            for one in both:
                assert " over a relay path to " in await one.line("talking with ")
            assert await bob.line("> ") == "> hello"

            alice.types.write(b"is it you?\n/trust\n")
            assert await bob.line("> ") == "> is it you?"
            bob.types.write(b"it is\n")
            assert await alice.line("> ") == "> it is"
            bob.types.write(b"/trust\n")
            for one in both:
                while not (await one.line("now over a ")).startswith("now over a lan path"):
                    pass
            for one in both:
                one.types.close()
            assert [await one.process.wait() for one in both] == [0, 0]
        finally:
            for one in both:
                if one.process.returncode is None:
                    one.process.kill()
                    await one.process.wait()
