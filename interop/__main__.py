"""`python -m interop`: how long agents of different makers take to find a pair, in one table."""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys

from interop.play import PlayError, Side, ground, meet
from interop.programs import AIOICE, QUICE, BuildError, Program, pion, pion_unavailable
from lab.ground import LabError, available
from lab.link import Conditions
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
    parser.add_argument("--delay", type=float, default=25, metavar="MS", help="one way, at each site (25)")
    options = parser.parse_args()
    if options.runs < 1 or options.delay < 0:
        parser.error("at least one run, and no negative delay")
    if (why_not := available()) is not None:
        print(why_not, file=sys.stderr)
        return 1
    try:
        return _print_table(options.runs, Conditions(delay=options.delay / 1000))
    except (BuildError, LabError, StoryError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _print_table(runs: int, conditions: Conditions) -> int:
    full = [QUICE, AIOICE]
    lite: list[Program] = []
    if (why_not := pion_unavailable()) is None:
        print("building pion's program", file=sys.stderr)
        full.append(pion())
        lite.append(pion(lite=True))
    else:
        print(f"LEFT OUT HERE: {why_not}", file=sys.stderr)
    delay = f"{1000 * conditions.delay:g} ms at each site, one way"
    print(f"From the start of gathering until both have selected a pair; {delay}, and signalling for free.")
    header = ("controlling", "controlled", "its NAT", "the other's NAT", "met", "median", "max (ms)")
    print(_LINE.format(*header), flush=True)
    failures: list[str] = []
    for controlling, controlled in itertools.product(full, full):
        for first, second in NATS:
            failures += _row((controlling, controlled), (first, second), runs, conditions)
    for controlling, controlled in itertools.product(full, lite):
        # RFC 8445 §5.2: a lite agent is one that everybody can reach.
        for first in dict(NATS):
            failures += _row((controlling, controlled), (first, Nat.PUBLIC), runs, conditions)
    for failure in failures:
        print(f"seen: {failure}")
    return 1 if failures else 0


def _row(programs: tuple[Program, Program], nats: tuple[Nat, Nat], runs: int, conditions: Conditions) -> list[str]:
    """Have the two meet, print their line, and return what went wrong."""
    times: list[float] = []
    failures: list[str] = []
    with ground(*nats, conditions=conditions) as (stun, one, two):
        sides = Side(programs[0], one, "controlling"), Side(programs[1], two, "controlled")
        for _ in range(runs):
            try:
                times.append(1000 * max(meet(*sides, stun).seconds))
            except PlayError as error:
                failures.append(str(error))
    middle, most = (f"{statistics.median(times):.0f}", f"{max(times):.0f}") if times else ("", "")
    met = f"{len(times)}/{runs}"
    names = (program.name for program in programs)
    print(_LINE.format(*names, *(nat.value for nat in nats), met, middle, most), flush=True)
    return failures


if __name__ == "__main__":
    exit_on_sigterm()
    sys.exit(main())
