"""`python -m bench.connect`: from `connect()` to the answer, beside others, behind kernel NATs; in one table.

It reports, and does not judge: the exit status is 0 whether the goals hold or not.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.connect.play import MODES, Case, play
from bench.connect.programs import PROGRAMS, QUICE, Program, Ready
from bench.connect.report import Limits, Results, failures, table, verdicts
from bench.connect.running import SilentError
from bench.connect.servers import coturn_unavailable
from bench.peers import NotMeasuredError
from bench.report import load, machine
from lab.ground import LabError, available
from lab.link import Conditions
from lab.nat import KINDS, named
from lab.story import StoryError, exit_on_sigterm
from quice.sim.kinds import Nat

NATS = (Nat.PUBLIC, Nat.FULL_CONE, Nat.PORT_RESTRICTED, Nat.SYMMETRIC)
RELAYS = {"no": (False,), "yes": (True,), "both": (False, True)}
_RESULTS = Path(__file__).parent.parent / "results"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.connect", description=__doc__)
    parser.add_argument("nats", nargs="*", type=named, metavar="NAT", help=f"that both peers are behind, of {KINDS}")
    parser.add_argument("--runs", type=int, default=20, metavar="N", help="warm, and as many cold ones; 20 by default")
    parser.add_argument("--peers", help="beginnings of the programs' names, separated by commas; all by default")
    parser.add_argument("--relay", choices=RELAYS, default="both", help="whether there is one; both by default")
    parser.add_argument("--delay", type=float, default=25, metavar="MS", help="one way, at each site; 25 by default")
    options = parser.parse_args()
    if options.runs < 1 or options.delay < 0:
        parser.error("at least one run, and no negative delay")
    for why_not in (available(), coturn_unavailable()):
        if why_not is not None:
            print(f"NOT MEASURED HERE: {why_not}", file=sys.stderr)
            return 1
    chosen = [p for p in PROGRAMS if not options.peers or p.name.startswith(tuple(options.peers.split(",")))]
    pairs = [(nat, nat) for nat in options.nats or NATS]
    cases = [Case(*nats, relay) for nats, relay in itertools.product(pairs, RELAYS[options.relay])]
    # Where nothing goes directly and there is no relay, nobody gets anywhere.
    cases = [case for case in cases if case.relay or case.is_served]
    try:
        return _measure(chosen, cases, options.runs, Conditions(delay=options.delay / 1000))
    except (LabError, StoryError, SilentError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _measure(chosen: Sequence[Program], cases: Sequence[Case], runs: int, conditions: Conditions) -> int:
    console = Console(width=max(130, Console().width))
    before = load()
    console.print(f"{machine()}, {before}")
    ready, reasons = _prepare(chosen)
    results: Results = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(cases) * runs * len(ready) * len(MODES))

        def on(step: str) -> None:
            progress.update(task, description=step, advance=1)

        for case in cases:
            results.append((case, play(case, ready, runs, conditions, on)))
    limits = Limits(conditions.delay)
    console.print(table(results, [program.name for program, _ in ready], limits, runs))
    console.print("; ".join(f"{program.name}: {found.version}" for program, found in ready))
    # Without a delay there is no limit either.
    remarks = verdicts(results, limits) if QUICE in chosen and conditions.delay else []
    for line in (*remarks, *failures(results), *reasons):
        console.print(line, soft_wrap=True)
    _write(results, [machine(), before, load()])
    return 0


def _prepare(programs: Sequence[Program]) -> tuple[list[tuple[Program, Ready]], list[str]]:
    """Those that can be had here, and why the others can't."""
    ready, reasons = [], []
    for program in programs:
        try:
            ready.append((program, program.prepare()))
        except NotMeasuredError as error:
            reasons.append(f"NOT MEASURED: {program.name}: {error}")
    return ready, reasons


def _write(results: Results, circumstances: list[str]) -> None:
    cases = [
        {
            "nats": [case.first.value, case.second.value],
            "relay": case.relay,
            "programs": [{"program": name, "mode": mode, **asdict(cell)} for (name, mode), cell in cells.items()],
        }
        for case, cells in results
    ]
    _RESULTS.mkdir(exist_ok=True)
    (_RESULTS / "connect.json").write_text(json.dumps({"circumstances": circumstances, "cases": cases}, indent=2))


if __name__ == "__main__":
    exit_on_sigterm()
    sys.exit(main())
