"""Commands as processes of their own, and what they print."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

QUICE = (sys.executable, "-c", "from quice.cli import main; main()")
Event = dict[str, Any]

_PATIENCE = 40.0
"""Seconds to wait for a line or for the end, more than a lost connection takes to be noticed."""


class Quice:
    """A running command. With --json, its lines are events."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        """What it has printed on standard output so far."""
        self.errors = ""
        """What it printed on standard error, once it has ended."""

    async def line(self) -> str:
        """The next line of standard output; empty at its end."""
        assert self.process.stdout is not None
        line = (await asyncio.wait_for(self.process.stdout.readline(), _PATIENCE)).decode()
        if line:
            self.lines.append(line)
        return line

    async def event(self, name: str) -> Event:
        """The next event of this name."""
        while line := await self.line():
            event: Event = json.loads(line)
            if event["event"] == name:
                return event
        raise AssertionError(f"no event {name!r} in {self.lines}, but {await self.ended()}: {self.errors}")

    async def progress(self, share: float) -> Event:
        """The first event that tells of a transfer that has come this far, and is not over."""
        while True:
            event = await self.event("progress")
            if event["total"] * share <= event["bytes"] < event["total"]:
                return event

    async def ended(self) -> int:
        """The exit status, once it has ended."""
        output, errors = await asyncio.wait_for(self.process.communicate(), _PATIENCE)
        self.lines += output.decode().splitlines(keepends=True)
        self.errors += errors.decode()
        assert self.process.returncode is not None
        return self.process.returncode

    async def succeeded(self) -> Event:
        """The last event of a command that ends well and says nothing on standard error."""
        status = await self.ended()
        assert (status, self.errors) == (0, ""), self.lines
        last: Event = json.loads(self.lines[-1])
        return last

    @property
    def events(self) -> list[Event]:
        """All events so far."""
        return [json.loads(line) for line in self.lines]


@contextlib.asynccontextmanager
async def quice(*arguments: str | Path, environment: dict[str, str] | None = None) -> AsyncIterator[Quice]:
    """Start a command, in an environment that names neither server nor identity; it ends with the block."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("QUICE_")}
    process = await asyncio.create_subprocess_exec(
        *QUICE,
        *map(str, arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=inherited | (environment or {}),
    )
    command = Quice(process)
    try:
        yield command
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def run(*arguments: str | Path, environment: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Run a command to its end: its status, and what it printed on standard output and standard error."""
    async with quice(*arguments, environment=environment) as command:
        status = await command.ended()
        return status, "".join(command.lines), command.errors
