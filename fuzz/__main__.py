"""The command: `python -m fuzz --seconds 60`, or the line that a failure printed."""

from __future__ import annotations

import argparse
import math
import random
import sys
import warnings

from fuzz.runner import Failure, Run, play
from fuzz.target import Target
from fuzz.targets import TARGETS

_BETWEEN_REPORTS = 5.0


def main(arguments: list[str] | None = None) -> int:
    """Fuzz as the command line says. Returns 0 without findings, else 1."""
    names = {target.name: target for target in TARGETS}
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Fuzz what reads a stranger's bytes.")
    parser.add_argument("--seconds", type=float, help="for how long, all targets together (default 10)")
    parser.add_argument("--inputs", type=int, help="how many inputs, all targets together, however long that takes")
    parser.add_argument("--seed", type=int, help="replays a run (default: a new one each time)")
    parser.add_argument("--target", action="append", choices=sorted(names), help="one target alone; repeatable")
    parser.add_argument("--case", type=int, help="one case alone, of one target and seed")
    options = parser.parse_args(arguments)
    chosen = [names[name] for name in options.target] if options.target else list(TARGETS)
    # A warning on a stranger's input would be a way to flood a log.
    warnings.simplefilter("error")
    if options.case is not None:
        if options.seed is None or len(chosen) != 1:
            parser.error("--case needs --seed and one --target")
        failure = play(chosen[0], options.seed, options.case)
        print(_describe(failure) if failure is not None else "the case passes")
        return int(failure is not None)
    seed = options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)
    seconds = options.seconds if options.seconds is not None else 10.0 if options.inputs is None else math.inf
    return fuzz(chosen, seed, seconds, options.inputs or math.inf)


def fuzz(targets: list[Target], seed: int, seconds: float, inputs: float = math.inf) -> int:
    """Play the targets for so long, or so many inputs; print what they found. Returns 0 without findings, else 1."""
    limits = ([f"{seconds:g} s"] if seconds < math.inf else []) + ([f"{inputs:,} inputs"] if inputs < math.inf else [])
    print(f"seed {seed}, {len(targets)} targets, {' or '.join(limits)}", flush=True)
    run = Run(targets, seed)
    due = _BETWEEN_REPORTS
    shown: set[Failure] = set()
    for passed in run.until(seconds, inputs):
        for failure in run.failures:
            if failure not in shown:
                shown.add(failure)
                print(_describe(failure), flush=True)
        if passed >= due:
            due += _BETWEEN_REPORTS
            print(f"{passed:6.0f} s  {run.cases:,} cases", flush=True)
    for tally in run.tallies:
        rate = tally.cases / tally.seconds if tally.seconds else 0.0
        verdict = "failed" if tally.failure is not None else "ok"
        grown = f"{tally.growth / (1 << 20):>6.1f} MiB"
        print(f"{tally.target.name:24} {tally.cases:>10,} cases {rate:>9,.0f}/s {grown}  {verdict}")
    print(f"{run.cases:,} cases")
    return int(bool(run.failures))


def _describe(failure: Failure) -> str:
    return f"\n{failure.report}\n{failure.target} failed. Replay it with:\n    {failure.replay}\n"


if __name__ == "__main__":
    sys.exit(main())
