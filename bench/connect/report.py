"""How long everybody took, beside the least that it can take."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from bench.connect.play import Case, Cells
from bench.connect.programs import QUICE
from lab.matrix import percentile

Results = list[tuple[Case, Cells]]
_HEADINGS = (
    "NATs of both",
    "relay",
    "program",
    "runs",
    "QUIC",
    "answer",
    "95 %",
    "of limit",
    "direct",
    "cold: QUIC",
    "95 %",
    "direct",
)
_LATER = 0.005
"""Seconds that a relay may cost before it counts: the lab is no truer than that."""


@dataclass(frozen=True)
class Limits:
    """What nobody can be faster than, and what quice is to reach; seconds."""

    delay: float
    """One way, at each site."""

    @property
    def round_trip(self) -> float:
        """Between the two peers, directly, and for an offer and its answer through the server."""
        return 4 * self.delay

    @property
    def answer(self) -> float:
        """One round trip of signalling, one for the handshake and one for the request."""
        return 3 * self.round_trip

    @property
    def goal(self) -> float:
        return 1.15 * self.answer

    @property
    def cold_goal(self) -> float:
        """450 ms with 25 ms at each site."""
        return 4.5 * self.round_trip


def table(results: Results, programs: Sequence[str], limits: Limits, runs: int) -> Table:
    delay = 1000 * limits.delay
    made = Table(
        title=f"milliseconds, medians of {runs} runs; {delay:g} ms one way at each site, the server between them"
    )
    for heading in _HEADINGS:
        made.add_column(heading, justify="left" if heading in _HEADINGS[:3] else "right", no_wrap=True)
    for case, cells in results:
        for place, name in enumerate(programs):
            warm, cold = cells[name, "warm"], cells[name, "cold"]
            made.add_row(
                case.nats if place == 0 else "",
                ("yes" if case.relay else "no") if place == 0 else "",
                name,
                f"{len(warm.answered)}+{len(cold.connected)}",
                _middle(warm.connected),
                _middle(warm.answered),
                _most(warm.answered),
                f"{statistics.median(warm.answered) / limits.answer:.2f}" if warm.answered and limits.answer else "",
                _middle(warm.direct),
                _middle(cold.connected),
                _most(cold.connected),
                _middle(cold.direct),
                end_section=place == len(programs) - 1,
            )
    return made


def verdicts(results: Results, limits: Limits) -> list[str]:
    """What quice was to reach, and whether it does; by medians."""
    said = []
    without: dict[str, float] = {}
    for case, cells in results:
        warm, cold = (cells[QUICE.name, mode] for mode in ("warm", "cold"))
        if not warm.answered or not cold.connected:
            said.append(f"{case}: not connected")
            continue
        answered, connected = statistics.median(warm.answered), statistics.median(cold.connected)
        parts = [
            _verdict("answer", answered, limits.goal),
            _verdict("cold start", connected, limits.cold_goal),
        ]
        if not case.relay:
            without[case.nats] = answered
        elif case.nats in without:
            parts.append(_verdict("answer, as without a relay", answered, without[case.nats] + _LATER))
        said.append(f"{case}: {'; '.join(parts)}")
    return said


def failures(results: Results) -> list[str]:
    """What went wrong, by case and program."""
    return [
        f"{case}: {name}, {mode}: {len(cell.failures)} failed: {cell.failures[0]}"
        for case, cells in results
        for (name, mode), cell in cells.items()
        if cell.failures
    ]


def _verdict(what: str, seconds: float, goal: float) -> str:
    holds = "holds" if seconds <= goal else f"MISSED by {1000 * (seconds - goal):.0f} ms"
    return f"{what} {1000 * seconds:.0f} ≤ {1000 * goal:.0f} ms {holds}"


def _middle(times: Sequence[float | None]) -> str:
    known = [each for each in times if each is not None]
    # As long as most runs never got there, there is no median.
    return f"{1000 * statistics.median(known):.0f}" if 2 * len(known) > len(times) else "–"


def _most(times: Sequence[float]) -> str:
    return f"{1000 * percentile(times, 0.95):.0f}" if times else "–"
