"""Every pair of NATs, both ways: `python -m lab.matrix --runs 10` prints how many connections were direct."""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lab.nat import Nat
from lab.network import Host
from lab.story import Command, Event, two_sites

CONES = (Nat.PUBLIC, Nat.FULL_CONE, Nat.ADDRESS_RESTRICTED, Nat.PORT_RESTRICTED)
_IDENTITY = str(Path(tempfile.gettempdir(), "quice-lab-identity"))
WITH_SYMMETRIC = (Nat.PUBLIC, Nat.FULL_CONE, Nat.ADDRESS_RESTRICTED)
DIRECT = [
    *itertools.product(CONES, CONES),
    *((Nat.SYMMETRIC, other) for other in WITH_SYMMETRIC),
    *((other, Nat.SYMMETRIC) for other in WITH_SYMMETRIC),
]
"""Ordered pairs (who connects, who is connected to) that hole punching can serve."""
IMPOSSIBLE = [
    (Nat.SYMMETRIC, Nat.SYMMETRIC),
    (Nat.SYMMETRIC, Nat.PORT_RESTRICTED),
    (Nat.PORT_RESTRICTED, Nat.SYMMETRIC),
]
"""Pairs that only a relay could connect: a symmetric NAT's next port can't be known, and only that would be let in."""


@dataclass
class Attempt:
    """One connection attempt: the path it got, or its error, and how long the command took (seconds)."""

    path: Event | None
    error: Event | None
    connect_seconds: float
    seconds: float


def attempt(url: str, connecting: Host, answering: Host) -> Attempt:
    """Connect from one fresh process to another, with one `quice ping`."""
    answer = Command(answering, "ping", "--server", url, "--identity", _IDENTITY)
    started = time.monotonic()
    path = error = None
    connect_seconds = 0.0
    try:
        ticket = answer.wait_for("ticket")["ticket"]
        started = time.monotonic()
        ping = Command(connecting, "ping", ticket, "--count", "1")
        try:
            for event in ping.events():
                match event["event"]:
                    case "path":
                        path = event
                    case "error":
                        error = event
                    case "done":
                        connect_seconds = event["connect_seconds"]
        finally:
            ping.stop()
    finally:
        answer.stop()
    return Attempt(path, error, connect_seconds, time.monotonic() - started)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    runs = parser.parse_args().runs
    console = Console()
    table = Table("connecting", "connected to", "direct", "median ms to connect", title=f"{runs} runs of each pair")
    failures = 0
    for first, second in DIRECT:
        with two_sites(first, second) as (url, one, two):
            attempts = [attempt(url, one, two) for _ in range(runs)]
        direct = [a for a in attempts if a.path is not None and a.path["kind"] == "direct"]
        failures += runs - len(direct)
        median = statistics.median(a.connect_seconds for a in direct) * 1000 if direct else float("nan")
        console.print(f"{first.value} -> {second.value}: {len(direct)} of {runs}, {median:.0f} ms")
        table.add_row(first.value, second.value, f"{len(direct)}/{runs}", f"{median:.0f}")
    console.print(table)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
