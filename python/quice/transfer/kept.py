"""The ticket that a code has brought, kept beside the unfinished files: the code is used up, the transfer is not."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from blake3 import blake3

from quice.errors import TicketError
from quice.signal.codes import Code
from quice.ticket import Ticket
from quice.transfer.disk import naming
from quice.transfer.paths import PARTIAL, make_folder


class KeptTicket:
    """A place for the ticket of one code, in the folder that is received into."""

    def __init__(self, out: Path, code: Code) -> None:
        self._out = out
        self._path = out / PARTIAL / (blake3(str(code).encode()).hexdigest(16) + ".ticket")

    def load(self) -> Ticket | None:
        """What an earlier try has kept, if it has come that far. Raises `LocalFileError`."""
        with naming(self._path):
            try:
                descriptor = os.open(self._path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
            except (FileNotFoundError, NotADirectoryError):
                return None
            with os.fdopen(descriptor, encoding="ascii", errors="replace") as file:
                text = file.read()
        try:
            return Ticket.parse(text)
        except TicketError:
            # The try ended while it was written.
            return None

    def save(self, ticket: Ticket) -> None:
        """Keep it, where its user alone can read it. Raises `LocalFileError`, `UnsafePathError`."""
        with naming(self._out):
            self._out.mkdir(parents=True, exist_ok=True)
        folder = make_folder(self._out, (PARTIAL,))
        written = folder / f"{secrets.token_hex(8)}.part"
        with naming(self._path):
            descriptor = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(f"{ticket}\n")
            os.replace(written, self._path)

    def forget(self) -> None:
        """The transfer is over: leave nothing of it."""
        with contextlib.suppress(OSError):
            self._path.unlink()
            self._path.parent.rmdir()
