"""The peers of the bench: how each is installed and started."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from interop.certificates import certify

HERE = Path(__file__).parent
_VENVS = HERE / ".venvs"
_NATIVE = HERE / "native"


class NotMeasuredError(RuntimeError):
    """A peer can't be had or measured on this machine; the text says why."""


@dataclass(frozen=True)
class Ready:
    """A peer that can be started. `server` prints its port; `client` takes that, a mode and a count."""

    server: list[str]
    client: list[str]
    version: str


@dataclass(frozen=True)
class Peer:
    """A QUIC implementation under test. `bytes` and `requests`: as much as takes it a few seconds."""

    name: str
    prepare: Callable[[], Ready]
    """Installs what is missing. Raises `NotMeasuredError`."""
    bytes: int
    requests: int = 5000
    can_idle: bool = False


def _quice(loop: str) -> Callable[[], Ready]:
    def prepare() -> Ready:
        command = [sys.executable, "-m", "bench.peer_quice", loop]
        if subprocess.run([sys.executable, "-c", f"import {loop}"], capture_output=True).returncode:
            raise NotMeasuredError(f"needs {loop}, which is not installed")
        return Ready([*command, "server"], [*command, "client"], f"Python {platform.python_version()}")

    return prepare


def _native() -> Ready:
    if shutil.which("cargo") is None:
        raise NotMeasuredError("needs cargo to be built; install Rust")
    build = ["cargo", "build", "--release", "--locked", "--manifest-path", str(_NATIVE / "Cargo.toml")]
    if subprocess.run(build).returncode:
        raise NotMeasuredError("does not build here")
    binary = str(_NATIVE / "target" / "release" / "bench-native")
    found = re.search(r'name = "noq"\nversion = "(.*?)"', (_NATIVE / "Cargo.lock").read_text())
    return Ready([binary, "server"], [binary, "client"], f"noq {found[1]}, tokio" if found else "tokio")


def _library(package: str, version: str, python: str | None = None) -> Callable[[], Ready]:
    def prepare() -> Ready:
        interpreter = sys.executable if python is None else _newer_python(python)
        venv = _VENVS / f"{package}-{version}"
        executable = str(venv / "bin" / "python")
        if not _imports(executable, package):
            subprocess.run([interpreter, "-m", "venv", "--clear", str(venv)], check=True)
            pip = [executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            if subprocess.run([*pip, f"{package}=={version}"]).returncode or not _imports(executable, package):
                raise NotMeasuredError(f"can't be installed: pip install {package}=={version} failed")
        command = [executable, str(HERE / "peer_aioquic.py"), package]
        said = subprocess.run([executable, "--version"], capture_output=True, text=True, check=True)
        return Ready([*command, "server", *_certificate()], [*command, "client"], f"{version}, {said.stdout.strip()}")

    return prepare


def _imports(python: str, package: str) -> bool:
    try:
        return subprocess.run([python, "-c", f"import {package}"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def _newer_python(wanted: str) -> str:
    """An interpreter of at least this version."""
    least = tuple(map(int, wanted.split(".")))
    names = [f"python3.{minor}" for minor in range(least[1], 20)]
    pyenv = Path.home() / ".pyenv" / "versions"
    paths = [str(path) for name in names for path in sorted(pyenv.glob(f"*/bin/{name}"))]
    for candidate in [sys.executable, *paths, *names]:
        code = f"import sys; sys.exit(sys.version_info < {least})"
        found = shutil.which(candidate)
        if found and subprocess.run([found, "-c", code], capture_output=True).returncode == 0:
            return found
    raise NotMeasuredError(f"needs Python {wanted} or newer")


def _certificate() -> tuple[str, str]:
    """A certificate for localhost and its key, made once."""
    certificate, key = _VENVS / "cert.pem", _VENVS / "key.pem"
    if not certificate.exists():
        certify(_VENVS, "localhost")
    return str(certificate), str(key)


QUICE = Peer("quice", _quice("asyncio"), 4 << 30, can_idle=True)
NATIVE = Peer("noq", _native, 4 << 30, can_idle=True)
AIOPQUIC = Peer("aiopquic", _library("aiopquic", "0.6.1", "3.12"), 1 << 30)
QH3 = Peer("qh3", _library("qh3", "2.1.0"), 96 << 20, 2000)
AIOQUIC = Peer("aioquic", _library("aioquic", "1.7.2"), 48 << 20, 2000)
ON_UVLOOP = Peer("quice on uvloop", _quice("uvloop"), 4 << 30)
PEERS = [QUICE, NATIVE, AIOPQUIC, QH3, AIOQUIC, ON_UVLOOP]
