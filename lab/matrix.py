"""Every pair of NATs, both ways: `python -m lab.matrix --runs 10` prints how the connections went."""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.ground import LabError, available
from lab.nat import Nat
from lab.network import Host
from lab.story import Command, Event, StoryError, exit_on_sigterm, two_sites

CONES = (Nat.PUBLIC, Nat.FULL_CONE, Nat.ADDRESS_RESTRICTED, Nat.PORT_RESTRICTED)
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
PATIENCE = 15.0
"""Seconds in which a pair that can't go direct says so."""


@dataclass(frozen=True)
class Attempt:
    """One connection attempt, as `quice ping` tells it; times are seconds."""

    path: Event | None
    error: Event | None
    status: int
    connect_seconds: float
    seconds: float
    """What the whole command took."""

    @property
    def direct(self) -> bool:
        return self.status == 0 and self.path is not None and self.path["kind"] == "direct"

    @property
    def refused(self) -> bool:
        """Whether it ended in the error that says that there is no path, in time."""
        kind = self.error and self.error["kind"]
        return self.status == 1 and self.path is None and kind == "no_path" and self.seconds < PATIENCE


def attempt(url: str, connecting: Host, answering: Host) -> Attempt:
    """Connect from one fresh process to another, with one `quice ping`. Raises `StoryError`."""
    with (
        tempfile.TemporaryDirectory(prefix="quice-lab-") as folder,
        Command(answering, "ping", "--server", url, "--identity", str(Path(folder, "identity"))) as answer,
    ):
        ticket = answer.wait_for("ticket")["ticket"]
        started = time.monotonic()
        told: dict[str, Event] = {}
        with Command(connecting, "ping", ticket, "--count", "1") as ping:
            for event in ping.events():
                told[event["event"]] = event
            status = ping.status()
        seconds = time.monotonic() - started
    if not told.keys() & {"done", "error"}:
        raise StoryError(f"quice ping ended with status {status}, and without a word")
    connect_seconds = told["done"]["connect_seconds"] if "done" in told else 0.0
    return Attempt(told.get("path"), told.get("error"), status, connect_seconds, seconds)


def _row(pair: tuple[Nat, Nat], runs: int, good: Callable[[Attempt], bool]) -> list[Attempt]:
    """Try one pair, print its line, and return the attempts that did not go as they should."""
    first, second = pair
    with two_sites(first, second) as (url, one, two):
        attempts = [attempt(url, one, two) for _ in range(runs)]
    failed = [a for a in attempts if not good(a)]
    counts = [f"{sum(map(check, attempts))}/{runs}" for check in (lambda a: a.direct, lambda a: a.refused)]
    times = [1000 * (a.connect_seconds or a.seconds) for a in attempts]
    columns = (first.value, second.value, *counts, f"{statistics.median(times):.0f}", f"{max(times):.0f}")
    print(_LINE.format(*columns), "" if not failed else "  FAILED", sep="", flush=True)
    return failed


_LINE = "{:19} {:19} {:>7} {:>8} {:>7} {:>8}"


def _print_table(runs: int) -> int:
    print(_LINE.format("connecting", "connected to", "direct", "no path", "median", "max (ms)"), flush=True)
    failed = [a for pair in DIRECT for a in _row(pair, runs, lambda a: a.direct)]
    failed += [a for pair in IMPOSSIBLE for a in _row(pair, runs, lambda a: a.refused)]
    for error in sorted({a.error["message"] for a in failed if a.error is not None}):
        print(f"seen: {error}")
    total = runs * (len(DIRECT) + len(IMPOSSIBLE))
    print(f"{total - len(failed)} of {total} connections went as they should")
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m lab.matrix", description=__doc__)
    parser.add_argument("--runs", type=int, default=10, metavar="N", help="connections for each pair")
    runs = parser.parse_args().runs
    if runs < 1:
        parser.error("--runs: at least 1")
    if (why_not := available()) is not None:
        print(why_not, file=sys.stderr)
        return 1
    try:
        return _print_table(runs)
    except (LabError, StoryError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    exit_on_sigterm()
    sys.exit(main())
