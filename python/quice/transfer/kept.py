"""The ticket that a code has brought, kept beside the unfinished files: the code is used up, the transfer is not."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

import msgspec
from blake3 import blake3

from quice.errors import TicketError
from quice.signal.codes import Code
from quice.ticket import Ticket
from quice.transfer.disk import naming
from quice.transfer.messages import Entry
from quice.transfer.paths import PARTIAL, make_folder

_SUFFIX = ".ticket"


class KeptTicket:
    """A place for the ticket of one code, in the folder that is received into; a second line tells what it brings."""

    def __init__(self, out: Path, code: Code) -> None:
        self._out = out
        self._path = out / PARTIAL / (blake3(str(code).encode()).hexdigest(16) + _SUFFIX)

    def load(self) -> Ticket | None:
        """What an earlier try has kept, if it has come that far. Raises `LocalFileError`."""
        with naming(self._path):
            try:
                ticket, _ = _read(self._path)
            except (FileNotFoundError, NotADirectoryError):
                return None
        try:
            return Ticket.parse(ticket)
        except TicketError:
            # The try ended while it was written.
            return None

    def save(self, ticket: Ticket, entries: Sequence[Entry] | None = None) -> None:
        """Keep it, where its user alone can read it. `entries`: what it brings, once that is known.

        Raises `LocalFileError`, `UnsafePathError`.
        """
        with naming(self._out):
            self._out.mkdir(parents=True, exist_ok=True)
        folder = make_folder(self._out, (PARTIAL,))
        written = folder / f"{secrets.token_hex(8)}.part"
        with naming(self._path):
            descriptor = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(f"{ticket}\n" if entries is None else f"{ticket}\n{_digest(entries)}\n")
            os.replace(written, self._path)

    def note(self, entries: Sequence[Entry]) -> None:
        """Remember what the ticket brings. Raises as `load` and `save` do."""
        if (ticket := self.load()) is not None:
            self.save(ticket, entries)


def forget_complete(out: Path, entries: Sequence[Entry]) -> None:
    """All of this has arrived: leave no ticket that brings the same, whichever code it came by."""
    digest = _digest(entries)
    with contextlib.suppress(OSError):
        for path in (out / PARTIAL).glob(f"*{_SUFFIX}"):
            with contextlib.suppress(OSError):
                if _read(path)[1] == digest:
                    path.unlink()
        (out / PARTIAL).rmdir()


def _read(path: Path) -> tuple[str, str]:
    """The ticket that is kept there, and the digest of what it brings, if that is known. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    with os.fdopen(descriptor, encoding="ascii", errors="replace") as file:
        ticket, _, digest = file.read().partition("\n")
    return ticket, digest.strip()


def _digest(entries: Sequence[Entry]) -> str:
    return blake3(msgspec.msgpack.encode(entries)).hexdigest(16)
