"""Every way of establishing the connection between two port-restricted NATs: how fast, and how often."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from quice.signal.messages import Establish
from quice.sim.kinds import Nat
from scenarios.matrix import Row
from scenarios.matrix import plans as matrix_plans
from scenarios.random_session import Plan

WAYS = {
    "initiator": (Establish.INITIATOR, False),
    "highest-address, connecting peer is client": (Establish.HIGHEST_ADDRESS, False),
    "highest-address, the other is client": (Establish.HIGHEST_ADDRESS, True),
    "simultaneous": (Establish.SIMULTANEOUS, False),
}
"""The way, and whether the peer that connects has the higher address."""
_PAIR = Nat.PORT_RESTRICTED, Nat.PORT_RESTRICTED
_LINE = "| {} | {} | {} | {} | {} | {} |"


def plans(runs: int, loss: float) -> dict[str, list[Plan]]:
    """So many sessions of every way, with this share of the packets between the peers lost, each way."""
    usual = matrix_plans(runs, loss)[_PAIR]
    return {
        name: [replace(plan, establish=establish, higher=higher) for plan in usual]
        for name, (establish, higher) in WAYS.items()
    }


def row(plans: Sequence[Plan], times: Sequence[float]) -> Row:
    """What became of the sessions of one way."""
    return Row(_PAIR, True, len(plans), tuple(times))


def table(rows: dict[tuple[str, float], Row]) -> str:
    """The rows in Markdown, by way and loss, times in milliseconds."""
    lines = [_LINE.format("way", "loss", "connected", "median", "p95", "p99"), "| --- | --- | --- | --- | --- | --- |"]
    for (name, loss), each in rows.items():
        shares = [each.percentile(share) for share in (0.5, 0.95, 0.99)]
        times = ["" if math.isinf(time) else f"{1000 * time:.0f}" for time in shares]
        lines.append(_LINE.format(name, f"{100 * loss:.0f} %", f"{len(each.times)}/{each.runs}", *times))
    return "\n".join(lines)
