"""What there is to send: files and folders of this machine, and reading them."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3

from quice.errors import LocalFileError, UnsafePathError
from quice.transfer.disk import hash_prefix, naming
from quice.transfer.messages import BLOCK, Entry, EntryKind, Want
from quice.transfer.paths import parts_of

Skipped = Callable[[Path, str], None]
"""Called with what is not sent, and why."""


@dataclass(frozen=True)
class Source:
    """Something to send: where it lies, what the other side is told of it, and when it was last changed."""

    path: Path
    entry: Entry
    changed_ns: int = 0


def collect(paths: Sequence[Path], skipped: Skipped, stop: threading.Event | None = None) -> list[Source]:
    """Everything at and below these paths, each under its own name.

    Symbolic links below a folder, sockets and devices are not sent: `skipped` is told. Once `stop` is set, the rest
    is left out. Raises `LocalFileError` for what is not there or has a name that can't be sent.
    """
    sources: list[Source] = []
    seen: set[tuple[str, ...]] = set()
    for path in paths:
        absolute = Path(os.path.abspath(path))
        try:
            # What is named on the command line is meant, be it a link; it keeps its own name.
            top = absolute.resolve(strict=True)
        except FileNotFoundError as error:
            reason = "there is no such file or folder"
            raise LocalFileError(os.fspath(error.filename or path), reason) from None
        except (OSError, RuntimeError) as error:
            # Until Python 3.13 a circle of links is a RuntimeError.
            raise LocalFileError(str(path), getattr(error, "strerror", None) or str(error)) from error
        for source in _walk(top, absolute.name or "root", skipped):
            if stop is not None and stop.is_set():
                return sources
            parts = _sendable(source)
            if parts in seen:
                raise LocalFileError(str(source.path), "another one has the same name")
            seen.add(parts)
            sources.append(source)
    return sources


def _sendable(source: Source) -> tuple[str, ...]:
    try:
        return parts_of(source.entry.path)
    except UnsafePathError as error:
        raise LocalFileError(str(source.path), f"its name can't be sent: {error.reason}") from None


def _walk(top: Path, name: str, skipped: Skipped) -> Iterator[Source]:
    """`top` and all below it, folders before what they hold."""
    waiting = [(top, name)]
    while waiting:
        path, name = waiting.pop()
        with naming(path):
            status = path.lstat()
            children = sorted(os.listdir(path), reverse=True) if stat.S_ISDIR(status.st_mode) else []
        if stat.S_ISDIR(status.st_mode):
            yield Source(path, Entry(EntryKind.FOLDER, name))
            waiting += [(path / child, f"{name}/{child}") for child in children]
        elif stat.S_ISREG(status.st_mode):
            yield _file(path, name, status)
        else:
            link = stat.S_ISLNK(status.st_mode)
            skipped(path, "a symbolic link" if link else "neither a file nor a folder")


def _file(path: Path, name: str, status: os.stat_result) -> Source:
    entry = Entry(EntryKind.FILE, name, status.st_size, bool(status.st_mode & stat.S_IXUSR))
    return Source(path, entry, status.st_mtime_ns)


def refresh(sources: Sequence[Source]) -> list[Source]:
    """The same sources as they are now. Raises `LocalFileError` for a file that is gone or none any more."""
    return [
        source if source.entry.kind is EntryKind.FOLDER else _file(source.path, source.entry.path, _status(source.path))
        for source in sources
    ]


def _status(path: Path) -> os.stat_result:
    with naming(path):
        status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise LocalFileError(str(path), "it is no file any more")
    return status


class Reader:
    """Reads and hashes a file that is sent; it has to stay what the manifest says until its end."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._file: BinaryIO | None = None
        self._hasher = blake3()
        self.left = source.entry.size
        """Bytes that are still to be read."""

    def open(self, want: Want, stop: threading.Event) -> int:
        """Open the file and go to where the receiver wants it from; returns the offset, 0 when what the receiver
        has is not how this file begins. Raises `LocalFileError`."""
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        with naming(self._source.path):
            file = self._file = os.fdopen(os.open(self._source.path, flags), "rb", buffering=0)
            self._check_unchanged(file)
            offset = want.offset if 0 < want.offset <= self.left else 0
            hasher = hash_prefix(file, offset, stop)
            if hasher is None or (offset and hasher.digest() != want.digest):
                file.seek(0)
                return 0
        self._hasher = hasher
        self.left -= offset
        return offset

    def block(self) -> bytes:
        """The next block. Raises `LocalFileError` when the file changed meanwhile or can't be read."""
        if self._file is None or not self.left:
            return b""
        with naming(self._source.path):
            block = self._file.read(min(BLOCK, self.left))
            self._hasher.update(block)
            self.left -= len(block)
            if not block or not self.left:
                self._check_unchanged(self._file)
        return block

    def _check_unchanged(self, file: BinaryIO) -> None:
        # Else the parts from before and after a change would pass together as a file that never was.
        status = os.fstat(file.fileno())
        if (status.st_size, status.st_mtime_ns) != (self._source.entry.size, self._source.changed_ns):
            raise LocalFileError(str(self._source.path), "it changed while it was sent")

    def digest(self) -> bytes:
        """The BLAKE3 digest of all that was read, what the receiver had included."""
        return self._hasher.digest()

    def close(self) -> None:
        """Close the file. Harmless when it is closed."""
        if self._file is not None:
            self._file.close()
            self._file = None
