"""The examples do what they say."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from quice.server import Server

EXAMPLES = Path(__file__).parents[2] / "examples"


async def start(name: str, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLES / name), *arguments, stdout=asyncio.subprocess.PIPE
    )


async def output(name: str, *arguments: str) -> str:
    process = await start(name, *arguments)
    text, _ = await process.communicate()
    assert process.returncode == 0
    return text.decode()


async def test_own_signalling() -> None:
    assert (await output("own_signalling.py")).startswith("bob received b'hello' over lan ")


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
