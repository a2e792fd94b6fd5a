"""One stream of QUIC through a TURN server, beside bare UDP through the same one: `python -m bench.relayed`.

Sender, relay and receiver are a process each, and so they are for bare UDP but that its sender and sink share one (see
`bench.relay`). Both have packets of one size: what QUIC has found to fit. They take turns, run by run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.relay import RELAYS, Case, Result, Way, account, carry, cpu_seconds
from bench.report import load, machine
from interop.relays import Relay, coturn_unavailable

_GOODBYE = 10.0
"""Seconds in which a peer that has said everything ends."""


@dataclass(frozen=True)
class Stream:
    """What one stream of QUIC did: its packets' size, Gbit/s of the application's data, the share of packets that got
    lost, CPU seconds a GiB of both ends, and microseconds of the relay's CPU for each packet of either side."""

    size: int
    gbit: float
    loss: float
    ends: float
    microseconds: float


def stream(relay: Relay, rendezvous: str, way: Way | None, seconds: float) -> Stream:
    """Send one stream for that long, through a relay or, if no way is given, without."""
    ground = {"rendezvous": rendezvous, "seconds": seconds}
    senders = _known(relay) if way in (Way.UP, Way.BETWEEN) else None
    receivers = _known(relay) if way in (Way.DOWN, Way.BETWEEN) else None
    with _peer("receive", {**ground, "relay": receivers}) as receiver:
        to = _said(receiver)["peer"]
        with _peer("send", {**ground, "relay": senders, "to": to}) as sender:
            _said(sender)
            before = cpu_seconds(relay.process.pid)
            _said(sender)
            cpu = cpu_seconds(relay.process.pid) - before
            told = _said(sender)
    if ("relay" in told["kinds"]) is (way is None) or len(told["kinds"]) > 2:
        raise RuntimeError(f"the stream took other paths than it was to: {told['kinds']}")
    packets = told["packets"] + told["answers"]
    gbit = told["bytes"] * 8 / told["seconds"] / 1e9
    ends = (told["sender_cpu"] + told["receiver_cpu"]) / told["bytes"] * (1 << 30)
    return Stream(told["size"], gbit, told["lost"] / told["packets"], ends, cpu / packets * 1e6)


def _known(relay: Relay) -> dict[str, str]:
    user = account()
    return {"uri": f"turn:127.0.0.1:{relay.port}", "username": user.username, "password": user.password}


@contextmanager
def _peer(role: str, ground: dict[str, object]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "bench.peer_relayed", role, json.dumps(ground)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
            # It gives its allocation back: the relay would refuse another for the same port.
            process.wait(_GOODBYE)
        finally:
            process.kill()


def _said(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The next line that a process writes."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("a peer ended before its time")
    said: dict[str, Any] = json.loads(line)
    return said


@contextmanager
def rendezvous() -> Iterator[str]:
    """By what the two find each other, in a process apart; the URL."""
    command = [sys.executable, "-m", "quice", "serve", "--host", "127.0.0.1", "--port", "0", "--stun-port", "0"]
    with subprocess.Popen([*command, "--no-relay", "--json"], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield str(_said(process)["url"])
        finally:
            process.kill()


@dataclass(frozen=True)
class Run:
    """What was measured right after each other: QUIC through the relay and without, and bare UDP in packets of that
    size, in batches and not."""

    quic: Stream
    direct: Stream
    batched: Result
    single: Result

    @property
    def ratios(self) -> tuple[float, float, float]:
        """The stream's data through the relay beside what the others carried."""
        return (
            self.quic.gbit / self.batched.gbit,
            self.quic.gbit / self.single.gbit,
            self.quic.gbit / self.direct.gbit,
        )

    @property
    def numbers(self) -> tuple[float, ...]:
        """What the tables show of it."""
        return (
            *(self.quic.size, self.quic.gbit, self.batched.gbit, self.single.gbit, self.direct.gbit),
            *self.ratios,
            *(self.quic.microseconds, self.batched.microseconds, self.single.microseconds),
            *(self.quic.ends, self.direct.ends, self.quic.loss),
        )


def measure(relay: Relay, url: str, way: Way, seconds: float) -> Run:
    """One run of each."""
    quic = stream(relay, url, way, seconds)
    batched, single = (carry(relay, Case(way, batched), seconds, quic.size) for batched in (True, False))
    return Run(quic, stream(relay, url, None, seconds), batched, single)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.relayed", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="how often each is measured; 5 by default")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement; 2 by default")
    parser.add_argument("--relays", default=",".join(RELAYS), help="which relays, separated by commas")
    parser.add_argument("--ways", default="up,down,between", help="which ways, separated by commas")
    options = parser.parse_args()
    names = options.relays.split(",")
    if "coturn" in names and (reason := coturn_unavailable()):
        print(f"NOT MEASURED: {reason}")
        names.remove("coturn")
    print(f"{machine()}, {load()}", flush=True)
    runs: dict[tuple[Way, str], list[Run]] = {}
    with ExitStack() as stack:
        folders = {name: Path(stack.enter_context(tempfile.TemporaryDirectory())) for name in names}
        relays = {name: stack.enter_context(RELAYS[name](folders[name])) for name in names}
        url = stack.enter_context(rendezvous())
        for way in (Way[name.upper()] for name in options.ways.split(",")):
            for _ in range(options.runs):
                for name, relay in relays.items():
                    runs.setdefault((way, name), []).append(measure(relay, url, way, options.seconds))
    console = Console(width=118)
    medians = {
        key: [statistics.median(n) for n in zip(*(run.numbers for run in those), strict=True)]
        for key, those in runs.items()
    }
    for table in tables(medians):
        console.print(table)


def tables(medians: dict[tuple[Way, str], list[float]]) -> tuple[Table, Table]:
    """How much, and at what cost. The ratios are medians of runs that followed each other."""
    rates = Table(title="one stream of QUIC through a relay, loopback, medians: Gbit/s")
    rates.add_column("data")
    rates.add_column("relay")
    headings = (
        "packet",
        "QUIC",
        "UDP in batches",
        "one by one",
        "QUIC, no relay",
        "QUIC has of batches",
        "of one by one",
        "of no relay",
    )
    for heading in headings:
        rates.add_column(heading, justify="right")
    costs = Table(title="what it costs: CPU of the relay for a packet, and of both ends for a GiB")
    costs.add_column("data")
    costs.add_column("relay")
    for heading in ("relay, µs: QUIC", "UDP in batches", "one by one", "ends, s: QUIC", "no relay", "QUIC lost"):
        costs.add_column(heading, justify="right")
    for (way, name), (size, *numbers) in medians.items():
        gbits, ratios, micros, (relayed, direct, loss) = numbers[:4], numbers[4:7], numbers[7:10], numbers[10:]
        rates.add_row(way.value, name, f"{size:.0f}", *(f"{n:.2f}" for n in gbits), *(f"{n:.2f} x" for n in ratios))
        costs.add_row(way.value, name, *(f"{n:.2f}" for n in (*micros, relayed, direct)), f"{loss:.2%}")
    return rates, costs


if __name__ == "__main__":
    main()
