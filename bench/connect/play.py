"""One case: two sites behind these NATs, a server in the middle, and all programs in turn, run by run."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bench.connect.lines import Ground
from bench.connect.programs import Program, Ready
from bench.connect.running import Running, SilentError
from bench.connect.servers import serving
from lab.link import Conditions
from lab.matrix import is_served
from lab.site import Host
from lab.story import three_hosts
from quice.sim.kinds import Nat

MODES = ("warm", "cold")
_GIVEN_UP = 2
"""Failures without a success after which a program is left alone in a case."""


@dataclass(frozen=True)
class Case:
    """Where it is played. `relay`: whether there is one."""

    first: Nat
    second: Nat
    relay: bool

    @property
    def nats(self) -> str:
        return self.first.value if self.first is self.second else f"{self.first.value} × {self.second.value}"

    def __str__(self) -> str:
        return f"{self.nats}, {'with a' if self.relay else 'no'} relay"

    @property
    def is_served(self) -> bool:
        """Whether there is a direct path to be found."""
        return is_served(self.first, self.second)


@dataclass
class Cell:
    """What one program did in one case and mode; times in seconds, one for each run that went well."""

    connected: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    direct: list[float | None] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add(self, said: dict[str, Any]) -> None:
        if "failed" in said:
            self.failures.append(said["failed"])
            return
        for name in ("connected", "answered", "direct"):
            getattr(self, name).append(said[name])

    @property
    def is_hopeless(self) -> bool:
        return not self.connected and len(self.failures) >= _GIVEN_UP


Cells = dict[tuple[str, str], Cell]
"""By program and mode."""


def play(
    case: Case,
    programs: Sequence[tuple[Program, Ready]],
    runs: int,
    conditions: Conditions,
    progress: Callable[[str], None],
) -> Cells:
    """All runs of a case. Whoever answers stays; each call is a process of its own, so that none finds a cache warm or
    a NAT open."""
    cells: Cells = {(program.name, mode): Cell() for program, _ in programs for mode in MODES}
    with (
        three_hosts(case.first, case.second, conditions=conditions) as (server, one, two),
        serving(server, relay=case.relay) as known,
        contextlib.ExitStack() as exits,
    ):
        known["direct"] = case.is_served
        names = {program.name: exits.enter_context(_answering(two, ready, known)) for program, ready in programs}
        for _ in range(runs):
            for mode in MODES:
                for program, ready in programs:
                    cell = cells[program.name, mode]
                    if not cell.is_hopeless:
                        cell.add(_call(one, ready, mode, {**known, "to": names[program.name]}))
                    progress(f"{case}: {program.name}")
    return cells


@contextmanager
def _answering(host: Host, ready: Ready, known: Ground) -> Iterator[str]:
    with Running(host, *ready.command, "answer", json.dumps(known)) as answering:
        yield answering.hear()["peer"]


def _call(host: Host, ready: Ready, mode: str, known: Ground) -> dict[str, Any]:
    with Running(host, *ready.command, mode, json.dumps(known)) as calling:
        try:
            calling.hear()
            calling.go()
            said = calling.hear()
        except SilentError as error:
            return {"failed": str(error)}
        calling.finish()
        return said
