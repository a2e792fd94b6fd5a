"""The two implementations of the connectivity checks beside each other, in the simulated internet.

Two peers behind NATs, whose hosts have an indirect way too: a VPN, the long way round. With `stun` they meet by the
rendezvous server; with `quic` they connect over the VPN. Both end on the direct path if there can be one.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field

from quice import Checks, Connection, Endpoint
from quice.errors import ConnectError
from quice.server import Server
from quice.server.relay import NO_RELAY
from quice.sim.host import Host
from quice.sim.kinds import Nat
from quice.sim.link import Conditions
from quice.sim.packet import Fate, Packet, Passage, Protocol
from quice.sim.simulation import Simulation
from quice.wire import Address

ALPN = "checks/1"
PEERS = ("alice", "bob")
NEAR = 0.025
"""Seconds, one way, at each site: 100 ms from peer to peer and back."""
LONG_WAY = 0.075
"""Seconds, one way, from each peer to the VPN's hub: 300 ms from peer to peer and back."""
IMPOSSIBLE = Nat.SYMMETRIC, Nat.PORT_RESTRICTED
"""What hole punching can not serve."""
PAIRS = (
    (Nat.PORT_RESTRICTED, Nat.PORT_RESTRICTED),
    (Nat.FULL_CONE, Nat.SYMMETRIC),
    (Nat.SYMMETRIC, Nat.PUBLIC),
    IMPOSSIBLE,
)
"""Who connects, and who is connected to."""
_VPN = "10.8.0."
_COOKIE = bytes.fromhex("2112a442")
_PATIENCE = 20.0
"""Seconds in which a direct path is found or is not there."""
_IDLE = 60.0
"""Seconds for which what is sent is counted."""
_CID = slice(1, 9)
"""Where a short header has the connection id that noq gives out."""


@dataclass
class Count:
    """Packets and bytes with all headers."""

    packets: int = 0
    size: int = 0

    def add(self, packet: Packet) -> None:
        self.packets += 1
        self.size += packet.size

    def __str__(self) -> str:
        return f"{self.packets} / {self.size / 1000:.1f} kB"


@dataclass
class Tally:
    """What the peers send each other, both ways, since `connect` was called."""

    stun: Count = field(default_factory=Count)
    elsewhere: Count = field(default_factory=Count)
    """QUIC that does not go over the VPN."""
    indirect: Count = field(default_factory=Count)
    cids: set[bytes] = field(default_factory=set)
    """Those seen on the VPN, by whoever sees it."""
    linked: int = 0
    """Packets elsewhere with one of them."""

    def __str__(self) -> str:
        return f"{self.stun} | {self.elsewhere} | {self.indirect}"

    def add(self, packet: Packet) -> None:
        if packet.data[4:8] == _COOKIE:
            self.stun.add(packet)
            return
        short = packet.data[0] < 0x80
        if packet.destination.host.startswith(_VPN):
            self.indirect.add(packet)
            if short:
                self.cids.add(packet.data[_CID])
        else:
            self.elsewhere.add(packet)
            self.linked += short and packet.data[_CID] in self.cids


@dataclass
class Trial:
    """How it went. Times are seconds from the call of `connect`, None for never."""

    connected: float | None = None
    direct: float | None = None
    until_direct: Tally = field(default_factory=Tally)
    in_all: Tally = field(default_factory=Tally)
    """In `_IDLE` seconds."""


class Place:
    """The world of one trial."""

    def __init__(self, seed: int, nats: tuple[Nat, Nat], loss: float) -> None:
        self.simulation = Simulation(seed)
        world = self.simulation.world
        server = world.host("server")
        self.server = server
        vpn = world.site("vpn", nat=Nat.PORT_RESTRICTED, lan=f"{_VPN}0/24", udp_ports=())
        self.machines: list[Host] = []
        for name, nat in zip(PEERS, nats, strict=True):
            host = world.site(f"{name}'s", nat=nat, uplink=Conditions(delay=NEAR, loss=loss)).host(name)
            vpn.join(host, "tun0", metric=10, link=Conditions(delay=LONG_WAY, loss=loss))
            self.machines.append(host)
        self._services = {address.host for address in server.addresses()}
        self.tally: Tally | None = None
        world.watch(self._watch)

    def _watch(self, passage: Passage) -> None:
        packet = passage.packet
        between = packet.sender in PEERS and packet.destination.host not in self._services
        if self.tally is not None and passage.fate is Fate.SENT and packet.protocol is Protocol.UDP and between:
            self.tally.add(packet)


