"""`python -m scenarios`: many sessions on all cores, and what became of them."""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from scenarios import checks, establish, life
from scenarios.matrix import Row, picture, plans, table
from scenarios.random_session import Plan, draw, run

_CHUNK = 50
_FEW = 4
_SHOWN = 5
_UNREACHED = "can reach each other"


@dataclass(frozen=True)
class Result:
    """What became of one session. `broken`: what did not hold."""

    seed: int
    broken: str = ""
    connect_seconds: float | None = None
    reason: str = ""


def attempt(plan: Plan) -> Result:
    """Run one session to its end, whatever happens in it."""
    try:
        outcome = run(plan)
    except Exception as error:
        return Result(plan.seed, f"{type(error).__name__}: {error} ({_where(error)})")
    return Result(plan.seed, connect_seconds=outcome.connect_seconds, reason=outcome.reason)


def _where(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{os.path.basename(last.filename)}:{last.lineno}"


def attempts(plans: Iterable[Plan], workers: int) -> Iterator[Result]:
    """Run these sessions."""
    if workers == 1:
        yield from map(attempt, plans)
        return
    with ProcessPoolExecutor(workers, initializer=gc.freeze) as pool:
        yield from pool.map(attempt, plans, chunksize=_CHUNK)


def run_random(first: int, count: int, workers: int) -> int:
    """Run random sessions; returns the exit status."""
    started = time.monotonic()
    times: list[float] = []
    reasons: Counter[str] = Counter()
    broken: list[Result] = []
    for number, result in enumerate(attempts(map(draw, range(first, first + count)), workers), 1):
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


def attempt_life(plan: life.Life) -> life.Outcome:
    """Let one life take place, whatever happens in it."""
    try:
        return life.run(plan)
    except Exception as error:
        return life.Outcome(plan.seed, (), f"{type(error).__name__}: {error} ({_where(error)})")


def run_lives(first: int, count: int, workers: int) -> int:
    """Let connections live, and print what each thing that happens costs them; returns the exit status."""
    started = time.monotonic()
    lives = map(life.draw, range(first, first + count))
    outcomes: list[life.Outcome] = []
    with ProcessPoolExecutor(workers, initializer=gc.freeze) as pool:
        for number, outcome in enumerate(pool.map(attempt_life, lives, chunksize=_FEW), 1):
            outcomes.append(outcome)
            if outcome.broken:
                again = f"python -m scenarios life --seed {outcome.seed}"
                print(f"\nseed {outcome.seed}: {outcome.broken}\n  again: {again}")
            if sys.stderr.isatty():
                print(f"\r{number} of {count}", end="", file=sys.stderr)
    print("\n" + life.table([record for outcome in outcomes for record in outcome.records]))
    broken = sum(bool(outcome.broken) for outcome in outcomes)
    print(f"\n{len(outcomes)} lives in {time.monotonic() - started:.0f} s; {broken} broken")
    return 1 if broken else 0


def tell_life(seed: int) -> int:
    """Let one connection live, and print each thing that happens; returns the exit status."""
    plan = life.draw(seed)
    print(*plan.told, sep="\n")
    outcome = attempt_life(plan)
    for record in outcome.records:
        print(record)
    print(outcome.broken or "nothing broken")
    return 1 if outcome.broken else 0


def run_report(runs: int, loss: float, workers: int, svg: Path | None) -> int:
    """Run every pair of NATs, print the table and draw the picture; returns the exit status."""
    wanted = plans(runs, loss)
    results = iter(attempts((plan for each in wanted.values() for plan in each), workers))
    rows: list[Row] = []
    broken: list[Result] = []
    for pair, each in wanted.items():
        ours = [next(results) for _ in each]
        # That one of a pair which could work does not is for the table to show.
        broken += [result for result in ours if result.broken and not (loss and _UNREACHED in result.broken)]
        times = tuple(result.connect_seconds for result in ours if result.connect_seconds is not None)
        rows.append(Row(pair, each[0].must_work, runs, times))
    print(table(rows))
    could = [row for row in rows if row.must_work]
    connected = sum(len(row.times) for row in could)
    print(f"\n{100 * connected / (runs * len(could)):.2f} % of {runs * len(could)} that hole punching can serve")
    for result in broken[:_SHOWN]:
        print(f"seed {result.seed}: {result.broken}")
    if svg is not None:
        svg.write_text(picture(rows))
    return 1 if broken else 0


def run_establish(runs: int, workers: int) -> int:
    """Compare the ways of establishing, and print the table; returns the exit status."""
    wanted = {(name, loss): plans for loss in (0.0, 0.05, 0.2) for name, plans in establish.plans(runs, loss).items()}
    results = iter(list(attempts((plan for plans in wanted.values() for plan in plans), workers)))
    rows: dict[tuple[str, float], Row] = {}
    broken = 0
    for key, sessions in wanted.items():
        ours = [next(results) for _ in sessions]
        broken += sum(bool(result.broken) and not (key[1] and _UNREACHED in result.broken) for result in ours)
        times = [result.connect_seconds for result in ours if result.connect_seconds is not None]
        rows[key] = establish.row(sessions, times)
    print(establish.table(rows))
    return 1 if broken else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scenarios", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    randomly = commands.add_parser("random", help="random sessions")
    randomly.add_argument("--sessions", type=int, default=10_000, metavar="N")
    randomly.add_argument("--first", type=int, default=1, metavar="SEED")
    randomly.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    randomly.add_argument("--seed", type=int, help="this one alone, and what it is")
    lives = commands.add_parser("life", help="connections while everything happens to their networks")
    lives.add_argument("--seeds", type=int, default=1000, metavar="N")
    lives.add_argument("--first", type=int, default=1, metavar="SEED")
    lives.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    lives.add_argument("--seed", type=int, help="this one alone, told in full")
    report = commands.add_parser("report", help="every pair of NATs")
    report.add_argument("--runs", type=int, default=100, metavar="N", help="sessions of each pair")
    report.add_argument(
        "--loss", type=float, default=0.0, metavar="PERCENT", help="of the packets between the peers, each way"
    )
    report.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    report.add_argument("--svg", type=Path, metavar="FILE", help="draw it too")
    compared = commands.add_parser("checks", help="checks by STUN and by QUIC beside each other")
    compared.add_argument("--runs", type=int, default=25, metavar="N", help="of each")
    compared.add_argument("--loss", type=float, default=0.0, metavar="PERCENT", help="at each site, each way")
    ways = commands.add_parser("establish", help="every way of establishing the connection")
    ways.add_argument("--runs", type=int, default=200, metavar="N", help="sessions of each way and loss")
    ways.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    if options.command == "checks":
        print(checks.table(options.runs, options.loss / 100))
        return 0
    if options.command == "life":
        if options.seed is not None:
            return tell_life(options.seed)
        return run_lives(options.first, options.seeds, options.workers)
    if options.command == "establish":
        return run_establish(options.runs, options.workers)
    if options.command == "report":
        return run_report(options.runs, options.loss / 100, options.workers, options.svg)
    if options.seed is not None:
        plan = draw(options.seed)
        print(plan, f"must work: {plan.must_work}", sep="\n")
        print(run(plan))
        return 0
    return run_random(options.first, options.sessions, options.workers)


if __name__ == "__main__":
    sys.exit(main())
