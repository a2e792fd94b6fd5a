"""Names from the other side, and where they may lead."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from quice.errors import LocalFileError, UnsafePathError

PARTIAL = ".quice-partial"
"""The folder in the target in which unfinished files wait to be resumed."""
_MAX_PART = 255
_MAX_PATH = 4096
# Names that Windows takes for devices, whatever their ending.
_DEVICES = {"con", "prn", "aux", "nul", *(f"{name}{n}" for name in ("com", "lpt") for n in range(1, 10))}


def parts_of(path: str) -> tuple[str, ...]:
    """The parts of a path from the other side. Raises `UnsafePathError` for one that is not plainly below the
    target: absolute, with `..`, with a drive, a device, control characters or too long."""
    if not path or len(path.encode("utf-8", "replace")) > _MAX_PATH:
        raise UnsafePathError(path, "empty or too long")
    parts = tuple(unicodedata.normalize("NFC", part) for part in path.split("/"))
    for part in parts:
        if reason := _unsafe(part):
            raise UnsafePathError(path, reason)
    if parts[0].casefold() == PARTIAL:
        raise UnsafePathError(path, "reserved for unfinished files")
    return parts


def _unsafe(part: str) -> str | None:
    if part in ("", ".", ".."):
        return "it leaves the target folder"
    if "\\" in part or any(unicodedata.category(c) in ("Cc", "Cs", "Cf") for c in part):
        return "it has backslashes or invisible characters"
    if len(part.encode()) > _MAX_PART:
        return "a part of it is too long"
    if part.partition(".")[0].strip().casefold() in _DEVICES or (len(part) > 1 and part[1] == ":"):
        return "it names a device or a drive"
    if part[-1] in ". ":
        return "a part of it ends in a dot or a space"
    return None


def make_folder(target: Path, parts: tuple[str, ...]) -> Path:
    """Make the folder below `target`, never through a symbolic link. Raises `UnsafePathError`, `LocalFileError`."""
    folder = target
    for part in parts:
        folder = folder / part
        if folder.is_symlink():
            raise UnsafePathError("/".join(parts), "a symbolic link is in the way")
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise LocalFileError(str(folder), error.strerror or str(error)) from error
    return folder


def free_name(path: Path) -> Path:
    """`path`, or the first of `name (1).ext`, `name (2).ext`, … that is not taken."""
    number = 0
    candidate = path
    while os.path.lexists(candidate):
        number += 1
        candidate = path.with_name(f"{path.stem} ({number}){path.suffix}")
    return candidate
