"""What a person sees on a terminal."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import struct
import termios
from pathlib import Path

import pytest

from tests.cli.commands import QUICE, quice

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


async def shown(columns: int, *arguments: str) -> list[str]:
    """The lines that a command which ends well shows on a terminal of this width, each of a bar's states among them."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = await asyncio.create_subprocess_exec(
        *QUICE, *arguments, stdin=theirs, stdout=theirs, stderr=theirs, env=environment | {"TERM": "xterm"}
    )
    os.close(theirs)
    text = await asyncio.to_thread(_read, ours)
    os.close(ours)
    assert await process.wait() == 0, text
    return [line for line in re.split(r"[\r\n]+", _ESCAPES.sub("", text)) if line]


def _read(descriptor: int) -> str:
    text = b""
    # Once the other end is closed, reading is an error on Linux and the end of the file elsewhere.
    try:
        while block := os.read(descriptor, 1 << 16):
            text += block
    except OSError:
        pass
    return text.decode()


@pytest.mark.parametrize("columns", [16, 40, 60, 80, 200])
async def test_a_bar_stays_in_its_line_on_every_terminal(url: str, source: Path, out: Path, columns: int) -> None:
    (source / "[bold]file").touch()
    os.truncate(source / "[bold]file", 100_000_000)
    async with quice("send", source / "[bold]file", "--server", url, "--json") as send:
        ticket = (await send.event("ticket"))["ticket"]
        path, *bar, result = await shown(columns, "receive", ticket, "--out", str(out))
        await send.succeeded()
    assert " path to " in path
    assert result.startswith("received 100,000,000 bytes in ")
    assert len(bar) >= 2
    for state in bar:
        assert state.startswith("receiving ")
        assert len(state) <= columns
    assert ("100%" if columns < 60 else "100.0/100.0 MB") in bar[-1]
    assert (out / "[bold]file").exists()
