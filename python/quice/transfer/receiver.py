"""Receiving files and folders."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from quice.errors import TransferProtocolError, UnsafePathError
from quice.stream import Stream
from quice.transfer.disk import hash_prefix, in_thread, naming
from quice.transfer.kept import KeptTicket, forget_complete
from quice.transfer.messages import (
    BLOCK,
    DIGEST_LENGTH,
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
    telling,
)
from quice.transfer.paths import PARTIAL, make_folder, numbered, parts_of
from quice.transfer.progress import Progress, Tally
from quice.transfer.store import Plan, Target, Writer

_MAX_SIZE = 1 << 62


@dataclass(frozen=True)
class Received:
    """What a transfer brought: paths that are now there, bytes that came over the network."""

    paths: list[Path]
    bytes: int


async def fetch(
    stream: Stream,
    out: Path,
    progress: Progress,
    *,
    secret: bytes = b"",
    overwrite: bool = False,
    kept: KeptTicket | None = None,
) -> Received:
    """Fetch all that the sender offers into the folder `out`, going on where an earlier try ended.

    secret: the ticket's. A file that is there already is left alone if it is the same; if not, the new one gets a
    number in its name, or with `overwrite` replaces it. kept: where the ticket is kept until everything is there.
    Raises a `TransferError`, of which the sender is told by closing the connection, a `StreamError` or a
    `ConnectionClosedError`.
    """
    with telling(stream):
        await stream.write(frame(Fetch(secret=secret)))
        entries = (await expect(stream, Manifest)).entries
        targets = await in_thread(lambda _: _prepare(entries, out, overwrite))
        if kept is not None:
            await in_thread(lambda _: kept.note(entries))
        plans = await in_thread(lambda stop: [_plan(target, stop) for target in targets])
        await stream.write(frame(Wants(wants=[plan.want for plan in plans])))
        tally = Tally(progress, sum(entry.size for entry in entries))
        paths: list[Path] = []
        for plan in plans:
            header = await expect(stream, FileHeader)
            if header.index != plan.want.index or header.offset not in (0, plan.want.offset):
                raise TransferProtocolError("a file that was not asked for")
            tally.advance(header.offset, 0)
            paths.append(await _receive_file(stream, Writer(plan, header.offset, overwrite), tally))
        tally.tell()
        with contextlib.suppress(OSError):
            (out / PARTIAL).rmdir()
        await stream.write(frame(Done()))
        stream.finish()
        # The sender's end of the stream says that it knows.
        await stream.read()
    await in_thread(lambda _: forget_complete(out, entries))
    return Received(paths, tally.moved)


def _prepare(entries: list[Entry], out: Path, overwrite: bool) -> list[Target]:
    """Check every name before anything is written, and make the folders; returns the files."""
    plan = [(index, entry, parts_of(entry.path)) for index, entry in enumerate(entries)]
    seen: set[tuple[str, ...]] = set()
    for _, entry, parts in plan:
        if parts in seen:
            raise UnsafePathError(entry.path, "it is named twice")
        seen.add(parts)
        if not 0 <= entry.size < _MAX_SIZE:
            raise TransferProtocolError("a file of impossible size")
    with naming(out):
        out.mkdir(parents=True, exist_ok=True)
    unfinished = make_folder(out, (PARTIAL,))
    made: set[tuple[str, ...]] = set()
    targets: list[Target] = []
    for index, entry, parts in plan:
        folder = parts if entry.kind is EntryKind.FOLDER else parts[:-1]
        if folder not in made:
            make_folder(out, folder)
            made.add(folder)
        if entry.kind is EntryKind.FILE:
            final = out.joinpath(*parts)
            partial = unfinished / (blake3("/".join(parts).encode()).hexdigest(16) + ".part")
            with naming(final):
                existing = _existing(final, entry.size, overwrite)
            targets.append(Target(index, entry, final, partial, existing))
    return targets


def _existing(final: Path, size: int, overwrite: bool) -> Path | None:
    """A finished file that may be the one offered: that of its size, the last by number if there are several."""
    existing = None
    for path in numbered(final):
        if not path.is_symlink() and not path.exists():
            break
        if _is_plain(path) and path.stat().st_size == size:
            existing = path
        if overwrite:
            break
    return existing


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _plan(target: Target, stop: threading.Event) -> Plan:
    """Ask for what is missing: after what an earlier try left, or nothing if a finished file is the same."""
    for known in (target.partial, target.existing):
        if known is None or not _is_plain(known):
            continue
        with naming(known), open(known, "rb", buffering=0) as file:
            size = min(known.stat().st_size, target.entry.size)
            hasher = hash_prefix(file, size, stop)
        if hasher is not None and (size or known == target.existing):
            return Plan(target, Want(target.index, size, hasher.digest()), known)
    return Plan(target, Want(target.index))


async def _receive_file(stream: Stream, writer: Writer, tally: Tally) -> Path:
    """Receive and store what is missing of one file, and its digest; returns where it is then."""
    try:
        left = writer.missing
        if left <= BLOCK:
            content = await stream.readexactly(left)
            tally.advance(0, left)
            digest = await stream.readexactly(DIGEST_LENGTH)
            return await in_thread(lambda stop: writer.store(content, digest, stop))
        await in_thread(writer.open)
        await _copy(stream, writer, left, tally)
        digest = await stream.readexactly(DIGEST_LENGTH)
        return await in_thread(lambda _: writer.commit(digest))
    finally:
        writer.close()


async def _copy(stream: Stream, writer: Writer, left: int, tally: Tally) -> None:
    """Move `left` bytes from the stream to the file. Two buffers take turns: while a thread hashes and writes one,
    the other is filled."""
    buffer, spare = bytearray(BLOCK), bytearray(BLOCK)
    writing: asyncio.Future[None] | None = None
    try:
        while left:
            size = min(left, BLOCK)
            filled = 0
            with memoryview(buffer) as view:
                while filled < size:
                    count = await stream.readinto(view[filled:size])
                    if not count:
                        raise TransferProtocolError("the stream ended in the middle of a file")
                    filled += count
            if writing is not None:
                await writing
            left -= size
            writing = asyncio.ensure_future(asyncio.to_thread(writer.write, memoryview(buffer)[:size]))
            buffer, spare = spare, buffer
            tally.advance(0, size)
        if writing is not None:
            await writing
    finally:
        if writing is not None:
            await asyncio.gather(writing, return_exceptions=True)
