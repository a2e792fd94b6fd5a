"""What README.md and its kin show does what they say: on loopback, or in the lab."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lab.ground import available
from quice.identity import PeerId
from quice.server import Server
from tests.cli.commands import Quice, quice

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
URL = "ws://HOST:4780"
UNAVAILABLE = available()
FILES = ("report.pdf", "photos", "inbox")


def blocks(language: str, text: str = README) -> list[str]:
    """The code blocks in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@contextlib.asynccontextmanager
async def program(code: str, folder: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a block of Python in a folder, until the end of the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, *arguments), cwd=folder, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_the_two_python_programs_connect(tmp_path: Path) -> None:
    bob, alice = blocks("python")
    async with Server("127.0.0.1", 0, 0) as server:
        assert URL in bob
        assert URL in alice
        async with program(bob.replace(URL, server.url), tmp_path) as waiting:
            assert waiting.stdout is not None
            peer = PeerId.parse((await waiting.stdout.readline()).decode())
            async with program(alice.replace(URL, server.url), tmp_path, str(peer)) as connecting:
                output, _ = await connecting.communicate()
    assert output.decode().startswith("hello from alice by ")
    assert connecting.returncode == 0


class Shell:
    """Runs lines of the README: those that stay go on in the background, and what they print is filled in later."""

    def __init__(self, folder: Path, stack: contextlib.AsyncExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._environment = {"QUICE_IDENTITY": str(folder / "desktop" / "identity")}
        self._known: dict[str, str] = {}

    async def run(self, line: str) -> None:
        """Run a line, for whose words the values are put in that are known by now."""
        words = [self._known.get(word, word) for word in shlex.split(line, comments=True)]
        machine = "laptop" if "# on the laptop" in line else "desktop"
        self._environment["QUICE_IDENTITY"] = str(self._folder / machine / "identity")
        match words:
            case ["export", setting]:
                name, _, value = setting.partition("=")
                self._environment[name] = self._known[value]
            case ["quice", "serve"]:
                command = await self._start("serve", "--host", "127.0.0.1", "--port", "0", "--stun-port", "0")
                self._known[URL] = (await command.event("ready"))["url"]
            case ["quice", "send", *_, "--to", _]:
                await self._finish(words[1:])
            case ["quice", "send", *names]:
                command = await self._start("send", *names)
                self._known["TICKET"] = (await command.event("ticket"))["ticket"]
                if "--ticket" not in names:
                    self._known["7-crossover-clockwork"] = (await command.event("code"))["code"]
            case ["quice", "pair", "--name", name]:
                command = await self._start("pair", "--name", name)
                self._known["8-magnetic-waffle"] = (await command.event("code"))["code"]
            case ["quice", "receive", "--out", folder]:
                await (await self._start("receive", "--out", folder)).event("waiting")
            case ["quice", "ping"]:
                self._known["PEER"] = (await (await self._start("ping")).event("ticket"))["ticket"]
            case ["quice", *arguments]:
                await self._finish(arguments)
            case _:
                raise AssertionError(f"no line of a shell: {line}")

    async def _finish(self, arguments: list[str]) -> None:
        command = await self._start(*arguments)
        assert await command.ended() == 0, command.lines

    async def _start(self, *arguments: str) -> Quice:
        """Start a command with --json, and the names of files in the folder."""
        words = [str(self._folder / word) if word in FILES else word for word in arguments if word != "--json"]
        return await self._stack.enter_async_context(quice(*words, "--json", environment=self._environment))


async def test_the_commands_do_what_is_said_of_them(tmp_path: Path) -> None:
    (block,) = blocks("sh")
    (tmp_path / "report.pdf").write_bytes(b"a report")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").write_bytes(os.urandom(1_000_000))
    async with contextlib.AsyncExitStack() as stack:
        shell = Shell(tmp_path, stack)
        for line in block.splitlines():
            await shell.run(line)
    for name in ("report.pdf", "photos/1.jpg"):
        assert (tmp_path / "inbox" / name).read_bytes() == (tmp_path / name).read_bytes()
    assert {path.name for path in (tmp_path / "inbox").iterdir()} == {"report.pdf", "photos"}


PAGES = [Path(name) for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += [path.relative_to(ROOT) for path in sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_file_that_is_named_is_there(page: Path) -> None:
    text = (ROOT / page).read_text()
    named = set(re.findall(r"\]\(([^)#:]+)\)", text))
    named |= {path for path in re.findall(r"`([\w./-]+/[\w./-]*)`", text) if "*" not in path}
    where = [ROOT, ROOT / "python/quice", (ROOT / page).parent]
    assert [path for path in sorted(named) if not any((folder / path).exists() for folder in where)] == []


@pytest.mark.lab
@pytest.mark.skipif(UNAVAILABLE is not None, reason=str(UNAVAILABLE))
def test_the_lab_test_that_is_shown_passes() -> None:
    (code,) = blocks("python", (ROOT / "CONTRIBUTING.md").read_text())
    names: dict[str, Any] = {}
    exec(code, names)
    (test,) = [value for name, value in names.items() if name.startswith("test_")]
    test()
