"""A server that has no descriptor left goes on with what it has, and takes up again what waits."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from interop.relays import free_port
from quice.stun.message import Kind, Message, Method

DESCRIPTORS = 80
REQUEST = Message(Method.BINDING, Kind.REQUEST, bytes(12)).encode()
LIMITED = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({DESCRIPTORS}, {DESCRIPTORS}))
from quice.cli import main
main()
"""


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def limited(port: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", LIMITED, "serve", "--host", "127.0.0.1", "--port", "0", "--stun-port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        yield process
        process.kill()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="CPU time is read from /proc")
def test_connections_wait_without_costing_time_and_are_taken_when_others_have_gone(
    limited: subprocess.Popen[str], port: int
) -> None:
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(64)]
    while len(os.listdir(f"/proc/{limited.pid}/fd")) < DESCRIPTORS - 2:
        time.sleep(0.01)
    before = _cpu_seconds(limited.pid)
    time.sleep(1)
    assert _cpu_seconds(limited.pid) - before < 0.3
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.settimeout(10)
        udp.sendto(REQUEST, ("127.0.0.1", port))
        assert len(udp.recv(100)) == len(REQUEST) + 12
    for connection in connections[:40]:
        connection.close()
    last = connections[-1]
    last.settimeout(20)
    last.send(REQUEST)
    assert len(last.recv(100)) == len(REQUEST) + 12
    for connection in connections[40:]:
        connection.close()


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
