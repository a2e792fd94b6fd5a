"""Engines and connections dropped in any order, in any state: no thread, no descriptor and no wait remains."""

from __future__ import annotations

import gc
import itertools
import os
import select
import subprocess
import sys
import threading
import time

import pytest

from quice import TransportConfig, _native
from quice._native import Event
from tests.engine.pair import ALPN, CLIENT_SEED, SERVER_SEED, Pair, public_key

LOOPBACK = "127.0.0.1"
# The guardian ends within its grace time of 10 ms; a loaded machine may take longer to let it run.
PATIENCE = 5.0


def resources() -> tuple[int, int]:
    """How many descriptors and threads this process has."""
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


def settled(before: tuple[int, int]) -> bool:
    """Whether the process has gone back to these resources, or does so soon."""
    gc.collect()
    deadline = time.monotonic() + PATIENCE
    while any(now > then for now, then in zip(resources(), before, strict=True)):
        if time.monotonic() > deadline:
            return False
        select.select([], [], [], 0.005)
    return True


def bound(*, serves: bool, config: TransportConfig | None = None) -> tuple[_native.Engine, int, tuple[str, int]]:
    """An engine with a socket on loopback, the socket's descriptor and its address."""
    seed = SERVER_SEED if serves else CLIENT_SEED
    credentials = _native.Credentials.raw_key(seed)
    engine = _native.Engine(credentials, [ALPN] if serves else [], config or TransportConfig(), sockets=True)
    descriptor, address = engine.bind(LOOPBACK, 0)
    return engine, descriptor, address


def connected(
    config: TransportConfig | None = None,
) -> tuple[_native.Engine, _native.Engine, _native.Connection, _native.Connection]:
    """Two engines on loopback and a connection between them, as each side sees it."""
    server, server_socket, address = bound(serves=True, config=config)
    client, client_socket, _ = bound(serves=False, config=config)
    near = client.connect(address, [ALPN], peer=public_key(SERVER_SEED))
    accepted: list[int] = []
    deadline = time.monotonic() + PATIENCE
    while not accepted and time.monotonic() < deadline:
        client.pump()
        events, _, _, _ = server.pump()
        accepted += [event.connection for event in events if isinstance(event, Event.Connected)]
        select.select([server_socket, client_socket], [], [], 0.001)
    return server, client, near, server.connection(accepted[0])


# The first engine of a process may start what stays, as the first import of a module does.
@pytest.fixture(autouse=True)
def warm() -> None:
    engine, _, _ = bound(serves=True)
    before = resources()
    del engine
    assert settled((before[0] - 1, before[1] - 1))


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_dropping_engines_and_connections_in_any_order_leaves_nothing(order: tuple[int, ...]) -> None:
    before = resources()
    held: list[object] = list(connected())
    assert resources() > before
    for index in order:
        held[index] = None
        gc.collect()
    assert settled(before)


def test_dropping_in_the_middle_of_a_transfer_leaves_nothing() -> None:
    before = resources()
    server, client, near, far = connected()
    stream = near.open(unidirectional=True)
    assert stream is not None
    near.write(stream, bytes(8 << 20), 0)
    client.pump()
    # Nobody pumps from here on: what arrives, the guardians bring.
    deadline = time.monotonic() + PATIENCE
    while far.stats()["received_bytes"] < 1 << 20 and time.monotonic() < deadline:
        select.select([], [], [], 0.005)
    assert far.stats()["received_bytes"] >= 1 << 20
    del server, client
    for connection in (near, far):
        connection.close(0, b"")
    del near, far, connection
    assert settled(before)


def test_a_closed_engine_gives_its_port_and_its_thread_back_while_it_is_still_held() -> None:
    server, client, near, _far = connected()
    _, address = server.bind(LOOPBACK, 0)
    before = resources()
    server.close()
    client.close()
    # Two sockets of the server and one of the client, and two guardians with a descriptor each.
    assert settled((before[0] - 5, before[1] - 2))
    again, _, _ = bound(serves=True)
    assert again.bind(*address)[1] == address
    with pytest.raises(OSError, match="not connected"):
        server.bind(LOOPBACK, 0)
    # Every call still answers.
    for engine in (server, client):
        _, _, more, blocked = engine.pump()
        assert (more, blocked) == (False, False)
        engine.send(b"x", ("127.0.0.1", 9))
        engine.close()
        engine.drops()
    assert near.open(unidirectional=True) is not None
    near.close(0, b"")


def test_a_connection_outlives_its_engine_without_effect() -> None:
    server, client, near, far = connected()
    del server, client
    gc.collect()
    for connection in (near, far):
        stream = connection.open(unidirectional=False)
        assert stream is not None
        assert connection.write(stream, b"x", 0) == 1
        assert connection.read(stream, 1) is None
        connection.close(0, b"")


def test_engines_dropped_on_another_thread_leave_nothing() -> None:
    before = resources()
    held: list[object] = list(connected())
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert settled(before)


def test_two_hundred_engines_with_sockets_come_and_go() -> None:
    before = resources()
    for _ in range(10):
        engines = [bound(serves=True)[0] for _ in range(20)]
        assert len(os.listdir("/proc/self/task")) >= before[1] + 20
        del engines
    assert settled(before)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_engines_in_memory_leave_nothing_either(order: tuple[int, ...]) -> None:
    before = resources()
    pair = Pair()
    held: list[object] = [*pair.connected(), pair.client.engine, pair.server.engine]
    # In memory there is nothing to guard.
    assert resources()[1] == before[1]
    del pair
    for index in order:
        held[index] = None
        gc.collect()
    assert settled(before)


def test_connections_that_come_and_go_leave_no_memory() -> None:
    pair = Pair()

    def visit() -> None:
        near, _ = pair.connected()
        stream = near.open(unidirectional=True)
        assert stream is not None
        near.write(stream, bytes(50_000), 0)
        pair.advance(0.1)
        near.close(0, b"")
        pair.drive(lambda: bool(pair.client.seen(Event.Drained) and pair.server.seen(Event.Drained)))
        pair.client.events.clear()
        pair.server.events.clear()

    def resident() -> int:
        with open("/proc/self/statm") as status:
            return int(status.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    for _ in range(200):
        visit()
    before = resident()
    for _ in range(1000):
        visit()
    # What a connection held here was over 50 kB.
    assert resident() - before < 1000 * 5_000


@pytest.mark.parametrize("closing", ["", "server.close(); client.close()", "del near, server"])
def test_a_process_ends_with_engines_in_any_state(closing: str) -> None:
    code = f"""
from tests.engine.test_lifetime import connected
server, client, near, far = connected()
near.write(near.open(unidirectional=True), bytes(1 << 20), 0)
client.pump()
{closing}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
