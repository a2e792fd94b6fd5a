"""The peers of the bench: how each is installed and started."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
_VENVS = HERE / ".venvs"
_NATIVE = HERE / "native" / "target" / "release" / "bench-native"


class NotMeasuredError(RuntimeError):
    """A peer can't be had on this machine; the text says why."""


@dataclass(frozen=True)
class Peer:
    """A QUIC implementation under test. `bytes` and `requests`: as much as takes it a few seconds."""

    name: str
    prepare: Callable[[], tuple[list[str], list[str]]]
    """Returns the commands of server and client, or raises `NotMeasuredError`."""
    bytes: int
    requests: int = 5000
    can_idle: bool = False


def _quice() -> tuple[list[str], list[str]]:
    command = [sys.executable, "-m", "bench.peer_quice"]
    return [*command, "server"], [*command, "client"]


def _native() -> tuple[list[str], list[str]]:
    if shutil.which("cargo") is None:
        raise NotMeasuredError("needs cargo")
    manifest = HERE / "native" / "Cargo.toml"
    subprocess.run(["cargo", "build", "--quiet", "--release", "--manifest-path", str(manifest)], check=True)
    return [str(_NATIVE), "server"], [str(_NATIVE), "client"]


def _library(package: str, version: str, python: str | None = None) -> Callable[[], tuple[list[str], list[str]]]:
    def prepare() -> tuple[list[str], list[str]]:
        interpreter = sys.executable if python is None else _newer_python(python)
        venv = _VENVS / package
        executable = str(venv / "bin" / "python")
        if not venv.exists():
            subprocess.run([interpreter, "-m", "venv", str(venv)], check=True)
            pip = [executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, f"{package}=={version}"], check=True)
        command = [executable, str(HERE / "peer_aioquic.py"), package]
        return [*command, "server", *_certificate()], [*command, "client"]

    return prepare


def _newer_python(wanted: str) -> str:
    """An interpreter of at least this version."""
    least = tuple(map(int, wanted.split(".")))
    names = [f"python3.{minor}" for minor in range(least[1], 20)]
    pyenv = Path.home() / ".pyenv" / "versions"
    paths = [str(path) for name in names for path in pyenv.glob(f"*/bin/{name}")]
    for candidate in [sys.executable, *paths, *names]:
        code = f"import sys; sys.exit(sys.version_info < {least})"
        found = shutil.which(candidate)
        if found and subprocess.run([found, "-c", code], capture_output=True).returncode == 0:
            return found
    raise NotMeasuredError(f"needs Python {wanted} or newer")


def _certificate() -> tuple[str, str]:
    """A certificate for localhost and its key, made once."""
    certificate, key = _VENVS / "certificate.pem", _VENVS / "key.pem"
    if not key.exists():
        from bench.certificate import make

        certificate_pem, key_pem = make()
        certificate.write_bytes(certificate_pem)
        key.write_bytes(key_pem)
    return str(certificate), str(key)


PEERS = [
    Peer("quice", _quice, 4 << 30, can_idle=True),
    Peer("noq (Rust, tokio)", _native, 4 << 30, can_idle=True),
    Peer("aiopquic", _library("aiopquic", "0.6.1", "3.12"), 1 << 30),
    Peer("qh3", _library("qh3", "2.1.0"), 96 << 20, 2000),
    Peer("aioquic", _library("aioquic", "1.7.2"), 48 << 20, 2000),
]
