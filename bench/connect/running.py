"""A program of `lines.py` that runs."""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import tempfile
from typing import Any

from bench.connect.lines import PATIENCE
from lab.story import Machine

_SILENCE = 4 * PATIENCE
_GOODBYE = 3.0


class SilentError(RuntimeError):
    """A program did not say what it had to; the text has what it said last on standard error."""


class Running:
    """A running program; a context manager that ends it."""

    def __init__(self, machine: Machine, *command: str) -> None:
        pipe = subprocess.PIPE
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115 -- closed on exit, as the process is
        self._process = machine.popen(*command, stdin=pipe, stdout=pipe, stderr=self._stderr)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._stderr.close()

    def hear(self) -> dict[str, Any]:
        """The next line that it says: one at a time, each asked for before the next is said. Raises `SilentError`."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], _SILENCE)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            raise SilentError(f"{'ended' if ready else 'hangs'}{self._last_words()}")
        said: dict[str, Any] = json.loads(line)
        return said

    def go(self) -> None:
        """Tell it to begin."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def finish(self) -> None:
        """Let it say goodbye to its peer and end, if it does so soon."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GOODBYE)

    def _last_words(self) -> str:
        self._stderr.seek(0)
        lines = self._stderr.read().strip().splitlines()
        return f": {lines[-1]}" if lines else ""
