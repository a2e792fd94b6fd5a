"""Where a received file is written, and how it gets its name."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3

from quice.errors import DigestError, LocalFileError, TransferProtocolError
from quice.transfer.disk import hash_prefix, naming
from quice.transfer.messages import Entry, Want
from quice.transfer.paths import place

if sys.platform != "win32":
    import fcntl


@dataclass(frozen=True)
class Target:
    """A file to receive: its place in the manifest, its name, and where it waits until it is whole."""

    index: int
    entry: Entry
    final: Path
    partial: Path
    existing: Path | None
    """A finished file that may be the same."""


@dataclass(frozen=True)
class Plan:
    """What is asked of the sender for a target, because of what `known` holds already."""

    target: Target
    want: Want
    known: Path | None = None


class Writer:
    """Writes a file beside its final name, and moves it there when it is whole and right."""

    def __init__(self, plan: Plan, offset: int, overwrite: bool) -> None:
        """`offset`: from where the sender sends, which is what was wanted or 0. `overwrite`: replace what has the
        final name."""
        self._plan = plan
        self._target = plan.target
        self._offset = offset
        self._overwrite = overwrite
        self._file: BinaryIO | None = None
        self._hasher = blake3()
        self.missing = plan.target.entry.size - offset
        """Bytes that the sender sends."""

    def open(self, stop: threading.Event) -> None:
        """Open the unfinished file at the offset. Raises `LocalFileError`, also when another transfer has it."""
        partial = self._target.partial
        with naming(self._target.final):
            partial.parent.mkdir(exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            file = self._file = os.fdopen(os.open(partial, flags, 0o666), "r+b", buffering=0)
            self._lock(file)
            hasher = hash_prefix(file, self._offset, stop)
            if hasher is None:
                raise LocalFileError(str(partial), "it changed while it was read")
            self._hasher = hasher
            file.truncate(self._offset)
            file.seek(self._offset)

    def _lock(self, file: BinaryIO) -> None:
        # Two transfers that write into one file, or one that writes what the other has just put under its final
        # name, would leave there what nobody has verified.
        if sys.platform != "win32":
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                ours = os.path.samestat(os.fstat(file.fileno()), os.lstat(self._target.partial))
            except (BlockingIOError, FileNotFoundError):
                ours = False
            if not ours:
                raise LocalFileError(str(self._target.final), "another transfer is receiving it")

    def write(self, block: memoryview | bytes) -> None:
        """Append a block. Raises `LocalFileError`."""
        if self._file is None:
            raise TransferProtocolError("bytes of a file that is complete")
        view = memoryview(block)
        self._hasher.update(view)
        with naming(self._target.final):
            while view:
                view = view[self._file.write(view) :]

    def store(self, content: bytes, digest: bytes, stop: threading.Event) -> Path:
        """All at once, for what is small: open, write and commit. Raises as they do."""
        target = self._target
        if target.existing is not None and self._plan.known == target.existing and not self.missing:
            # The sender has confirmed that the finished file is the same.
            if digest != self._plan.want.digest:
                raise DigestError(target.entry.path)
            return target.existing
        self.open(stop)
        self.write(content)
        return self.commit(digest)

    def commit(self, digest: bytes) -> Path:
        """Check the digest, and give the file its name; returns it. Raises `DigestError`, `LocalFileError`."""
        target, file = self._target, self._file
        if file is None:
            raise TransferProtocolError("the end of a file that never began")
        with naming(target.final):
            if self._hasher.digest() != digest:
                target.partial.unlink(missing_ok=True)
                raise DigestError(target.entry.path)
            if target.entry.executable:
                mode = os.fstat(file.fileno()).st_mode
                os.chmod(target.partial, mode | (mode & 0o444) >> 2)
            os.fsync(file.fileno())
            if self._overwrite:
                os.replace(target.partial, target.final)
                return target.final
            return place(target.partial, target.final)

    def close(self) -> None:
        """Close the file, finished or not. Harmless when it is closed."""
        if self._file is not None:
            self._file.close()
            self._file = None
