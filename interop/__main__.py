"""`python -m interop`: how long agents of different makers take to find a pair, in one table."""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys

from interop.play import PlayError, Side, ground, meet
from interop.programs import AIOICE, QUICE, BuildError, Program, pion, pion_unavailable
from lab.ground import LabError, available
from lab.nat import Nat
from lab.story import StoryError, exit_on_sigterm

NATS = (
    (Nat.PUBLIC, Nat.PUBLIC),
    (Nat.PORT_RESTRICTED, Nat.PORT_RESTRICTED),
    (Nat.SYMMETRIC, Nat.ADDRESS_RESTRICTED),
)
_LINE = "{:11} {:11} {:16} {:19} {:>6} {:>8} {:>8}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m interop", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="meetings for each line")
    runs = parser.parse_args().runs
    if runs < 1:
        parser.error("--runs: at least 1")
    if (why_not := available()) is not None:
        print(why_not, file=sys.stderr)
        return 1
    try:
        return _print_table(runs)
    except (BuildError, LabError, StoryError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _print_table(runs: int) -> int:
    full = [QUICE, AIOICE]
    lite: list[Program] = []
    if (why_not := pion_unavailable()) is None:
        print("building pion's program", file=sys.stderr)
        full.append(pion())
        lite.append(pion(lite=True))
    else:
        print(f"LEFT OUT HERE: {why_not}", file=sys.stderr)
    print(
        "From the start of gathering until both have selected a pair; no delay between them, and signalling for free."
    )
    header = ("controlling", "controlled", "its NAT", "the other's NAT", "met", "median", "max (ms)")
    print(_LINE.format(*header), flush=True)
    failures: list[str] = []
    for controlling, controlled in itertools.product(full, full):
        for first, second in NATS:
            failures += _row(controlling, controlled, first, second, runs)
    for controlling, controlled in itertools.product(full, lite):
        # RFC 8445 §5.2: a lite agent is one that everybody can reach.
        for first in dict(NATS):
            failures += _row(controlling, controlled, first, Nat.PUBLIC, runs)
    for failure in failures:
        print(f"seen: {failure}")
    return 1 if failures else 0


def _row(controlling: Program, controlled: Program, first: Nat, second: Nat, runs: int) -> list[str]:
    """Have the two meet, print their line, and return what went wrong."""
    times: list[float] = []
    failures: list[str] = []
    with ground(first, second) as (stun, one, two):
        sides = Side(controlling, one, "controlling"), Side(controlled, two, "controlled")
        for _ in range(runs):
            try:
                times.append(1000 * max(meet(*sides, stun).seconds))
            except PlayError as error:
                failures.append(str(error))
    middle, most = (f"{statistics.median(times):.0f}", f"{max(times):.0f}") if times else ("", "")
    met = f"{len(times)}/{runs}"
    print(_LINE.format(controlling.name, controlled.name, first.value, second.value, met, middle, most), flush=True)
    return failures


if __name__ == "__main__":
    exit_on_sigterm()
    sys.exit(main())
