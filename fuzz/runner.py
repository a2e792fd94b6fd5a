"""Plays cases against the clock, watches the memory, and says how to play a failed one again."""

from __future__ import annotations

import contextlib
import math
import random
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from fuzz.memory import resident
from fuzz.target import Misbehaviour, Target

SLICE = 0.1
"""Seconds that each target gets in turn."""
PATIENCE = 10.0
"""Seconds after which a case counts as hanging. The slowest take milliseconds."""
WARM = 2000
"""Cases of a target by which all is loaded and allocated that it needs."""
MOST_GROWTH = 32 << 20
"""Bytes by which the process may grow with a target's later cases, all together. A leak of a hundred bytes a case is
found in a third of a million."""


@dataclass
class Tally:
    """How far one target has come."""

    target: Target
    cases: int = 0
    seconds: float = 0.0
    growth: int = 0
    """Bytes by which the process has grown since it was warm."""
    failure: Failure | None = None


@dataclass(frozen=True)
class Failure:
    """A case that failed."""

    target: str
    seed: int
    case: int
    report: str
    alone: bool = True
    """Whether the case fails by itself; else it takes all before it."""

    @property
    def replay(self) -> str:
        """The line that plays the case again."""
        cases = f"--case {self.case}" if self.alone else f"--inputs {self.case}"
        return f"python -m fuzz --seed {self.seed} --target {self.target} {cases}"


@dataclass
class Run:
    """All targets in turn, each with the same share of time, until the time is up or enough was played.

    A target stops at its first failure; the others go on.
    """

    targets: Sequence[Target]
    seed: int
    clock: Callable[[], float] = time.monotonic
    memory: Callable[[], int] = resident
    tallies: list[Tally] = field(init=False)

    def __post_init__(self) -> None:
        self.tallies = [Tally(target) for target in self.targets]

    @property
    def failures(self) -> list[Failure]:
        """What was found so far."""
        return [tally.failure for tally in self.tallies if tally.failure is not None]

    @property
    def cases(self) -> int:
        """How many were played, of all targets."""
        return sum(tally.cases for tally in self.tallies)

    def until(self, seconds: float, inputs: float = math.inf) -> Iterator[float]:
        """Play for so many seconds, or so many cases; yields the seconds that have passed, after each round of all
        targets."""
        begun = self.clock()
        while (
            (passed := self.clock() - begun) < seconds
            and self.cases < inputs
            and len(self.failures) < len(self.tallies)
        ):
            share = min(SLICE, (seconds - passed) / len(self.tallies))
            for tally in self.tallies:
                self._play_slice(tally, share)
            yield min(self.clock() - begun, seconds)

    def _play_slice(self, tally: Tally, seconds: float) -> None:
        begun, before, was_warm = self.clock(), self.memory(), tally.cases >= WARM
        while tally.failure is None:
            tally.failure = play(tally.target, self.seed, tally.cases)
            tally.cases += 1
            if self.clock() - begun >= seconds:
                break
        tally.seconds += self.clock() - begun
        if was_warm:
            tally.growth += self.memory() - before
        if tally.growth > MOST_GROWTH and tally.failure is None:
            report = f"the process has grown by {tally.growth >> 20} MiB with {tally.cases:,} cases"
            tally.failure = Failure(tally.target.name, self.seed, tally.cases, report, alone=False)


def play(target: Target, seed: int, case: int) -> Failure | None:
    """Play one case. Returns how it failed, if it did."""
    try:
        with _deadline():
            target.play(random.Random(f"{seed}/{target.name}/{case}"))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # a panic of the engine is no Exception
        return Failure(target.name, seed, case, traceback.format_exc())
    return None


@contextlib.contextmanager
def _deadline() -> Iterator[None]:
    """Interrupts what takes longer than `PATIENCE`, where the system can and nobody else uses its timer."""
    if not hasattr(signal, "setitimer") or signal.getitimer(signal.ITIMER_REAL)[0] > 0:
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        raise Misbehaviour(f"not done after {PATIENCE:g} s")

    previous = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
