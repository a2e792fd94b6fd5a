"""Every pair of NATs, both ways, in the simulated internet: who connects, how often, and how fast."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from quice.sim.kinds import CLASSIC, Nat, behaviour
from quice.sim.link import Conditions
from scenarios.random_session import Place, Plan

DELAY = 0.025
"""Seconds, one way, at each site: 50 ms to the server and back, 100 ms to the peer and back."""
PAIRS = list(itertools.product(CLASSIC, CLASSIC))
"""Who connects, and who is connected to."""


def plans(runs: int, loss: float) -> dict[tuple[Nat, Nat], list[Plan]]:
    """So many sessions of every pair, with this share of the packets between the peers lost, each way."""
    # Half of the way each: what passes both sites is 1 - loss.
    weather = Conditions(delay=DELAY, loss=1 - math.sqrt(1 - loss))
    found: dict[tuple[Nat, Nat], list[Plan]] = {}
    for number, (one, two) in enumerate(PAIRS):
        places = Place(behaviour(one), None, False, weather), Place(behaviour(two), None, False, weather)
        # The pause makes the timers of the two sides fall differently in each run.
        found[one, two] = [
            Plan(1_000_000 * (number + 1) + run, places, False, 1.0 + run / 977, 100, None) for run in range(runs)
        ]
    return found


@dataclass(frozen=True)
class Row:
    """What became of one pair's sessions; times in seconds."""

    pair: tuple[Nat, Nat]
    must_work: bool
    runs: int
    times: tuple[float, ...]
    """Of those that connected."""

    @property
    def share(self) -> float:
        """How many connected, of 1."""
        return len(self.times) / self.runs

    def percentile(self, share: float) -> float:
        """The smallest time that this share of the sessions does not exceed; infinite if they did not connect."""
        index = max(0, math.ceil(share * self.runs) - 1)
        return sorted(self.times)[index] if index < len(self.times) else math.inf


_LINE = "{:20} {:20} {:>9} {:>8} {:>6} {:>6}"


def table(rows: Sequence[Row]) -> str:
    """The rows as text, times in milliseconds."""
    lines = [_LINE.format("connecting", "connected to", "connected", "median", "p95", "p99")]
    for row in rows:
        times = [f"{1000 * row.percentile(share):.0f}" if row.times else "" for share in (0.5, 0.95, 0.99)]
        expected = "" if row.must_work else "(not possible without a relay)"
        names = [nat.value for nat in row.pair]
        lines.append(_LINE.format(*names, f"{len(row.times)}/{row.runs}", *times) + f"  {expected}".rstrip())
    return "\n".join(lines)


def picture(rows: Sequence[Row]) -> str:
    """The rows as an SVG: a square for each pair, the faster the greener, with its median and p95."""
    size, left, top = 116, 140, 60
    kinds = CLASSIC
    by_pair = {row.pair: row for row in rows}
    width, height = left + size * len(kinds) + 20, top + size * len(kinds) + 50
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="20" y="20" font-size="14">Milliseconds from connect() to QUIC, {1000 * DELAY:.0f} ms one way at '
        "each site: median (95 %)</text>",
    ]
    for column, kind in enumerate(kinds):
        x = left + size * column + size // 2
        parts.append(f'<text x="{x}" y="{top - 10}" text-anchor="middle">{kind.value.replace("_", " ")}</text>')
    for line, one in enumerate(kinds):
        y = top + size * line
        parts.append(
            f'<text x="{left - 10}" y="{y + size // 2}" text-anchor="end">{one.value.replace("_", " ")}</text>'
        )
        for column, two in enumerate(kinds):
            parts += _square(by_pair[one, two], left + size * column, y, size)
    parts.append(f'<text x="{left}" y="{height - 15}">rows connect, columns are connected to</text></svg>')
    return "\n".join(parts)


def _square(row: Row, x: int, y: int, size: int) -> list[str]:
    if not row.times:
        colour, first, second = "#dddddd", "no path", ""
    else:
        median = 1000 * row.percentile(0.5)
        # Green at the limit of 200 ms, red at 600.
        hue = max(0.0, min(120.0, 120 - (median - 200) * 0.3))
        colour, first = f"hsl({hue:.0f},60%,75%)", f"{median:.0f}"
        second = f"({1000 * row.percentile(0.95):.0f})"
    middle = x + size // 2
    return [
        f'<rect x="{x + 1}" y="{y + 1}" width="{size - 2}" height="{size - 2}" fill="{colour}"/>',
        f'<text x="{middle}" y="{y + size // 2}" text-anchor="middle" font-size="16">{first}</text>',
        f'<text x="{middle}" y="{y + size // 2 + 18}" text-anchor="middle">{second}</text>',
    ]
