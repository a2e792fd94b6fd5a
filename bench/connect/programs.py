"""The programs that connect, and how to come by them."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.peers import NotMeasuredError
from interop.programs import BuildError, build, pion_unavailable

_PION = Path(__file__).parent / "pion"


@dataclass(frozen=True)
class Ready:
    """A program that can be started, as `lines.py` has it."""

    command: tuple[str, ...]
    version: str


@dataclass(frozen=True)
class Program:
    """What connects. `prepare` builds or finds it; raises `NotMeasuredError`."""

    name: str
    prepare: Callable[[], Ready]


def _quice() -> Ready:
    return Ready((sys.executable, "-m", "bench.connect.quice_peer"), f"Python {platform.python_version()}")


def _aioice() -> Ready:
    try:
        versions = f"aioice {version('aioice')}, aioquic {version('aioquic')}"
    except PackageNotFoundError as error:
        raise NotMeasuredError(f"needs {error.name}, which is not installed") from None
    return Ready((sys.executable, "-m", "bench.connect.aioice_peer"), f"{versions}, Python {platform.python_version()}")


def _pion(*options: str) -> Callable[[], Ready]:
    def prepare() -> Ready:
        if (why_not := pion_unavailable()) is not None:
            raise NotMeasuredError(why_not)
        try:
            binary = build(_PION)
        except BuildError as error:
            raise NotMeasuredError(str(error)) from None
        return Ready((str(binary), *options), ", ".join(_required("pion/ice/v4", "quic-go/quic-go")))

    return prepare


def _required(*modules: str) -> list[str]:
    required = (_PION / "go.mod").read_text()
    return [f"{name} {found[1]}" for name in modules if (found := re.search(rf"/{name} v(\S+)", required))]


QUICE = Program("quice", _quice)
AIOICE = Program("aioice + aioquic", _aioice)
PION = Program("pion/ice + quic-go", _pion())
EAGER_PION = Program("pion/ice, eager", _pion("-eager"))
PROGRAMS = [QUICE, AIOICE, PION, EAGER_PION]
