"""`python -m bench`: one table from one run; the peers take turns, so that what disturbs the machine hits all alike.

It reports, and does not judge: the exit status is 0 whether the goals hold or not.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.measure import idle_memory, latency, throughput
from bench.peers import PEERS, NotMeasuredError, Peer, Ready
from bench.report import Numbers, load, machine, table

Measure = Callable[[Peer, Ready], dict[str, float]]
MEASURES: dict[str, Measure] = {"throughput": throughput, "latency": latency, "memory": idle_memory}
_RESULTS = Path(__file__).parent / "results"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("what", nargs="*", help=f"what to measure: {', '.join(MEASURES)}; all by default")
    parser.add_argument("--runs", type=int, default=3, help="how often each is measured; 3 by default")
    parser.add_argument("--peers", help="beginnings of the names to measure, separated by commas; all by default")
    options = parser.parse_args()
    what = options.what or list(MEASURES)
    if unknown := set(what) - set(MEASURES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    console = Console(width=max(110, Console().width))
    before = load()
    console.print(f"{machine()}, {before}")
    chosen = [p for p in PEERS if not options.peers or p.name.startswith(tuple(options.peers.split(",")))]
    ready, reasons = prepare(chosen, console)
    numbers = measure(ready, reasons, options.runs, what, console)
    console.print(table(numbers, reasons, options.runs))
    console.print("; ".join(f"{peer.name}: {found.version}" for peer, found in ready))
    for name, reason in reasons.items():
        console.print(f"NOT MEASURED: {name}: {reason}")
    _RESULTS.mkdir(exist_ok=True)
    result = {"machine": machine(), "load": [before, load()], "numbers": numbers, "not_measured": reasons}
    (_RESULTS / "last.json").write_text(json.dumps(result, indent=2))
    return 0


def prepare(peers: Sequence[Peer], console: Console) -> tuple[list[tuple[Peer, Ready]], dict[str, str]]:
    """The peers that can be had here, and why the others can't."""
    ready: list[tuple[Peer, Ready]] = []
    reasons: dict[str, str] = {}
    for peer in peers:
        console.print(f"preparing {peer.name} ...")
        try:
            ready.append((peer, peer.prepare()))
        except NotMeasuredError as error:
            reasons[peer.name] = str(error)
    return ready, reasons


def measure(
    ready: Sequence[tuple[Peer, Ready]], reasons: dict[str, str], runs: int, what: Sequence[str], console: Console
) -> Numbers:
    """Each peer's numbers; one that fails goes to `reasons`, and is left alone from then on."""
    steps = [
        (name, peer, found)
        for name in what
        for _ in range(runs)
        for peer, found in ready
        if name != "memory" or peer.can_idle
    ]
    numbers: Numbers = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(steps))
        for name, peer, found in steps:
            progress.update(task, description=f"{name}: {peer.name}")
            if not console.is_terminal:
                console.print(f"{name}: {peer.name}")
            if peer.name not in reasons:
                try:
                    for key, value in MEASURES[name](peer, found).items():
                        numbers.setdefault(peer.name, {}).setdefault(key, []).append(value)
                except NotMeasuredError as error:
                    reasons[peer.name] = f"{name}: {error}"
            progress.advance(task)
    return numbers


if __name__ == "__main__":
    sys.exit(main())
