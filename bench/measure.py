"""One measurement: a server process, a client process, and what the client found."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.peers import NotMeasuredError, Peer, Ready

IDLE_CONNECTIONS = 10_000
# The first requests fill caches and learn the round-trip time; they count for no peer.
_WARM_UP = 100
_PATIENCE = 180.0
# What arrived last is worked off, and freed, by then.
_SETTLE = 1.0


def throughput(peer: Peer, ready: Ready) -> dict[str, float]:
    """Gbit/s of one stream, from its opening to the server's word that all of it is there; and what it costs both
    processes in CPU seconds a GiB, which others on the machine change less."""
    before = _cpu_of_children()
    seconds = _result(ready, "bytes", peer.bytes)["seconds"]
    assert isinstance(seconds, float)
    return {
        "gbit": peer.bytes * 8 / seconds / 1e9,
        "cpu_s": (_cpu_of_children() - before) / (peer.bytes / (1 << 30)),
    }


def latency(peer: Peer, ready: Ready) -> dict[str, float]:
    """Microseconds from opening a stream to the last byte of the answer on it, one request at a time."""
    times = _result(ready, "requests", peer.requests + _WARM_UP)["times"]
    assert isinstance(times, list)
    counted = times[_WARM_UP:]
    return {
        "median_us": statistics.median(counted) * 1e6,
        "p99_us": statistics.quantiles(counted, n=100)[98] * 1e6,
    }


def idle_memory(_peer: Peer, ready: Ready) -> dict[str, float]:
    """KiB that each of many idle connections costs the process that accepted them."""
    with _started(ready.server) as server:
        port = _said(server)["port"]
        before = _resident(server.pid)
        with _started([*ready.client, str(port), "idle", str(IDLE_CONNECTIONS)]) as client:
            _said(client)
            time.sleep(_SETTLE)
            return {"idle_kib": (_resident(server.pid) - before) / IDLE_CONNECTIONS}


def _result(ready: Ready, mode: str, count: int) -> dict[str, object]:
    with _started(ready.server) as server:
        client = [*ready.client, str(_said(server)["port"]), mode, str(count)]
        try:
            done = subprocess.run(client, stdout=subprocess.PIPE, text=True, timeout=_PATIENCE, check=True)
        except subprocess.TimeoutExpired:
            raise NotMeasuredError(f"took longer than {_PATIENCE:.0f} s") from None
        except subprocess.CalledProcessError as error:
            raise NotMeasuredError(f"failed, with exit status {error.returncode}") from None
        result: dict[str, object] = json.loads(done.stdout)
        return result


@contextmanager
def _started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _said(process: subprocess.Popen[str]) -> dict[str, object]:
    """The first line that a process writes, which is JSON."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise NotMeasuredError("ended before it said that it was ready")
    said: dict[str, object] = json.loads(line)
    return said


def _cpu_of_children() -> float:
    """CPU seconds of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise NotMeasuredError("has no resident memory in /proc")
