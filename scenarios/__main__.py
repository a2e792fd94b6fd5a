"""`python -m scenarios`: many sessions on all cores, and what became of them."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from scenarios.random_session import draw, run

_CHUNK = 50
_SHOWN = 5


@dataclass(frozen=True)
class Result:
    """What became of one session. `broken`: what did not hold."""

    seed: int
    broken: str = ""
    connect_seconds: float | None = None
    reason: str = ""


def attempt(seed: int) -> Result:
    """Run one session to its end, whatever happens in it."""
    try:
        outcome = run(draw(seed))
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return Result(seed, f"{type(error).__name__}: {error} ({os.path.basename(last.filename)}:{last.lineno})")
    return Result(seed, connect_seconds=outcome.connect_seconds, reason=outcome.reason)


def attempts(first: int, count: int, workers: int) -> Iterator[Result]:
    """Run so many sessions, by their seeds."""
    seeds = range(first, first + count)
    if workers == 1:
        yield from map(attempt, seeds)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(attempt, seeds, chunksize=_CHUNK)


def run_random(first: int, count: int, workers: int) -> int:
    """Run random sessions; returns the exit status."""
    started = time.monotonic()
    times: list[float] = []
    reasons: Counter[str] = Counter()
    broken: list[Result] = []
    for number, result in enumerate(attempts(first, count, workers), 1):
        if result.broken:
            broken.append(result)
            print(f"\nseed {result.seed}: {result.broken}\n  again: python -m scenarios random --seed {result.seed}")
            if len(broken) >= _SHOWN * 4:
                print("and so on: stopped")
                break
        elif result.connect_seconds is not None:
            times.append(result.connect_seconds)
        else:
            reasons[result.reason.partition(".")[0]] += 1
        if sys.stderr.isatty():
            print(f"\r{number} of {count}", end="", file=sys.stderr)
    seconds = time.monotonic() - started
    print(
        f"\n{len(times) + sum(reasons.values()) + len(broken)} sessions in {seconds:.0f} s; {len(times)} connected",
        end="",
    )
    if len(times) > 1:
        print(f", median {1000 * statistics.median(times):.0f} ms", end="")
    print()
    for reason, times_seen in reasons.most_common(_SHOWN):
        print(f"  {times_seen} times: {reason}")
    print(f"{len(broken)} broken")
    return 1 if broken else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scenarios", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    randomly = commands.add_parser("random", help="random sessions")
    randomly.add_argument("--sessions", type=int, default=10_000, metavar="N")
    randomly.add_argument("--first", type=int, default=1, metavar="SEED")
    randomly.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    randomly.add_argument("--seed", type=int, help="this one alone, and what it is")
    options = parser.parse_args()
    if options.seed is not None:
        plan = draw(options.seed)
        print(plan, f"must work: {plan.must_work}", sep="\n")
        print(run(plan))
        return 0
    return run_random(options.first, options.sessions, options.workers)


if __name__ == "__main__":
    sys.exit(main())
