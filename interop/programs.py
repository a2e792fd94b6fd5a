"""The programs that have an ICE agent and speak the lines of `interop.lines`, and how to come by them."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_PION = Path(__file__).parent / "pion"
# Where Go's own archive is unpacked, and no PATH leads by itself.
_GO_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/local/go/bin"
# From then on, a toolchain that go.mod finds too old fetches a newer one.
_OLDEST_GO = (1, 21)


class BuildError(RuntimeError):
    """A Go program could not be built; the text has what `go` said."""


@dataclass(frozen=True)
class Program:
    """A program with an agent of that name."""

    name: str
    command: tuple[str, ...]


QUICE = Program("quice", (sys.executable, "-m", "interop.agent"))
QUICE_LITE = Program("quice lite", (*QUICE.command, "-lite"))
AIOICE = Program("aioice", (sys.executable, "-m", "interop.aioice_peer"))


def pion_unavailable() -> str | None:
    """None where pion's program can be built, else why not and what would help."""
    go = shutil.which("go", path=_GO_PATH)
    if go is None:
        return "pion/ice: needs Go; install Go 1.24 or newer, from Debian 13 on the package golang-go"
    said = subprocess.run([go, "version"], capture_output=True, text=True).stdout
    version = re.search(r"go(\d+)\.(\d+)", said)
    if version is not None and (int(version[1]), int(version[2])) < _OLDEST_GO:
        return f"pion/ice: needs Go 1.24 or newer, and this is {version[0]}"
    return None


@functools.cache
def build(folder: Path, program: str = "peer") -> Path:
    """Build a Go program, which takes a minute the first time, and return where it is. Raises `BuildError`.

    program: the one in the folder itself, or the name of another's folder below it.
    """
    go = shutil.which("go", path=_GO_PATH)
    if go is None:
        raise BuildError(pion_unavailable())
    binary = folder / "bin" / program
    # The repository's state is no part of the program, and reading it may be refused (git's safe.directory).
    command = [go, "build", "-buildvcs=false", "-o", str(binary), "." if program == "peer" else f"./{program}"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if result.returncode:
        raise BuildError(f"{' '.join(command)}: {result.stderr.strip()}")
    return binary


def pion(*, lite: bool = False, silence: float | None = None) -> Program:
    """Pion's program, built if it has to be; raises `BuildError`.

    silence: the seconds without a packet after which it says `disconnected`; by default 5, lite 10.
    """
    options = (*(("-lite",) if lite else ()), *((f"-silence={silence}s",) if silence is not None else ()))
    return Program("pion lite" if lite else "pion", (str(build(_PION)), *options))


def relay_of_pion() -> Path:
    """Pion's TURN server, built if it has to be; raises `BuildError`."""
    return build(_PION, "relay")


def client_of_pion() -> Path:
    """Pion's TURN client, built if it has to be; raises `BuildError`."""
    return build(_PION, "client")
