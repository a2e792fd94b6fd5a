"""Every pair of NATs, both ways: `python -m lab.matrix --runs 10` prints how the connections went."""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.ground import LabError, available
from lab.link import Conditions
from lab.nat import KINDS, named
from lab.site import Host
from lab.story import Command, Event, StoryError, exit_on_sigterm, two_sites
from quice.sim.kinds import CLAIMS, CLASSIC, Nat
from quice.stun.discovery import Behaviour


def is_served(one: Nat, other: Nat) -> bool:
    """Whether hole punching can connect two such sites.

    The port that a symmetric NAT maps for a new partner can't be known, and some filters let in only that.
    """
    return not any(
        CLAIMS[here].mapping is not Behaviour.ENDPOINT_INDEPENDENT
        and CLAIMS[there].filtering is Behaviour.ADDRESS_AND_PORT_DEPENDENT
        for here, there in ((one, other), (other, one))
    )


def pairs(kinds: Iterable[Nat], *, served: bool) -> list[tuple[Nat, Nat]]:
    """Ordered pairs (who connects, who is connected to) of these kinds that hole punching can serve, or the rest."""
    kinds = list(kinds)
    return [pair for pair in itertools.product(kinds, kinds) if is_served(*pair) is served]


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


def percentile(times: Sequence[float], share: float) -> float:
    """The smallest of these times that this share of them does not exceed."""
    return sorted(times)[max(0, math.ceil(share * len(times)) - 1)]


class _Table:
    """The connections of every pair, printed as they are made."""

    def __init__(self, runs: int, conditions: Conditions) -> None:
        self._runs = runs
        self._conditions = conditions
        self._failed: list[Attempt] = []
        self._total = 0

    def show(self, pairs: Sequence[tuple[Nat, Nat]], good: Callable[[Attempt], bool]) -> None:
        for pair in pairs:
            with two_sites(*pair, conditions=self._conditions) as (url, one, two):
                attempts = [attempt(url, one, two) for _ in range(self._runs)]
            failed = [a for a in attempts if not good(a)]
            self._failed += failed
            self._total += len(attempts)
            counts = [f"{sum(map(check, attempts))}/{self._runs}" for check in (_is_direct, _is_refused)]
            times = [1000 * (a.connect_seconds or a.seconds) for a in attempts]
            columns = [f"{percentile(times, share):.0f}" for share in _SHARES]
            names = [nat.value for nat in pair]
            print(_LINE.format(*names, *counts, *columns), "" if not failed else "  FAILED", sep="", flush=True)

    def end(self) -> int:
        """Print what came of all of them, and return the exit status."""
        for error in sorted({a.error["message"] for a in self._failed if a.error is not None}):
            print(f"seen: {error}")
        print(f"{self._total - len(self._failed)} of {self._total} connections went as they should")
        return 1 if self._failed else 0


_SHARES = (0.5, 0.95, 0.99, 1.0)
_HEADINGS = ("connecting", "connected to", "direct", "no path", "median", "p95", "p99", "max (ms)")
_LINE = "{:25} {:25} {:>7} {:>8} {:>7} {:>7} {:>7} {:>8}"


def _is_direct(one: Attempt) -> bool:
    return one.direct


def _is_refused(one: Attempt) -> bool:
    return one.refused


def _print_table(kinds: Sequence[Nat], runs: int, conditions: Conditions) -> int:
    print(_LINE.format(*_HEADINGS), flush=True)
    table = _Table(runs, conditions)
    table.show(pairs(kinds, served=True), _is_direct)
    table.show(pairs(kinds, served=False), _is_refused)
    return table.end()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m lab.matrix", description=__doc__)
    parser.add_argument("kinds", nargs="*", type=named, metavar="NAT", help=f"of these kinds, of {KINDS}")
    parser.add_argument("--runs", type=int, default=10, metavar="N", help="connections for each pair")
    each = "at each of the two sites"
    parser.add_argument("--delay", type=float, default=0.0, metavar="MS", help=f"milliseconds, one way, {each}")
    parser.add_argument("--jitter", type=float, default=0.0, metavar="MS", help="up to how many milliseconds more")
    parser.add_argument("--loss", type=float, default=0.0, metavar="PERCENT", help=f"packets lost, each way, {each}")
    options = parser.parse_args()
    if options.runs < 1:
        parser.error("--runs: at least 1")
    if options.delay < 0 or options.jitter < 0:
        parser.error("--delay, --jitter: not less than 0")
    if not 0 <= options.loss <= 100:
        parser.error("--loss: 0 to 100")
    if (why_not := available()) is not None:
        print(why_not, file=sys.stderr)
        return 1
    try:
        conditions = Conditions(options.delay / 1000, options.jitter / 1000, options.loss / 100)
        return _print_table(options.kinds or CLASSIC, options.runs, conditions)
    except (LabError, StoryError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    exit_on_sigterm()
    sys.exit(main())
