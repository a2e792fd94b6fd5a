"""`quice serve` as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

COMMAND = (sys.executable, "-m", "quice", "serve", "--json", "--host", "127.0.0.1", "--port", "0", "--stun-port", "0")


class Process:
    """One that has said that it is ready."""

    def __init__(self, process: asyncio.subprocess.Process, ready: dict[str, Any]) -> None:
        self._process = process
        self.url: str = ready["url"]
        self.ready = ready

    def send_signal(self, number: int) -> None:
        self._process.send_signal(number)

    async def kill(self) -> None:
        """As if its machine had lost its power."""
        self._process.kill()
        await self._process.wait()

    async def event(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        event: dict[str, Any] = json.loads(await self._process.stdout.readline())
        return event

    async def ended(self) -> tuple[int, str]:
        """Its exit status, and what it has said on standard error."""
        _, errors = await self._process.communicate()
        assert self._process.returncode is not None
        return self._process.returncode, errors.decode()


@contextlib.asynccontextmanager
async def serving(*options: str) -> AsyncIterator[Process]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*COMMAND, *options, stdout=pipe, stderr=pipe)
    assert process.stdout is not None
    try:
        ready = json.loads(await process.stdout.readline())
        assert ready["event"] == "ready", ready
        yield Process(process, ready)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
            await process.communicate()
