"""What was measured, beside what was to be reached."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from bench.peers import AIOPQUIC, AIOQUIC, NATIVE, ON_UVLOOP, QH3, QUICE, Peer

# By peer and what was measured: a number for each run.
Numbers = dict[str, dict[str, list[float]]]


@dataclass(frozen=True)
class Goal:
    """What quice is to reach beside a peer. `shortfall`: 0 when it holds, else how far off, as a part of the goal."""

    text: str
    shortfall: Callable[[float, float], float]


def at_least(factor: float) -> Goal:
    return Goal(f"≥ {factor:g} x", lambda ratio, _: max(0.0, 1 - ratio / factor))


def at_most(factor: float) -> Goal:
    return Goal(f"≤ {factor:g} x", lambda ratio, _: max(0.0, ratio / factor - 1))


def at_most_more(room: float) -> Goal:
    return Goal(f"≤ + {room:g}", lambda _, difference: max(0.0, difference / room - 1))


NO_GOAL = None
ROWS: list[tuple[str, str, list[tuple[Peer, Goal | None]]]] = [
    (
        "one stream, Gbit/s",
        "gbit",
        [
            (NATIVE, at_least(0.9)),
            (AIOPQUIC, at_least(2)),
            (QH3, NO_GOAL),
            (AIOQUIC, at_least(25)),
            (ON_UVLOOP, NO_GOAL),
        ],
    ),
    ("one stream, CPU s/GiB", "cpu_s", [(peer, NO_GOAL) for peer in (NATIVE, AIOPQUIC, QH3, AIOQUIC, ON_UVLOOP)]),
    *(
        (
            f"request, µs, {label}",
            what,
            [
                (NATIVE, NO_GOAL),
                (AIOPQUIC, at_most(1)),
                (QH3, at_most(1)),
                (AIOQUIC, at_most(1)),
                (ON_UVLOOP, NO_GOAL),
            ],
        )
        for label, what in (("median", "median_us"), ("99 %", "p99_us"))
    ),
    ("idle connection, KiB", "idle_kib", [(NATIVE, at_most_more(64))]),
]


def table(numbers: Numbers, missing: Container[str], runs: int) -> Table:
    """A row for each comparison, with its goal and whether it holds. `missing`: peers that can't be measured."""
    made = Table(title=f"loopback, server and client each a process, medians of {runs} runs")
    for column in ("measured", "quice", "beside", "it has", "quice is", "goal", "verdict"):
        made.add_column(column, justify="left" if column in ("measured", "beside", "verdict") else "right")
    for label, what, peers in ROWS:
        ours = numbers.get(QUICE.name, {}).get(what, [])
        if not any(what in measured for measured in numbers.values()):
            continue
        asked = [(peer, goal) for peer, goal in peers if what in numbers.get(peer.name, {}) or peer.name in missing]
        for place, (peer, goal) in enumerate(asked):
            theirs = numbers.get(peer.name, {}).get(what, [])
            cells = (_shown(ours), peer.name, *_comparison(ours, theirs, goal))
            made.add_row(label if place == 0 else "", *cells, end_section=place == len(asked) - 1)
    return made


def _comparison(ours: list[float], theirs: list[float], goal: Goal | None) -> tuple[str, str, str, str]:
    text = goal.text if goal is not None else ""
    if not ours or not theirs:
        return _shown(theirs), "", text, "not measured"
    # Run by run: what slows the machine for a while slows both.
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=False))
    difference = statistics.median(a - b for a, b in zip(ours, theirs, strict=False))
    if goal is None:
        verdict = ""
    else:
        missed = goal.shortfall(ratio, difference)
        verdict = f"missed by {missed:.0%}" if missed else "holds"
    return _shown(theirs), f"{ratio:.2f} x", text, verdict


def _shown(values: list[float]) -> str:
    if not values:
        return ""
    value = statistics.median(values)
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def machine() -> str:
    """What it ran on, and how busy that was."""
    model = platform.processor() or "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"


def load() -> str:
    """The load average of the last minute, with a warning when others use the machine."""
    average = os.getloadavg()[0]
    warning = ": others use this machine, and the numbers say less" if average > 0.5 else ""
    return f"load average {average:.1f}{warning}"