@contextlib.contextmanager
def place(seed: int, nats: tuple[Nat, Nat], loss: float) -> Iterator[Place]:
    """A world, closed in the end."""
    there = Place(seed, nats, loss)
    with there.simulation:
        yield there


def run(checks: Checks, seed: int, nats: tuple[Nat, Nat], loss: float) -> Trial:
    """One trial."""
    with place(seed, nats, loss) as there:
        return there.simulation.run(_trial(there, checks, seed))


async def _trial(there: Place, checks: Checks, seed: int) -> Trial:
    trial = Trial()
    one, two = there.machines
    async with contextlib.AsyncExitStack() as stack:
        with there.server:
            service = await stack.enter_async_context(Server(relay=NO_RELAY))
        with two:
            far = await stack.enter_async_context(Endpoint.bind(server=service.url, alpns=[ALPN], checks=checks))
        with one:
            near = await stack.enter_async_context(Endpoint.bind(server=service.url, checks=checks))
            # Timers fall differently in each run.
            await asyncio.sleep(10 + (seed * 0.618) % 1)
            there.tally = tally = Tally()
            loop = asyncio.get_running_loop()
            started = loop.time()
            target = next(each for each in far.addresses if each.host.startswith(_VPN))
            to = {Checks.STUN: None, Checks.QUIC: target}[checks]
            with contextlib.suppress(ConnectError):
                connection = await near.connect(far.peer, alpn=ALPN, address=to)
                trial.connected = loop.time() - started
                trial.direct = await _until_direct(connection, started)
            trial.until_direct = copy.deepcopy(tally)
            await asyncio.sleep(max(0.0, started + _IDLE - loop.time()))
            trial.in_all = tally
    return trial


async def _until_direct(connection: Connection, started: float) -> float | None:
    loop = asyncio.get_running_loop()
    while loop.time() < started + _PATIENCE:
        used = [path.remote for path in connection.paths if path.status == "available"]
        if used and not any(_is_indirect(remote) for remote in used):
            return loop.time() - started
        await asyncio.sleep(0.001)
    return None


def _is_indirect(remote: Address) -> bool:
    return remote.host.startswith(_VPN)


def table(runs: int, loss: float) -> str:
    """Every pair of NATs with both, as a table in Markdown: medians and p95 of times, counts of the median run."""
    lines = [
        "| NATs | checks | data flows, ms | direct, ms (p95) | direct | STUN | QUIC, not over the VPN | over it "
        "| in a minute: STUN | QUIC, not over the VPN | over it |",
        "| --- " * 11 + "|",
    ]
    for nats in PAIRS:
        for checks in Checks:
            trials = [run(checks, seed, nats, loss) for seed in range(1, runs + 1)]
            lines.append(f"| {nats[0].value}, {nats[1].value} | `{checks.value}` | {_row(trials)} |")
    return "\n".join(lines)


def _row(trials: list[Trial]) -> str:
    connected = [1000 * each.connected for each in trials if each.connected is not None]
    direct = sorted((each.direct, number) for number, each in enumerate(trials) if each.direct is not None)
    shown = trials[direct[len(direct) // 2][1]] if direct else trials[0]
    flows = f"{statistics.median(connected):.0f}" if connected else "never"
    times = "never"
    if direct:
        p95 = direct[min(len(direct) - 1, int(0.95 * len(direct)))][0]
        times = f"{1000 * statistics.median(time for time, _ in direct):.0f} ({1000 * p95:.0f})"
    return f"{flows} | {times} | {len(direct)}/{len(trials)} | {shown.until_direct} | {shown.in_all}"
