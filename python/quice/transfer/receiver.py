"""Receiving files and folders."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3

from quice.errors import DigestError, LocalFileError, TransferError, TransferProtocolError, UnsafePathError
from quice.stream import Stream
from quice.transfer.messages import (
    BLOCK,
    DIGEST_LENGTH,
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
from quice.transfer.paths import PARTIAL, free_name, make_folder, parts_of
from quice.transfer.sender import Progress


@dataclass(frozen=True)
class Received:
    """What a transfer brought: paths that are now there, bytes that came over the network."""

    paths: list[Path]
    bytes: int


@dataclass(frozen=True)
class _Target:
    entry: Entry
    final: Path
    partial: Path
    exists: bool
    """A file of the same size is there under the final name already; it may be the same."""


async def fetch(stream: Stream, out: Path, progress: Progress, *, overwrite: bool = False) -> Received:
    """Fetch all that the sender offers into the folder `out`, going on where an earlier try ended.

    A file that is there already is left alone if it is the same; if not, the new one gets a number in its name,
    or with `overwrite` replaces it. Raises a `TransferError`, `StreamError` or `ConnectionClosedError`.
    """
    try:
        await stream.write(frame(Fetch()))
        entries = (await expect(stream, Manifest)).entries
        targets = await asyncio.to_thread(_prepare, entries, out)
        total = sum(entry.size for entry in entries)
        wants = [
            await asyncio.to_thread(_want, index, target) for index, target in enumerate(targets) if target is not None
        ]
        await stream.write(frame(Wants(wants=wants)))
        done = received = 0
        paths: list[Path] = []
        buffer = bytearray(BLOCK)
        for want in wants:
            target = targets[want.index]
            header = await expect(stream, FileHeader)
            if target is None or header.index != want.index or header.offset not in (0, want.offset):
                raise TransferProtocolError("a file that was not asked for")
            done += header.offset
            writer = _Writer(target, header.offset, overwrite)
            try:
                await asyncio.to_thread(writer.open)
                async for count in _copy(stream, writer, target.entry.size - header.offset, buffer):
                    done += count
                    received += count
                    progress(done, total)
                digest = await stream.readexactly(DIGEST_LENGTH)
                paths.append(await asyncio.to_thread(writer.commit, digest))
            except OSError as error:
                raise LocalFileError(str(target.final), error.strerror or str(error)) from error
            finally:
                writer.close()
        progress(done, total)
        with contextlib.suppress(OSError):
            (out / PARTIAL).rmdir()
        await stream.write(frame(Done()))
        stream.finish()
        # The sender's end of the stream says that it knows.
        await stream.read()
    except TransferError as error:
        with contextlib.suppress(Exception):
            await stream.write(frame(Abort(text=str(error))))
            stream.finish()
        raise
    except asyncio.IncompleteReadError:
        raise TransferProtocolError("the stream ended in the middle") from None
    return Received(paths, received)


def _prepare(entries: list[Entry], out: Path) -> list[_Target | None]:
    """Check every name before anything is written; make the folders; None for what is not a file."""
    plan = [(entry, parts_of(entry.path)) for entry in entries]
    seen: set[tuple[str, ...]] = set()
    for entry, parts in plan:
        if parts in seen:
            raise UnsafePathError(entry.path, "it is named twice")
        seen.add(parts)
        if entry.size < 0 or entry.size >= 1 << 62:
            raise TransferProtocolError("a file of impossible size")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LocalFileError(str(out), error.strerror or str(error)) from error
    partial = make_folder(out, (PARTIAL,))
    targets: list[_Target | None] = []
    for entry, parts in plan:
        if entry.kind is EntryKind.FOLDER:
            make_folder(out, parts)
            targets.append(None)
            continue
        final = make_folder(out, parts[:-1]) / parts[-1]
        name = blake3("/".join(parts).encode()).hexdigest(16) + ".part"
        exists = final.is_file() and not final.is_symlink() and final.stat().st_size == entry.size
        targets.append(_Target(entry, final, partial / name, exists))
    return targets


def _want(index: int, target: _Target) -> Want:
    """Ask for what is missing: after what an earlier try left, or nothing if the finished file is the same."""
    known = target.final if target.exists else target.partial
    if known.is_symlink() or not known.is_file():
        return Want(index)
    size = min(known.stat().st_size, target.entry.size)
    if size == 0:
        return Want(index)
    return Want(index, size, _hash_prefix(known, size).digest())


def _hash_prefix(path: Path, size: int) -> blake3:
    hasher = blake3()
    try:
        with open(path, "rb", buffering=0) as file:
            while size and (block := file.read(min(BLOCK, size))):
                hasher.update(block)
                size -= len(block)
    except OSError as error:
        raise LocalFileError(str(path), error.strerror or str(error)) from error
    return hasher


class _Writer:
    """Writes a file beside its final name, and moves it there when it is whole and right."""

    def __init__(self, target: _Target, offset: int, overwrite: bool) -> None:
        self._target = target
        self._offset = offset
        self._overwrite = overwrite
        self._file: BinaryIO | None = None
        self._hasher = blake3()

    @property
    def _is_there(self) -> bool:
        """The sender has confirmed that the finished file is the same."""
        return self._target.exists and self._offset == self._target.entry.size

    def open(self) -> None:
        if self._is_there:
            self._hasher = _hash_prefix(self._target.final, self._offset)
            return
        if self._offset:
            self._hasher = _hash_prefix(self._target.partial, self._offset)
        flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        descriptor = os.open(self._target.partial, flags, 0o666)
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        self._file.truncate(self._offset)
        self._file.seek(self._offset)

    def write(self, block: memoryview) -> None:
        if self._file is None:
            raise TransferProtocolError("bytes of a file that is complete")
        self._hasher.update(block)
        while block:
            block = block[self._file.write(block) :]

    def commit(self, digest: bytes) -> Path:
        """Check the digest and give the file its name; returns it."""
        target = self._target
        if self._hasher.digest() != digest:
            self.close()
            target.partial.unlink(missing_ok=True)
            raise DigestError(target.entry.path)
        if self._file is None:
            return target.final
        if target.entry.executable:
            mode = os.fstat(self._file.fileno()).st_mode
            os.fchmod(self._file.fileno(), mode | (mode & 0o444) >> 2)
        os.fsync(self._file.fileno())
        self.close()
        final = target.final if self._overwrite else free_name(target.final)
        os.replace(target.partial, final)
        return final

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


async def _copy(stream: Stream, writer: _Writer, size: int, buffer: bytearray) -> AsyncIterator[int]:
    """Move `size` bytes from the stream to the file; yields their numbers. Two buffers take turns: while a thread
    hashes and writes one, the other is filled."""
    spare = bytearray(len(buffer))
    writing: asyncio.Future[None] | None = None
    try:
        while size:
            filled = 0
            with memoryview(buffer) as view:
                while filled < min(size, len(buffer)):
                    count = await stream.readinto(view[filled : min(size, len(buffer))])
                    if not count:
                        raise TransferProtocolError("the stream ended in the middle of a file")
                    filled += count
            if writing is not None:
                await writing
            size -= filled
            writing = asyncio.ensure_future(asyncio.to_thread(writer.write, memoryview(buffer)[:filled]))
            buffer, spare = spare, buffer
            yield filled
        if writing is not None:
            await writing
    finally:
        if writing is not None:
            await asyncio.gather(writing, return_exceptions=True)
