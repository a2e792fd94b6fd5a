"""Sending files and folders to whoever connects."""

from __future__ import annotations

import asyncio
import hmac
import threading
from collections.abc import Sequence

from quice.errors import LocalFileError, TransferProtocolError, WrongTicketError
from quice.stream import Stream
from quice.transfer.disk import in_thread
from quice.transfer.messages import (
    MAX_MESSAGE,
    VERSION,
    Done,
    EntryKind,
    Fetch,
    FileHeader,
    Manifest,
    Want,
    Wants,
    expect,
    frame,
    telling,
)
from quice.transfer.progress import Progress, Tally
from quice.transfer.sources import Reader, Source, refresh


async def serve_stream(stream: Stream, sources: Sequence[Source], progress: Progress, *, secret: bytes = b"") -> int:
    """Serve one receiver, who must know `secret`, on its stream; returns the bytes sent once it has everything.

    Files are offered as they are when the receiver comes. Raises a `TransferError`, of which the receiver is told
    by closing the connection, a `StreamError` or a `ConnectionClosedError`.
    """
    with telling(stream):
        fetch = await expect(stream, Fetch)
        if fetch.version != VERSION:
            raise TransferProtocolError(f"version {fetch.version} is not known here")
        if not hmac.compare_digest(fetch.secret, secret):
            raise WrongTicketError
        offered = await in_thread(lambda _: refresh(sources))
        manifest = frame(Manifest(entries=[source.entry for source in offered]))
        if len(manifest) > 4 + MAX_MESSAGE:
            raise LocalFileError(str(sources[0].path), "too many files for one transfer")
        await stream.write(manifest)
        wants = (await expect(stream, Wants)).wants
        wanted = _wanted(offered, wants)
        total = sum(source.entry.size for source in offered)
        # What is not wanted, the receiver has.
        tally = Tally(progress, total, total - sum(source.entry.size for source in wanted))
        tally.tell()
        for want, source in zip(wants, wanted, strict=True):
            await _send_file(stream, want, source, tally)
        await expect(stream, Done)
        stream.finish()
    return tally.moved


def _wanted(sources: Sequence[Source], wants: Sequence[Want]) -> list[Source]:
    """The files that are wanted, in that order; each can be had once."""
    indices = [want.index for want in wants]
    if len(set(indices)) != len(indices):
        raise TransferProtocolError("it wants a file twice")
    if any(not 0 <= index < len(sources) for index in indices):
        raise TransferProtocolError("it wants a file that was not offered")
    wanted = [sources[index] for index in indices]
    if any(source.entry.kind is not EntryKind.FILE for source in wanted):
        raise TransferProtocolError("it wants a folder's bytes")
    return wanted


async def _send_file(stream: Stream, want: Want, source: Source, tally: Tally) -> None:
    """Send one file."""
    reader = Reader(source)

    def start(stop: threading.Event) -> tuple[int, bytes]:
        return reader.open(want, stop), reader.block()

    reading: asyncio.Future[bytes] | None = None
    try:
        offset, block = await in_thread(start)
        header = frame(FileHeader(index=want.index, offset=offset))
        tally.advance(offset, 0)
        if not reader.left:
            # A small file, or a small rest: everything in one write.
            await stream.write(b"".join((header, block, reader.digest())))
            tally.advance(0, len(block))
            return
        await stream.write(header)
        while block:
            # While one block is sent, a thread reads and hashes the next.
            reading = asyncio.ensure_future(asyncio.to_thread(reader.block))
            await stream.write(block)
            tally.advance(0, len(block))
            block = await reading
        await stream.write(reader.digest())
    finally:
        if reading is not None:
            await asyncio.gather(reading, return_exceptions=True)
        reader.close()
