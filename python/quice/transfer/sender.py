"""Sending files and folders to whoever connects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3

from quice.errors import LocalFileError, TransferError, TransferProtocolError
from quice.stream import Stream
from quice.transfer.messages import (
    BLOCK,
    Abort,
    Done,
    Entry,
    EntryKind,
    Fetch,
    FileHeader,
    Manifest,
    Want,
    Wants,
    expect,
    frame,
)

Progress = Callable[[int, int], None]
"""Called with the bytes done, those skipped included, and the bytes in all."""


@dataclass(frozen=True)
class Source:
    """Something to send: where it lies, and what the other side is told of it."""

    path: Path
    entry: Entry


def collect(paths: Sequence[Path], skipped: Callable[[Path, str], None]) -> list[Source]:
    """Everything at and below these paths, each under its own name. Raises `LocalFileError` for what is not there.

    Symbolic links below a folder, sockets and devices are not sent: `skipped` is told.
    """
    sources: list[Source] = []
    names: set[str] = set()
    for path in paths:
        resolved = path.resolve()
        if resolved.name in names:
            raise LocalFileError(str(path), "another path has the same name")
        names.add(resolved.name)
        if not resolved.exists():
            raise LocalFileError(str(path), "there is no such file or folder")
        sources += _walk(resolved, resolved.name or "root", skipped)
    return sources


def _walk(path: Path, name: str, skipped: Callable[[Path, str], None]) -> Iterator[Source]:
    if path.is_dir():
        yield Source(path, Entry(EntryKind.FOLDER, name))
        try:
            children = sorted(path.iterdir())
        except OSError as error:
            raise LocalFileError(str(path), error.strerror or str(error)) from error
        for child in children:
            if child.is_symlink():
                skipped(child, "a symbolic link")
            else:
                yield from _walk(child, f"{name}/{child.name}", skipped)
    elif path.is_file():
        status = path.stat()
        yield Source(path, Entry(EntryKind.FILE, name, status.st_size, bool(status.st_mode & 0o100)))
    else:
        skipped(path, "neither a file nor a folder")


async def serve_stream(stream: Stream, sources: Sequence[Source], progress: Progress) -> int:
    """Serve one receiver on its stream; returns the bytes sent once it has everything.

    Raises a `TransferError`, `StreamError` or `ConnectionClosedError`; the other side is told why if it can be.
    """
    try:
        fetch = await expect(stream, Fetch)
        if fetch.version != 1:
            raise TransferProtocolError(f"version {fetch.version} is not known here")
        await stream.write(frame(Manifest(entries=[source.entry for source in sources])))
        wants = (await expect(stream, Wants)).wants
        total = sum(source.entry.size for source in sources)
        # What is not wanted, the receiver has.
        done = total - sum(_source(sources, want).entry.size for want in wants)
        sent = 0
        progress(done, total)
        for want in wants:
            source = _source(sources, want)
            async for count, fresh in _send_file(stream, want, source):
                done += count
                sent += count if fresh else 0
                progress(done, total)
        await expect(stream, Done)
        stream.finish()
    except TransferError as error:
        await _abort(stream, error)
        raise
    return sent


def _source(sources: Sequence[Source], want: Want) -> Source:
    if not 0 <= want.index < len(sources) or sources[want.index].entry.kind is not EntryKind.FILE:
        raise TransferProtocolError("it wants a file that was not offered")
    return sources[want.index]


async def _abort(stream: Stream, error: TransferError) -> None:
    try:
        await stream.write(frame(Abort(text=str(error))))
        stream.finish()
    except Exception:
        # The stream is beyond use; the first error is the one that counts.
        return


async def _send_file(stream: Stream, want: Want, source: Source) -> AsyncIterator[tuple[int, bool]]:
    """Send one file; yields (bytes, whether they were sent rather than there already)."""
    try:
        with open(source.path, "rb", buffering=0) as file:
            hasher = await asyncio.to_thread(_prefix, file, want, source.entry.size)
            offset = want.offset if hasher is not None else 0
            hasher = hasher or blake3()
            await asyncio.to_thread(file.seek, offset)
            await stream.write(frame(FileHeader(index=want.index, offset=offset)))
            yield offset, False
            left = source.entry.size - offset
            # While one block is sent, a thread reads and hashes the next.
            reading = asyncio.ensure_future(asyncio.to_thread(_next_block, file, hasher, left))
            try:
                while left:
                    block = await reading
                    if not block:
                        raise LocalFileError(str(source.path), "it became shorter while it was sent")
                    left -= len(block)
                    reading = asyncio.ensure_future(asyncio.to_thread(_next_block, file, hasher, left))
                    await stream.write(block)
                    yield len(block), True
            finally:
                await asyncio.gather(reading, return_exceptions=True)
            await stream.write(hasher.digest())
    except OSError as error:
        raise LocalFileError(str(source.path), error.strerror or str(error)) from error


def _prefix(file: BinaryIO, want: Want, size: int) -> blake3 | None:
    """The hash of what the receiver has, or None when that is not how the file begins."""
    if not 0 < want.offset <= size:
        return None
    hasher = blake3()
    left = want.offset
    while left:
        block = file.read(min(BLOCK, left))
        if not block:
            return None
        hasher.update(block)
        left -= len(block)
    return hasher if hasher.digest() == want.digest else None


def _next_block(file: BinaryIO, hasher: blake3, left: int) -> bytes:
    block = file.read(min(BLOCK, left)) if left else b""
    hasher.update(block)
    return block
