"""The receiving side of a transfer, whoever has made the connection."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from quice.cli.output import Output, in_words
from quice.cli.runner import UsageError
from quice.cli.watch import path_changes

if TYPE_CHECKING:
    from quice.connection import Connection
    from quice.transfer.kept import KeptTicket


def check_folder(out: Path) -> None:
    """Refuse what can't be a folder to store in, while no code is used up yet. Raises `UsageError`."""
    absolute = out.absolute()
    there = next(path for path in (absolute, *absolute.parents) if os.path.lexists(path))
    if not os.path.isdir(there):
        raise UsageError(f"--out takes a folder, and {there} is none. Name another one")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"{there} can't be written to. Name another folder by --out")


async def receive_all(
    output: Output,
    connection: Connection,
    out: Path,
    *,
    overwrite: bool,
    secret: bytes = b"",
    kept: KeptTicket | None = None,
    sender: str | None = None,
) -> None:
    """Fetch all that the other side has, close the connection, and tell. `sender`: the peer's name, if it has one.

    Raises as `fetch` does.
    """
    from quice.transfer.receiver import fetch

    started = time.monotonic()
    async with path_changes(output, connection):
        stream = await connection.open_stream()
        with output.progress("receiving") as progress:
            received = await fetch(stream, out, progress, secret=secret, overwrite=overwrite, kept=kept)
    seconds = time.monotonic() - started
    connection.close()
    verb = "received" if sender is None else f"received from {sender}"
    output.event(
        "done",
        in_words(verb, received.bytes, seconds),
        bytes=received.bytes,
        seconds=round(seconds, 6),
        connect_seconds=round(connection.connect_seconds, 6),
        **({} if sender is None else {"name": sender, "peer": str(connection.peer)}),
    )
