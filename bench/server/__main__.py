"""`python -m bench.server`: memory for a registered peer, messages through one core, two and three processes with
Redis, and one that is killed under load. It reports, and does not judge.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from statistics import median

from rich.console import Console
from rich.table import Table

from bench.report import load, machine
from bench.server.connection import cost_of_a_connection
from bench.server.running import Generator, Process, ServerProcess, ended, most_peers, redis

PEERS = 20_000
_ACTIVE = 1000
"""Peers that send; the servers slow down who sends more than 100 a second."""
_WINDOW = 16
"""Messages that one of them has on their way: enough to keep the servers busy."""
_SETTLE = 2.0
"""Seconds after which what was only needed for registering is freed."""
_SCALED = 1000
"""Peers at each of several processes."""
_TURNS = 3

Row = tuple[str, str, str, str]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.server", description=__doc__)
    parser.add_argument("what", nargs="*", help=f"a part of it: {', '.join(PARTS)}; all by default")
    parser.add_argument("--peers", type=int, default=PEERS, help=f"idle peers; {PEERS} by default")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load; 10 by default")
    options = parser.parse_args()
    if unknown := set(options.what) - set(PARTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    console = Console(width=max(110, Console().width))
    console.print(f"{machine()}, {load()}")
    table = Table(title="quice serve, the load from another process, all on loopback")
    for column in ("measured", "value", "goal", "verdict"):
        table.add_column(column, justify="left" if column in ("measured", "verdict") else "right")
    for name in options.what or list(PARTS):
        console.print(f"{name} ...")
        try:
            rows = PARTS[name](options.peers, options.seconds)
        except FileNotFoundError as error:
            console.print(f"NOT MEASURED: {name}: {error}")
            continue
        for number, row in enumerate(rows):
            table.add_row(*row, end_section=number == len(rows) - 1)
    console.print(table)
    return 0


def one_process(peers: int, seconds: float) -> list[Row]:
    """Memory, and messages through one core while all those peers are there."""
    count = most_peers(peers)
    server, generator = ServerProcess(), Generator()
    with ended(server, generator):
        before = server.resident
        cpu = server.cpu
        answer = generator.do("connect", count=count, urls=[server.url])
        time.sleep(_SETTLE)
        kib = (server.resident - before) / count / 1024
        registering = (server.cpu - cpu) / count
        idle = server.cpu
        time.sleep(seconds)
        idle = (server.cpu - idle) / seconds
        pressed, cost, own = _pressed([server], generator, seconds)
        paced = generator.do("pace", seconds=seconds, active=_ACTIVE, rate=pressed["rate"] / 2)
    missing = "" if count == peers else f" (ulimit -n: of {peers:,})"
    return [
        (f"registered idle peers{missing}", f"{answer['registered']:,}", f"{peers:,}", ""),
        ("memory for each, KiB", f"{kib:.1f}", "≤ 24", _verdict(kib <= 24)),
        ("CPU of a registration, µs", f"{registering * 1e6:.0f}", "", ""),
        ("CPU of so many idle peers, of a core", f"{idle:.1%}", "", ""),
        ("messages a second", f"{pressed['rate']:,.0f}", "", ""),
        ("CPU of the server for a message, µs", f"{cost * 1e6:.1f}", "", ""),
        ("so through one whole core, a second", f"{1 / cost:,.0f}", "", ""),
        ("CPU of the load for a message, µs", f"{own * 1e6:.1f}", "", ""),
        ("at half that rate, a second", f"{paced['rate']:,.0f}", "", ""),
        ("delivery, ms: median", f"{paced['p50_ms']:.2f}", "", ""),
        ("delivery, ms: 99 %", f"{paced['p99_ms']:.2f}", "", ""),
        (
            "messages lost",
            f"{paced['sent'] - paced['messages']:.0f}",
            "0",
            _verdict(paced["sent"] == paced["messages"]),
        ),
    ]


def several_processes(_peers: int, seconds: float) -> list[Row]:
    """What a message costs two and three processes with Redis, from anybody to anybody; beside the same processes as if
    they were as many services, each message to a peer at the same one, and one process alone. All take turns.
    """
    rows: list[Row] = []
    for processes, goal in ((2, 1.8), (3, 2.6)):
        with redis() as (store, url):
            servers, single = [ServerProcess(url) for _ in range(processes)], ServerProcess()
            generator, other = Generator(), Generator()
            with ended(*servers, single, generator, other):
                generator.do("connect", count=_SCALED * processes, urls=[server.url for server in servers])
                other.do("connect", count=_SCALED, urls=[single.url], first=processes)
                time.sleep(_SETTLE)
                turns = []
                for _ in range(_TURNS):
                    alone = _pressed([single], other, seconds / _TURNS)
                    apart = _pressed(servers, generator, seconds / _TURNS, apart=True)
                    before = store.cpu
                    shared = _pressed(servers, generator, seconds / _TURNS)
                    kept = (store.cpu - before) / shared[0]["messages"]
                    turns.append((alone[1], apart[1], shared[1], kept, shared[0]["rate"]))
        factor = median(processes * apart / shared for _, apart, shared, *_ in turns)
        rows += [
            (
                f"{processes} processes, Redis: messages a second here",
                f"{median(turn[4] for turn in turns):,.0f}",
                "",
                "",
            ),
            (
                "CPU for a message, µs: from anybody to anybody",
                f"{median(turn[2] for turn in turns) * 1e6:.1f}",
                "",
                "",
            ),
            ("  between peers at the same process", f"{median(turn[1] for turn in turns) * 1e6:.1f}", "", ""),
            ("  one process alone, in memory", f"{median(turn[0] for turn in turns) * 1e6:.1f}", "", ""),
            ("  Redis, beside them", f"{median(turn[3] for turn in turns) * 1e6:.1f}", "", ""),
            (
                f"rate by CPU, with {processes} cores, of one of them",
                f"{factor:.2f} x",
                f"≥ {goal}",
                _verdict(factor >= goal),
            ),
            (
                "  of one process that is alone",
                f"{median(processes * turn[0] / turn[2] for turn in turns):.2f} x",
                "",
                "",
            ),
        ]
    return rows


def killed_process(_peers: int, seconds: float) -> list[Row]:
    """Three processes with Redis, one of them killed under load: what becomes of each message."""
    with redis() as (_, url):
        servers = [ServerProcess(url) for _ in range(3)]
        generator = Generator()
        with ended(*servers, generator):
            generator.do("connect", count=3 * _SCALED, urls=[server.url for server in servers])
            generator.start("survive", seconds=seconds, rate=2000, doomed=servers[1].url)
            time.sleep(seconds / 3)
            servers[1].kill()
            answer: dict[str, float] = generator.line()  # type: ignore[assignment]
    return [
        ("a process of three killed under load: sent", f"{answer['sent']:,}", "", ""),
        ("delivered", f"{answer['delivered']:,}", "", ""),
        ("reported to the sender", f"{answer['reported']:,}", "", ""),
        ("delivered and reported", f"{answer['delivered_and_reported']:,}", "", ""),
        ("delivered twice", f"{answer['twice']:,}", "0", _verdict(not answer["twice"])),
        ("neither delivered nor reported", f"{answer['neither']:,}", "0", _verdict(not answer["neither"])),
        ("peers back, of all", f"{answer['back']:,} of {3 * _SCALED:,}", "", ""),
    ]


def one_connection(_peers: int, _seconds: float) -> list[Row]:
    """What signalling costs a connection, in the simulated internet, as the server counts it."""
    round_trips, cost = cost_of_a_connection()
    return [
        ("round trips from connect() to the first remote candidate", f"{round_trips:.2f}", "1", ""),
        ("bytes of signalling to the server, of both peers", f"{cost.received:,}", "", ""),
        ("bytes from the server, to both peers", f"{cost.sent:,}", "", ""),
    ]


def _pressed(
    servers: list[ServerProcess], generator: Generator, seconds: float, *, apart: bool = False
) -> tuple[dict[str, float], float, float]:
    """The answer; CPU seconds of all servers for a message, and of the load."""
    processes: list[Process] = [*servers]
    before, own = sum(process.cpu for process in processes), generator.cpu
    active = _ACTIVE * len(servers)
    pressed = generator.do("press", seconds=seconds, active=active, window=_WINDOW, apart=apart)
    used = sum(process.cpu for process in processes) - before
    return pressed, used / pressed["messages"], (generator.cpu - own) / pressed["messages"]


def _verdict(holds: bool) -> str:
    return "holds" if holds else "missed"


PARTS: dict[str, Callable[[int, float], list[Row]]] = {
    "one": one_process,
    "several": several_processes,
    "killed": killed_process,
    "connection": one_connection,
}

if __name__ == "__main__":
    sys.exit(main())
