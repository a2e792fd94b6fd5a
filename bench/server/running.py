"""The processes of a run: servers, Redis, load."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from interop.relays import free_port

_SPARE = 30
"""Descriptors of a server that are not its peers'."""
_TICK = os.sysconf("SC_CLK_TCK")


class Process:
    """A process, its memory and its CPU time."""

    def __init__(self, command: list[str], **options: object) -> None:
        self._process = subprocess.Popen(command, text=True, **options)  # type: ignore[call-overload]
        self.pid: int = self._process.pid

    def line(self) -> dict[str, object]:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("it has ended before it answered")
        said: dict[str, object] = json.loads(line)
        return said

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def cpu(self) -> float:
        """CPU seconds so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK

    @property
    def resident(self) -> int:
        """Bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class ServerProcess(Process):
    """`quice serve`, without what the rendezvous does not need."""

    def __init__(self, redis: str | None = None) -> None:
        command = [sys.executable, "-m", "quice", "serve", "--json", "--host", "127.0.0.1", "--port", "0"]
        command += ["--stun-port", "0", "--no-relay", "--max-per-address", "0"]
        command += [] if redis is None else ["--redis", redis]
        super().__init__(command, stdout=subprocess.PIPE)
        self.url = str(self.line()["url"])


class Generator(Process):
    """Peers: see `generator.py`."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "bench.server.generator"]
        super().__init__(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def start(self, what: str, **order: object) -> None:
        self._process.stdin.write(json.dumps({"do": what, **order}) + "\n")
        self._process.stdin.flush()

    def do(self, what: str, **order: object) -> dict[str, float]:
        self.start(what, **order)
        return self.line()  # type: ignore[return-value]


@contextlib.contextmanager
def ended(*processes: Process) -> Iterator[None]:
    """Kill these at the end."""
    try:
        yield
    finally:
        for process in processes:
            process.kill()


@contextlib.contextmanager
def redis() -> Iterator[tuple[Process, str]]:
    """A Redis that keeps nothing, and its URL."""
    command = shutil.which("redis-server", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if command is None:
        raise FileNotFoundError("redis-server: install Debian's package of that name")
    port = free_port()
    with TemporaryDirectory() as directory:
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", directory]
        process = Process([command, *options], stdout=subprocess.DEVNULL)
        with ended(process):
            time.sleep(0.5)
            yield process, f"redis://127.0.0.1:{port}/0"


def most_peers(wanted: int) -> int:
    """How many peers a server can have here: each takes a descriptor, and so it does in the process that makes them."""
    return min(wanted, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - _SPARE)
