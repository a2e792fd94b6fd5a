"""What happens in every scenario: a server, two peers, a connection, a question and its answer; and what must hold."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

from quice import Connection, Endpoint, Error
from quice.ice import PairReport, PairState, Report
from quice.server import Server
from quice.server.relay import NO_RELAY
from quice.signal.messages import Establish
from quice.sim.host import Host
from quice.sim.packet import Fate, Passage, Protocol
from quice.sim.simulation import Simulation
from quice.wire import Address

ALPN = "scenario/1"
_TIMEOUT = 30.0
_SETTLE = 45.0
"""Seconds in which both agents must have agreed on a pair once they are connected: what one nomination may take, as
often as it is lost (RFC 8489 §6.2.1: 39.5 s)."""
_QUIET = 75.0
"""Seconds after the end in which the last TCP connection has given up."""
MIN_TA = 0.005
"""RFC 8445 §14.2."""


class BrokenError(AssertionError):
    """Something did not hold; the text says what."""


@dataclass
class Outcome:
    """How a session went. `connect_seconds` is None, and `reason` says why, when no connection came about."""

    connect_seconds: float | None = None
    reason: str = ""
    reports: tuple[Report, ...] = ()
    """Of the peer that connects and, if it connected, of the other."""
    alive: list[weakref.ref[object]] = field(default_factory=list)
    """What must be gone in the end."""


class Wire:
    """Watches all packets, to say afterwards who reached whom and how fast who sent."""

    def __init__(self) -> None:
        self._sent: dict[tuple[str, int], tuple[Address, Address]] = {}
        self.arrivals: dict[tuple[str, Address, Address], tuple[str, Address, Address]] = {}
        """What was sent, as (host, source, destination), and how it last arrived, likewise."""
        self.checks: dict[str, list[float]] = {}
        """When each host sent connectivity checks."""

    def __call__(self, passage: Passage) -> None:
        packet = passage.packet
        if packet.protocol is not Protocol.UDP:
            return
        key = packet.sender, packet.number
        if passage.fate is Fate.SENT:
            self._sent[key] = packet.source, packet.destination
            if _is_check(packet.data):
                self.checks.setdefault(packet.sender, []).append(passage.time)
        elif passage.fate is Fate.DELIVERED and key in self._sent:
            source, destination = self._sent[key]
            self.arrivals[packet.sender, source, destination] = passage.place, packet.destination, packet.source


async def connect(
    server: Host,
    one: Host,
    two: Host,
    *,
    pause: float,
    establish: Establish,
    question: bytes,
    agreed: Callable[[Outcome], None],
    relax: Callable[[], None],
) -> Outcome:
    """Two peers bind, and after `pause` seconds one connects to the other and asks.

    establish: which of them makes the connection. agreed: raises `BrokenError` as long as they have not selected one
    pair. relax: called once the outcome is there, to let the weather clear up before the goodbyes.
    """
    outcome = Outcome()
    async with contextlib.AsyncExitStack() as stack:
        with server:
            service = await stack.enter_async_context(Server(relay=NO_RELAY))
        with two:
            far = await stack.enter_async_context(Endpoint.bind(server=service.url, alpns=[ALPN]))
            outcome.alive.append(weakref.ref(far))
            answering = asyncio.create_task(_answer(far))
        stack.push_async_callback(_cancel, answering)
        with one:
            near = await stack.enter_async_context(Endpoint.bind(server=service.url, alpns=[ALPN]))
            outcome.alive.append(weakref.ref(near))
            await asyncio.sleep(pause)
            try:
                connection = await near.connect(far.peer, alpn=ALPN, timeout=_TIMEOUT, establish=establish.value)
            except Error as error:
                outcome.reason = str(error)
            else:
                outcome.connect_seconds = connection.connect_seconds
                await _ask(connection, question)
                accepted = await answering
                outcome.alive += [weakref.ref(connection), weakref.ref(accepted)]
                outcome.reports = await _settled(agreed, connection, accepted)
                await _nothing_else(far)
            await _nothing_else(near)
        relax()
    return outcome


async def _answer(endpoint: Endpoint) -> Connection:
    connection = await endpoint.accept()
    stream = await connection.accept_stream()
    while data := await stream.read():
        await stream.write(data)
    stream.finish()
    return connection


async def _nothing_else(endpoint: Endpoint) -> None:
    """There is no connection to accept that nobody wanted."""
    with contextlib.suppress(asyncio.TimeoutError):
        surplus = await asyncio.wait_for(endpoint.accept(), 1)
        raise BrokenError(f"a second connection came about: {surplus}")


async def _settled(agreed: Callable[[Outcome], None], *connections: Connection) -> tuple[Report, ...]:
    """The reports of both sides, once they agree, or it has taken too long."""
    for _ in range(int(_SETTLE)):
        await asyncio.sleep(1)
        reports = tuple(each.report for each in connections if each.report is not None)
        with contextlib.suppress(BrokenError):
            agreed(Outcome(connect_seconds=0.0, reports=reports))
            break
    return reports


async def _ask(connection: Connection, question: bytes) -> None:
    stream = await connection.open_stream()
    await stream.write(question)
    stream.finish()
    if await stream.readexactly(len(question)) != question:
        raise BrokenError("the answer is not what was asked")


async def _cancel(task: asyncio.Task[Connection]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def check_agreement(outcome: Outcome, wire: Wire, names: tuple[str, str]) -> None:
    """Both agents have selected, and what one sends on its pair arrives at the other as of its pair."""
    if outcome.connect_seconds is None:
        if not outcome.reason:
            raise BrokenError("it failed without a reason")
        return
    if len(outcome.reports) != 2:
        raise BrokenError("a connected side has no report")
    here, there = outcome.reports
    for report, name in zip(outcome.reports, names, strict=True):
        nominated = [pair for pair in report.pairs if pair.nominated]
        if len(nominated) != 1 or report.selected is None:
            raise BrokenError(f"{name} has {len(nominated)} nominated pairs, and selected {report.selected}")
        if report.selected.state is not PairState.SUCCEEDED:
            raise BrokenError(f"{name} has selected a pair that is {report.selected.state.value}")
    assert here.selected is not None
    assert there.selected is not None
    sent = names[0], _base(here.selected), here.selected.remote.address
    arrived = wire.arrivals.get(sent)
    if arrived != (names[1], _base(there.selected), there.selected.remote.address):
        raise BrokenError(f"the selected pairs are not one: {sent} arrives as {arrived}, not as {there.selected}")


def check_pacing(wire: Wire) -> None:
    """No host has sent checks faster than the RFC lets it."""
    for name, times in wire.checks.items():
        for before, after in itertools.pairwise(times):
            if after - before < MIN_TA - 1e-9:
                raise BrokenError(f"{name} sent two checks {after - before:.6f} s apart")


def check_left_overs(simulation: Simulation, outcome: Outcome) -> None:
    """Nothing is scheduled any more, and no endpoint or connection is in memory."""
    simulation.run(asyncio.sleep(_QUIET))
    timers = [timer for timer in simulation.loop._scheduled if not timer.cancelled()]
    if timers:
        raise BrokenError(f"timers are left: {timers[:3]}")
    gc.collect()
    left = [each() for each in outcome.alive if each() is not None]
    if left:
        raise BrokenError(f"left in memory: {left}")


def _base(pair: PairReport) -> Address:
    return pair.local.base or pair.local.address


def _is_check(data: bytes) -> bool:
    """Whether a datagram is a Binding request with a username: a check, no question to a server (RFC 8445 §7.2.2)."""
    return data[:2] == b"\x00\x01" and b"\x00\x06" in data[20:24]
