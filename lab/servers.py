"""Servers on a lab's hosts that can be killed and started again."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path
from typing import IO

from lab.story import QUICE, Machine, StoryError

SECRET = "the-lab's-own"
"""What coturn and the rendezvous server that gives credentials for it both know."""


class Server:
    """A program that says a certain word once it serves; a context manager that ends it."""

    def __init__(self, machine: Machine, ready: str, *command: str) -> None:
        self._machine = machine
        self._ready = ready
        self._command = command
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and wait until it serves. Raises `StoryError` when it ends before that."""
        process = self._machine.popen(*self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._process = process
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if self._ready in line:
                # Somebody has to read what else it says, or it waits for that.
                self._reader = threading.Thread(target=_read, args=(process.stdout,), daemon=True)
                self._reader.start()
                return
        self.kill()
        raise StoryError(f"{self._command[0]} ended before it served: {''.join(said).strip()}")

    def kill(self) -> None:
        """End it without a word to anybody. No effect when it does not run."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            if self._reader is not None:
                self._reader.join()
            assert process.stdout is not None
            process.stdout.close()


def _read(output: IO[str]) -> None:
    for _ in output:
        pass


def rendezvous(machine: Machine, *options: str) -> Server:
    """`quice serve` on its own ports."""
    return Server(machine, '"ready"', *QUICE, "serve", *options, "--json")


def coturn(machine: Machine, folder: Path, *options: str) -> Server:
    """coturn with the shared secret, for relaying between a lab's addresses."""
    files = ("--userdb", str(folder / "users"), "--pidfile", str(folder / "pid"), "--log-file", "stdout")
    shared = ("--use-auth-secret", "--static-auth-secret", SECRET, "--realm", "lab", "--no-cli")
    # It says so once its sockets are open.
    return Server(machine, "Total General servers", "turnserver", "-n", *shared, *files, *options)
