"""The connection of a process whose event loop stands still lives on, and acknowledges."""

from __future__ import annotations

import select
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from quice import TransportConfig, _native
from quice._native import Event
from tests.engine.pair import ALPN, SERVER_SEED, public_key
from tests.engine.test_lifetime import bound

# The guardian gives the loop 10 ms, and an acknowledgement may be delayed by 25 ms (RFC 9000 §18.2).
LONGEST_GAP = 0.05
# A turn of our own loop waits a millisecond for the socket.
LONGEST_TURN = 0.005

# Serves one connection, and says so; then computes for as long as it is told, holding the interpreter.
CHILD = """
import select, sys, time
from quice import TransportConfig
from quice._native import Event
from tests.engine.test_lifetime import bound

busy, idle_timeout, hold = float(sys.argv[1]), float(sys.argv[2]), sys.argv[3] == "hold"
engine, descriptor, address = bound(serves=True, config=TransportConfig(idle_timeout=idle_timeout))
print(address[1], flush=True)
seen = []
def pump():
    seen.extend(engine.pump(hold=hold)[0])
    select.select([descriptor, engine.news_fd], [], [], 0.001)
while not any(isinstance(event, Event.Opened) for event in seen):
    pump()
print("busy", flush=True)
until = time.monotonic() + busy
while time.monotonic() < until:
    pass
(opened,) = (event for event in seen if isinstance(event, Event.Opened))
connection = engine.connection(opened.connection)
content = b""
while not content.endswith(b"end"):
    pump()
    content += connection.read(opened.stream, 1 << 20) or b""
print(len(content), flush=True)
connection.close(0, b"")
pump()
"""


@pytest.fixture
def child(busy: float, idle_timeout: float, hold: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", CHILD, str(busy), str(idle_timeout), hold]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("hold", ["", "hold"], ids=["sends-at-once", "holds-for-the-answer"])
@pytest.mark.parametrize(("busy", "idle_timeout"), [(1.5, 0.5), pytest.param(5.0, 3.0, marks=pytest.mark.slow)])
def test_a_peer_that_computes_longer_than_the_idle_timeout_goes_on_acknowledging(
    child: subprocess.Popen[str], busy: float, idle_timeout: float
) -> None:
    assert child.stdout is not None
    said = child.stdout
    engine, descriptor, _ = bound(serves=False, config=TransportConfig(idle_timeout=idle_timeout))
    events: list[_native.Event] = []

    def pump() -> None:
        events.extend(engine.pump()[0])
        assert not any(isinstance(event, Event.Lost) for event in events)
        select.select([descriptor, engine.news_fd], [], [], 0.001)

    def answer() -> str:
        while not select.select([said], [], [], 0)[0]:
            pump()
        return said.readline().strip()

    port = int(answer())
    connection = engine.connect(("127.0.0.1", port), [ALPN], peer=public_key(SERVER_SEED))
    while not any(isinstance(event, Event.Connected) for event in events):
        pump()
    stream = connection.open(unidirectional=True)
    assert stream is not None
    sent = connection.write(stream, b"begin", 0)
    assert answer() == "busy"

    # A little every few milliseconds, so that there is always something to acknowledge.
    start = last = before = time.monotonic()
    acknowledged = connection.stats()["acks_received"]
    gaps = []
    # Time in which this process did not run itself, and can't tell when an acknowledgement came.
    absent = 0.0
    while (now := time.monotonic()) < start + busy * 0.9:
        absent += max(0.0, now - before - LONGEST_TURN)
        before = now
        sent += connection.write(stream, bytes(100), 0)
        pump()
        if (count := connection.stats()["acks_received"]) > acknowledged:
            acknowledged = count
            gaps.append(now - last - absent)
            last, absent = now, 0.0
    gaps.append(now - last - absent)
    assert max(gaps) <= LONGEST_GAP

    sent += connection.write(stream, b"end", 0)
    assert int(answer()) == sent
