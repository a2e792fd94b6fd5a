"""`python -m bench`: one table from one run; medians, the peers taking turns so that noise hits all alike."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.peers import PEERS, NotMeasuredError, Peer

IDLE_CONNECTIONS = 10_000
GOALS = {"noq (Rust, tokio)": 0.9, "aiopquic": 2.0, "aioquic": 25.0}
Commands = tuple[list[str], list[str]]


def run(commands: Commands, mode: str, count: int) -> dict[str, object]:
    """One server, one client, one result."""
    with subprocess.Popen(commands[0], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            port = json.loads(server.stdout.readline())["port"]
            client = [*commands[1], str(port), mode, str(count)]
            done = subprocess.run(client, stdout=subprocess.PIPE, text=True, timeout=120, check=True)
            result: dict[str, object] = json.loads(done.stdout)
            return result
        finally:
            server.kill()


def idle_memory(commands: Commands) -> float:
    """KiB that each of many idle connections costs the process that accepted them."""
    with subprocess.Popen(commands[0], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            port = json.loads(server.stdout.readline())["port"]
            before = _resident(server.pid)
            client = [*commands[1], str(port), "idle", str(IDLE_CONNECTIONS)]
            with subprocess.Popen(client, stdout=subprocess.PIPE, text=True) as clients:
                assert clients.stdout is not None
                try:
                    json.loads(clients.stdout.readline())
                    return (_resident(server.pid) - before) / IDLE_CONNECTIONS
                finally:
                    clients.kill()
        finally:
            server.kill()


def _resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise RuntimeError("no VmRSS")


def machine() -> str:
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return f"{model}, {os.cpu_count()} cores, {system}"


def measure(peers: dict[str, tuple[Peer, Commands]], runs: int, what: Sequence[str]) -> dict[str, dict[str, float]]:
    """Each peer's numbers, by name."""
    rates: dict[str, list[float]] = {name: [] for name in peers}
    times: dict[str, list[float]] = {name: [] for name in peers}
    numbers: dict[str, dict[str, float]] = {name: {} for name in peers}
    for _ in range(runs):
        for name, (peer, commands) in peers.items():
            if "throughput" in what:
                seconds = float(str(run(commands, "bytes", peer.bytes)["seconds"]))
                rates[name].append(peer.bytes * 8 / seconds / 1e9)
            if "latency" in what:
                result = run(commands, "requests", peer.requests)["times"]
                assert isinstance(result, list)
                # The first ones warm up caches and windows.
                times[name] += result[100:]
    for name in peers:
        if rates[name]:
            numbers[name]["gbit"] = statistics.median(rates[name])
        if times[name]:
            numbers[name]["median_us"] = statistics.median(times[name]) * 1e6
            numbers[name]["p99_us"] = statistics.quantiles(times[name], n=100)[98] * 1e6
    if "memory" in what:
        for name, (peer, commands) in peers.items():
            if peer.can_idle:
                numbers[name]["idle_kib"] = idle_memory(commands)
    return numbers


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("what", nargs="*", default=["throughput", "latency", "memory"])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--peers", help="names to measure, separated by commas; all by default")
    options = parser.parse_args()
    console = Console(width=110)
    console.print(machine())
    ready: dict[str, tuple[Peer, Commands]] = {}
    for peer in PEERS:
        if options.peers and not any(peer.name.startswith(name) for name in options.peers.split(",")):
            continue
        try:
            ready[peer.name] = (peer, peer.prepare())
        except NotMeasuredError as error:
            console.print(f"{peer.name} is not measured: it {error}")
    numbers = measure(ready, options.runs, options.what)
    console.print(_table(numbers, options.runs))
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "last.json").write_text(json.dumps({"machine": machine(), "numbers": numbers}, indent=2))
    return 0


def _table(numbers: dict[str, dict[str, float]], runs: int) -> Table:
    table = Table(title=f"loopback, server and client each a process, medians of {runs} runs")
    for column in ("peer", "Gbit/s", "quice is", "goal", "request µs", "99 %", "KiB/idle conn."):
        table.add_column(column, justify="left" if column == "peer" else "right")
    ours = numbers.get("quice", {}).get("gbit")
    for name, values in numbers.items():
        rate = values.get("gbit")
        ratio = f"{ours / rate:.2f}x" if ours and rate and name != "quice" else ""
        goal = f"{GOALS[name]:g}x" if name in GOALS else ""
        cells = [values.get(key) for key in ("median_us", "p99_us", "idle_kib")]
        table.add_row(
            name,
            f"{rate:.2f}" if rate else "",
            ratio,
            goal,
            *(f"{cell:.0f}" if cell is not None else "" for cell in cells),
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
