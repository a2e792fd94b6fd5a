"""The sending side of a transfer, whoever has made the connection."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quice.cli.output import Output, in_words
from quice.cli.runner import UsageError
from quice.cli.watch import path_changes

if TYPE_CHECKING:
    from quice.connection import Connection
    from quice.transfer.sources import Source

_GOODBYE = 5.0
"""Seconds for the receiver to close the connection after it has everything."""


@dataclass(frozen=True)
class Sent:
    """What it was, and how long it took."""

    bytes: int
    seconds: float
    connect_seconds: float


async def collected(output: Output, paths: list[Path]) -> list[Source]:
    """What there is to send. Raises `UsageError` for what can't be sent, and when there is nothing."""
    from quice.errors import LocalFileError
    from quice.transfer.disk import in_thread
    from quice.transfer.sources import collect

    def skipped(path: Path, why: str) -> None:
        output.event("skipped", f"not sent: {str(path)!r} is {why}", path=str(path), reason=why)

    try:
        sources = await in_thread(lambda stop: collect(paths, skipped, stop))
    except LocalFileError as error:
        raise UsageError(f"can't send {error.path}: {error.reason}. Mend that, or leave it out") from None
    if not sources:
        raise UsageError("there is nothing to send: name a file or a folder")
    return sources


async def serve(output: Output, connection: Connection, sources: list[Source], secret: bytes, gone: str) -> Sent | None:
    """Serve one receiver; None when it does not come to an end, and then people are told `gone`.

    Raises `NotPairedError` when the receiver takes nothing from this peer.
    """
    from quice.errors import ConnectionClosedError, Error, NotPairedError, PeerClosedError
    from quice.transfer.messages import NOT_PAIRED
    from quice.transfer.sender import serve_stream

    started = time.monotonic()
    async with connection, path_changes(output, connection):
        try:
            stream = await connection.accept_stream()
            with output.progress("sending") as progress:
                sent = await serve_stream(stream, sources, progress, secret=secret)
        except Error as error:
            if isinstance(error, PeerClosedError) and error.code == NOT_PAIRED:
                raise NotPairedError from None
            if not isinstance(error, ConnectionClosedError):
                output.error(error)
            output.event("interrupted", gone)
            return None
        seconds = time.monotonic() - started
        # The receiver closes once it knows that we know.
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(connection.wait_closed(), _GOODBYE)
    return Sent(sent, seconds, connection.connect_seconds)


def tell_sent(output: Output, result: Sent) -> None:
    """Tell that a receiver has everything."""
    output.event(
        "done",
        in_words("sent", result.bytes, result.seconds),
        bytes=result.bytes,
        seconds=round(result.seconds, 6),
        connect_seconds=round(result.connect_seconds, 6),
    )
