"""Names from the other side, and where they may lead."""

from __future__ import annotations

import itertools
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from quice.errors import UnsafePathError
from quice.transfer.disk import naming

PARTIAL = ".quice-partial"
"""The folder in the target in which unfinished files wait to be resumed."""
_MAX_PART = 255
_MAX_PATH = 4096
_MAX_SUFFIX = 32
# Names that Windows takes for devices, whatever their ending.
_DEVICES = {"con", "prn", "aux", "nul", *(f"{name}{n}" for name in ("com", "lpt") for n in range(1, 10))}
# Embeddings, overrides and isolates turn the reading direction, so that `exe.gpj` reads `jpg.exe`.
_BIDIRECTIONAL = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_WINDOWS = os.name == "nt"


def parts_of(path: str, *, windows: bool = _WINDOWS) -> tuple[str, ...]:
    """The parts of a path from the other side.

    Raises `UnsafePathError` for one that is not plainly below the target: absolute, with `..`, with characters
    that don't show, or too long; with `windows`, for devices, drives and endings that mean something there.
    """
    if not path or len(path.encode("utf-8", "replace")) > _MAX_PATH:
        raise UnsafePathError(path, "empty or too long")
    parts = tuple(unicodedata.normalize("NFC", part) for part in path.split("/"))
    for part in parts:
        if reason := _unsafe(part) or (_unsafe_on_windows(part) if windows else None):
            raise UnsafePathError(path, reason)
    if parts[0].casefold() == PARTIAL:
        raise UnsafePathError(path, "reserved for unfinished files")
    return parts


def _unsafe(part: str) -> str | None:
    if part in ("", ".", ".."):
        return "it leaves the target folder"
    if "\\" in part:
        return "it has a backslash"
    if any(c in _BIDIRECTIONAL or unicodedata.category(c) in ("Cc", "Cs") for c in part):
        return "it has characters that are not text"
    if len(part.encode()) > _MAX_PART:
        return "a part of it is too long"
    return None


def _unsafe_on_windows(part: str) -> str | None:
    if part.partition(".")[0].strip().casefold() in _DEVICES:
        return "it names a device"
    if any(c in '<>:"|?*' for c in part):
        return "it names a drive, or has characters that Windows keeps for itself"
    if part[-1] in ". ":
        return "a part of it ends in a dot or a space"
    return None


def make_folder(target: Path, parts: tuple[str, ...]) -> Path:
    """Make the folder below `target`, never through a symbolic link. Raises `UnsafePathError`, `LocalFileError`."""
    folder = target
    for part in parts:
        folder = folder / part
        with naming(folder):
            if folder.is_symlink():
                raise UnsafePathError("/".join(parts), "a symbolic link is in the way")
            folder.mkdir(exist_ok=True)
    return folder


def numbered(path: Path) -> Iterator[Path]:
    """`path`, `name (1).ext`, `name (2).ext`, …, each short enough for a file system."""
    yield path
    suffix = path.suffix if len(path.suffix.encode()) <= _MAX_SUFFIX else ""
    stem = path.name.removesuffix(suffix).encode()
    for number in itertools.count(1):
        ending = f" ({number}){suffix}"
        yield path.with_name(stem[: _MAX_PART - len(ending.encode())].decode(errors="ignore") + ending)


def place(partial: Path, final: Path) -> Path:
    """Move `partial` to `final`, or to the first numbered name that is free; returns it. Raises `OSError`.

    A hard link, unlike a rename, never replaces what somebody else has put there meanwhile.
    """
    for candidate in numbered(final):
        try:
            os.link(partial, candidate)
        except FileExistsError:
            continue
        except OSError:
            # A file system without hard links.
            if os.path.lexists(candidate):
                continue
            os.replace(partial, candidate)
        else:
            os.unlink(partial)
        return candidate
    raise AssertionError("numbers have no end")
