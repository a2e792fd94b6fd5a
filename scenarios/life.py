"""The life of a connection, drawn by its seed: two peers on networks that change, servers that come and go, and a
stream each way on which nothing may be missing, or late.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from quice import Connection, Endpoint, Error, PathKind, Stream, TransportConfig
from quice.server import Server
from quice.server.relay import RelaySettings
from quice.sim.firewall import FirewallBehaviour
from quice.sim.host import Host
from quice.sim.kinds import Nat, behaviour
from quice.sim.link import Conditions
from quice.sim.simulation import Simulation
from quice.sim.site import Site
from scenarios.faults import Barrier
from scenarios.random_session import Place, can_reach
from scenarios.story import BrokenError

ALPN = "life/1"
NEAR = Conditions(delay=0.025)
FAR = Conditions(delay=0.045)
ELSEWHERE = 1.0
"""The longest pause, in seconds, where another path is there that has been validated."""
MOVED = 3.0
"""The same where the network is another one."""
DIRECT_WITHIN = 10.0
"""Seconds after which data goes the direct way again, where there is one."""
_TICK = 0.05
_SLEEP = 60.0
_CHAPTERS = 4
_FLOWING = 0.5
"""Seconds within which something came, where data flows."""
_IDLE_TIMEOUT = 120.0
_CONNECT_TIMEOUT = 30.0
_DRAIN = 30.0
_NAMES = ("near", "far")
_MEETING, _RELAYING = "meeting", "relaying"
_SECRET = "of both servers"
_WIFI, _LTE = "eth0", "wwan0"
_FIREWALL = FirewallBehaviour()


@dataclass(frozen=True)
class Life:
    """What happens to one connection."""

    seed: int
    homes: tuple[Place, Place]
    """Where the two are at first."""
    mobile: tuple[Place, Place]
    apart: bool
    """Whether the relay is at another host than the rendezvous server."""
    chapters: tuple[str, ...]

    @property
    def told(self) -> list[str]:
        """Where the two are, and what is to happen."""
        lines = [
            f"{name} at {kind}: {place}"
            for kind, places in (("home", self.homes), ("mobile", self.mobile))
            for name, place in zip(_NAMES, places, strict=True)
        ]
        servers = "relay and rendezvous apart" if self.apart else "one server"
        return [*lines, f"{servers}; {', '.join(self.chapters)}"]


@dataclass(frozen=True)
class Record:
    """What one happening did to the stream; times in seconds."""

    name: str
    pause: float
    """The longest, at either end."""
    limit: float
    direct_after: float | None
    """None where data need not, or does not, go the direct way."""
    broken: str = ""

    def __str__(self) -> str:
        direct = "" if self.direct_after is None else f", direct after {self.direct_after:.2f} s"
        flag = f"  BROKEN: {self.broken}" if self.broken else ""
        return f"{self.name}: a pause of {self.pause:.2f} s of at most {self.limit:g} s{direct}{flag}"


@dataclass(frozen=True)
class Outcome:
    """What became of one life. `broken`: what did not hold."""

    seed: int
    records: tuple[Record, ...]
    broken: str = ""


class Ticker:
    """Sends a number each 50 ms both ways on one stream, and checks that none is missing, and none comes twice."""

    def __init__(self, near: Connection, far: Connection, hosts: Sequence[Host]) -> None:
        """`hosts`: where the two are."""
        self._loop = asyncio.get_running_loop()
        self._heard = [self._loop.time()] * 2
        self._since = self._loop.time()
        self._longest = 0.0
        self._ended = False
        self._tasks = []
        for side, (host, make) in enumerate(zip(hosts, (near.open_stream, far.accept_stream), strict=True)):
            with host:
                self._tasks.append(asyncio.create_task(self._run(side, make())))

    def begin(self, since: float) -> None:
        """Count pauses from this time on."""
        self._since, self._longest = since, 0.0

    def longest(self) -> float:
        """The longest time without a number, at either end. Raises `BrokenError` if reading or writing has failed."""
        for task in self._tasks:
            if task.done() and (error := task.exception()) is not None:
                raise BrokenError(f"the stream has failed: {error}") from error
        return max(self._longest, *(self._loop.time() - max(self._since, heard) for heard in self._heard))

    @property
    def is_flowing(self) -> bool:
        """Whether something has just come, at both ends."""
        return all(self._loop.time() - heard < _FLOWING for heard in self._heard)

    async def finish(self) -> None:
        """Have all that was sent received."""
        self._ended = True
        ends = await asyncio.wait_for(asyncio.gather(*self._tasks), _DRAIN)
        (near_sent, near_received), (far_sent, far_received) = ends
        if (near_sent, far_sent) != (far_received, near_received):
            raise BrokenError(f"of {near_sent} and {far_sent} numbers, {far_received} and {near_received} arrived")

    async def close(self) -> None:
        """Send and receive no more."""
        await _cancel(self._tasks)

    async def _run(self, side: int, opening: Awaitable[Stream]) -> tuple[int, int]:
        stream = await opening
        both = [asyncio.create_task(work) for work in (self._send(stream), self._receive(side, stream))]
        try:
            sent, received = await asyncio.gather(*both)
        finally:
            await _cancel(both)
        return sent, received

    async def _send(self, stream: Stream) -> int:
        for number in itertools.count():
            if self._ended:
                stream.finish()
                return number
            await stream.write(number.to_bytes(4, "big"))
            await asyncio.sleep(_TICK)
        raise AssertionError

    async def _receive(self, side: int, stream: Stream) -> int:
        number = 0
        while data := await stream.read(4):
            data += await stream.readexactly(4 - len(data)) if len(data) < 4 else b""
            if int.from_bytes(data, "big") != number:
                raise BrokenError(f"after {number - 1} came {int.from_bytes(data, 'big')}")
            number += 1
            now = self._loop.time()
            self._longest = max(self._longest, now - max(self._since, self._heard[side]))
            self._heard[side] = now
        return number


class Peer:
    """One of the two, the networks that it may be on, and the one that it is on."""

    def __init__(self, simulation: Simulation, name: str, other: str, home: Place, mobile: Place) -> None:
        modern = Place(None, None, True, NEAR, ipv4=False)
        self.networks = {"home": home, "mobile": mobile, "modern": modern}
        self.sites = {kind: _site(simulation, f"{name}'s {kind}", place) for kind, place in self.networks.items()}
        self.barriers = []
        for site in self.sites.values():
            self.barriers.append(Barrier(other))
            site.router.boxes.append(self.barriers[-1])
        self.at = "home"
        self.host = self.sites["home"].host(name, interface=_WIFI)

    @property
    def place(self) -> Place:
        """Where it is."""
        return self.networks[self.at]

    @property
    def site(self) -> Site:
        """Likewise."""
        return self.sites[self.at]

    def move(self, kind: str) -> None:
        """Be on another network, and on no other from now on."""
        self.host.move(self.sites[kind], _WIFI)
        self.at = kind

    def shut_out(self, shut: bool) -> None:
        """Let nothing in that the other sends straight here."""
        for barrier in self.barriers:
            barrier.shut = shut


class Machine:
    """A host with a server on it, which is killed and started again."""

    def __init__(self, host: Host, settings: RelaySettings) -> None:
        self.host = host
        self._settings = settings
        self._server: Server | None = None

    @property
    def is_up(self) -> bool:
        """Whether it runs."""
        return self._server is not None

    async def start(self) -> None:
        """Start it, on the same ports each time."""
        for interface in self.host.interfaces.values():
            interface.link.mend()
        with self.host:
            self._server = await Server(relay=self._settings).__aenter__()

    async def kill(self, silently: bool) -> None:
        """End it. silently: with the host, so that nobody is told."""
        server, self._server = self._server, None
        if server is None:
            return
        if silently:
            for interface in self.host.interfaces.values():
                interface.link.cut()
        with self.host:
            await server.__aexit__(None, None, None)


class Play:
    """A life that takes place."""

    def __init__(self, simulation: Simulation, life: Life) -> None:
        self.life = life
        self.dice = random.Random(f"{life.seed}/play")
        self.records: list[Record] = []
        world = simulation.world
        self.near, self.far = self.peers = tuple(
            Peer(simulation, name, other, home, mobile)
            for name, other, home, mobile in zip(_NAMES, _NAMES[::-1], life.homes, life.mobile, strict=True)
        )
        meeting = world.host(_MEETING, ipv6=1)
        if life.apart:
            urls = tuple(f"turn:{_RELAYING}:3478?transport={transport}" for transport in ("udp", "tcp"))
            self.meeting = Machine(meeting, RelaySettings(urls=urls, secret=_SECRET))
            self.relaying = Machine(world.host(_RELAYING, ipv6=1), RelaySettings(secret=_SECRET, rate=None))
        else:
            self.meeting = self.relaying = Machine(meeting, RelaySettings(rate=None))
        self._loop = simulation.loop
        self._heard: list[dict[int, int]] = [{}, {}]
        """What each has received on paths in reserve by the end of the last happening."""

    async def run(self) -> None:
        """From the beginning to the end. Raises `BrokenError` for what is missing, and what reading fails with."""
        config = TransportConfig(idle_timeout=_IDLE_TIMEOUT)
        url = f"ws://{_MEETING}:4780"
        async with contextlib.AsyncExitStack() as stack:
            for machine in {self.relaying: None, self.meeting: None}:
                await machine.start()
                stack.push_async_callback(machine.kill, silently=False)
            with self.far.host:
                far = await stack.enter_async_context(Endpoint.bind(server=url, alpns=[ALPN], config=config))
            with self.near.host:
                near = await stack.enter_async_context(Endpoint.bind(server=url, config=config))
                await asyncio.sleep(self.dice.uniform(0.0, 2.0))
                began = self._loop.time()
                one = await near.connect(far.peer, alpn=ALPN, timeout=_CONNECT_TIMEOUT)
            with self.far.host:
                other = await far.accept()
            self.ends = one, other
            self.ticker = Ticker(one, other, [peer.host for peer in self.peers])
            stack.push_async_callback(self.ticker.close)
            await self._settle("connected", began, MOVED, began)
            for chapter in self.life.chapters:
                await CHAPTERS[chapter](self)
            await self.ticker.finish()

    @property
    def is_direct(self) -> bool:
        """Whether both send over a path without a relay."""
        paths = [end.path for end in self.ends]
        return all(path is not None and path.kind is not PathKind.RELAY for path in paths)

    @property
    def has_reserve(self) -> bool:
        """Whether both have a path through a relay, on which something has come since anything happened: what has died
        since then with its relay, or the NAT before it, neither can know before it is asked for."""
        return all(
            any(key not in known or known[key] < heard for key, heard in _reserves(end).items())
            for end, known in zip(self.ends, self._heard, strict=True)
        )

    @property
    def can_be_direct(self) -> bool:
        """Whether the networks let the two reach each other."""
        return can_reach(self.near.place, self.far.place)

    async def happen(self, name: str, limit: float, act: Callable[[], object], *, parted: bool = False) -> None:
        """Let something happen, and wait until things have settled. parted: whether no direct way is left."""
        began = self._loop.time()
        self.ticker.begin(began)
        result = act()
        if isinstance(result, Awaitable):
            began = await result or began
        self._heard = [_reserves(end) for end in self.ends]
        await self._settle(name, began, limit, began, parted=parted)

    async def _settle(self, name: str, since: float, limit: float, began: float, *, parted: bool = False) -> None:
        self.ticker.begin(since)
        direct_after: float | None = None
        wants_direct = self.can_be_direct and not parted
        rest = since + self.dice.uniform(1.0, 4.0)
        broken: list[str] = []
        while True:
            await asyncio.sleep(_TICK)
            now = self._loop.time()
            is_direct, is_flowing = self.is_direct and self.ticker.is_flowing, self.ticker.is_flowing
            direct_after = (direct_after or now - began) if is_direct else None
            arrived = is_direct if wants_direct else is_flowing and (not parted or not self.is_direct)
            if arrived and now >= rest:
                break
            if now >= since + DIRECT_WITHIN:
                if not is_flowing:
                    broken.append("nothing flows")
                elif wants_direct:
                    broken.append("not direct")
                elif parted:
                    broken.append("data still goes the direct way")
                break
        try:
            pause = self.ticker.longest()
        except BrokenError as error:
            raise BrokenError(f"{name} at {began:.3f} s: {error}") from error
        if pause > limit:
            broken.append(f"a pause of {pause:.3f} s")
        problem = f"{name} at {began:.3f} s: {', '.join(broken)}" if broken else ""
        self.records.append(Record(name, pause, limit, direct_after if wants_direct else None, problem))
        if not self.ticker.is_flowing:
            await self._wait_for_flow(name)

    async def _wait_for_flow(self, name: str) -> None:
        for _ in range(int(_IDLE_TIMEOUT)):
            await asyncio.sleep(1)
            try:
                self.ticker.longest()
            except BrokenError as error:
                raise BrokenError(f"{name}: {error}") from error
            if self.ticker.is_flowing:
                return
        raise BrokenError(f"{name}: nothing has come for {_IDLE_TIMEOUT:.0f} s")


async def _part(play: Play) -> None:
    """The direct path is cut, and nobody is told: both ways, or one."""
    who = play.dice.choice([play.peers, play.peers, play.peers[:1], play.peers[1:]])

    def shut(shut: bool) -> None:
        for peer in who:
            peer.shut_out(shut)

    limit = ELSEWHERE if play.is_direct and play.has_reserve else MOVED
    ways = "both ways" if len(who) == 2 else "one way"
    await play.happen(f"direct path cut {ways}", limit, lambda: shut(True), parted=True)
    await play.happen("direct path restored", ELSEWHERE, lambda: shut(False))


async def _rebind(play: Play) -> None:
    """A NAT forgets, of one or of both."""
    who = play.dice.choice([play.peers[:1], play.peers[1:], play.peers])
    name, how = play.dice.choice(
        [("new port", Site.rebind), ("new address", Site.renumber), ("NAT reboots", Site.reboot)]
    )

    def act() -> None:
        for peer in who:
            how(peer.site)

    await play.happen(f"{name} {_of(who)}", MOVED, act)


async def _uplink(play: Play) -> None:
    """Wi-Fi is left for LTE, and taken again; at once, with a gap, or with both for a while."""
    peer = play.dice.choice(play.peers)
    overlap = play.dice.choice([None, 0.0, 0.5, 2.0])

    async def to(kind: str, left: str, taken: str) -> float:
        host = peer.host
        metric = 10 if taken is _LTE else 0
        if overlap is None:
            host.unplug(left)
            await asyncio.sleep(gap)
        began = asyncio.get_running_loop().time()
        peer.sites[kind].join(host, taken, metric=metric)
        if overlap is not None:
            await asyncio.sleep(overlap)
            began = asyncio.get_running_loop().time()
            host.unplug(left)
        peer.at = kind
        return began

    gap = play.dice.uniform(0.0, 1.5)
    suffix = "with a gap" if overlap is None else "at once" if overlap == 0 else "make before break"
    await play.happen(f"Wi-Fi to LTE {suffix}", MOVED, lambda: to("mobile", _WIFI, _LTE))
    await play.happen(f"LTE to Wi-Fi {suffix}", MOVED, lambda: to("home", _LTE, _WIFI))


async def _ipv6(play: Play) -> None:
    """From IPv4, or both, to IPv6 alone."""
    peer = play.dice.choice(play.peers)
    await play.happen("IPv4 to IPv6", MOVED, lambda: peer.move("modern"))
    await play.happen("IPv6 to IPv4", MOVED, lambda: peer.move("home"))


async def _server(play: Play, machine: Machine, name: str) -> None:
    silently = play.dice.random() < 0.5
    manner = "lost" if silently else "killed"
    down = play.dice.uniform(0.5, 6.0)
    if machine is play.relaying and not play.is_direct:
        # It is the only way: what counts is how soon it is found again.
        async def restart() -> float:
            await machine.kill(silently)
            await asyncio.sleep(down)
            began = asyncio.get_running_loop().time()
            await machine.start()
            return began

        await play.happen(f"{name} {manner} and started again, with no other way", DIRECT_WITHIN, restart)
        return
    await play.happen(f"{name} {manner}", ELSEWHERE, lambda: machine.kill(silently))
    await asyncio.sleep(down)
    await play.happen(f"{name} started again", ELSEWHERE, machine.start)


async def _relay(play: Play) -> None:
    await _server(play, play.relaying, "relay" if play.life.apart else "server")


async def _rendezvous(play: Play) -> None:
    await _server(play, play.meeting, "rendezvous" if play.life.apart else "server")


async def _both(play: Play) -> None:
    """Both move at once, and back."""

    def move(kind: str) -> None:
        for peer in play.peers:
            peer.move(kind)

    await play.happen("both move", MOVED, lambda: move("mobile"))
    await play.happen("both move back", MOVED, lambda: move("home"))


async def _asleep(play: Play) -> None:
    """A host sleeps for a minute."""
    peer = play.dice.choice(play.peers)

    async def nap() -> float:
        peer.host.sleep()
        await asyncio.sleep(_SLEEP)
        peer.host.wake()
        return asyncio.get_running_loop().time()

    await play.happen(f"asleep for {_SLEEP:.0f} s", MOVED, nap)


CHAPTERS: dict[str, Callable[[Play], Awaitable[None]]] = {
    "cut": _part,
    "rebind": _rebind,
    "uplink": _uplink,
    "ipv6": _ipv6,
    "relay": _relay,
    "rendezvous": _rendezvous,
    "both": _both,
    "asleep": _asleep,
}
"""What can happen; each leaves everything as it was."""


def draw(seed: int, chapters: int = _CHAPTERS) -> Life:
    """The life of this number, in which so much happens."""
    dice = random.Random(f"{seed}/life")
    homes = _home(dice), _home(dice)
    mobile = _mobile(dice), _mobile(dice)
    apart = dice.random() < 0.5
    return Life(seed, homes, mobile, apart, tuple(dice.sample(list(CHAPTERS), chapters)))


def run(life: Life) -> Outcome:
    """Let it take place."""
    with Simulation(life.seed) as simulation:
        play = Play(simulation, life)
        broken: list[str] = []
        try:
            simulation.run(play.run())
        except (BrokenError, Error) as error:
            broken.append(str(error))
    records = tuple(play.records)
    return Outcome(life.seed, records, "; ".join([*(record.broken for record in records if record.broken), *broken]))


_LINE = "{:56} {:>6} {:>6} {:>6} {:>6} {:>6}  {:>7} {:>6} {:>6}"


def table(records: Iterable[Record]) -> str:
    """What each thing that happens costs: pauses, and times until data goes the direct way, in milliseconds."""
    by_name: dict[str, list[Record]] = {}
    for record in records:
        by_name.setdefault(record.name, []).append(record)
    lines = [_LINE.format("", "times", "p50", "p99", "max", "limit", "direct:", "p50", "max")]
    for name, each in sorted(by_name.items()):
        pauses = [record.pause for record in each]
        direct = [record.direct_after for record in each if record.direct_after is not None]
        numbers = [_milliseconds(pauses, share) for share in (0.5, 0.99, 1.0)]
        limit = f"{1000 * max(record.limit for record in each):.0f}"
        after = [_milliseconds(direct, share) for share in (0.5, 1.0)] if direct else ["", ""]
        lines.append(_LINE.format(name, len(each), *numbers, limit, len(direct), *after).rstrip())
    return "\n".join(lines)


def _milliseconds(times: Sequence[float], share: float) -> str:
    return f"{1000 * sorted(times)[max(0, math.ceil(share * len(times)) - 1)]:.0f}"


def _home(dice: random.Random) -> Place:
    nat = behaviour(dice.choice(list(Nat)))
    carrier = behaviour(dice.choice(list(Nat)[1:])) if nat is not None and dice.random() < 0.2 else None
    return Place(nat, carrier, dice.random() < 0.3, NEAR)


def _mobile(dice: random.Random) -> Place:
    carrier = behaviour(dice.choice(list(Nat)[1:]))
    return Place(behaviour(Nat.PORT_RESTRICTED), carrier, dice.random() < 0.3, FAR)


def _site(simulation: Simulation, name: str, place: Place) -> Site:
    world = simulation.world
    carrier = None
    if place.carrier is not None:
        carrier = world.site(f"carrier of {name}", nat=place.carrier, ipv6=place.ipv6, carrier=True)
    return world.site(
        name,
        nat=place.nat if place.nat is not None else Nat.PUBLIC,
        ipv4=place.ipv4,
        ipv6=place.ipv6,
        firewall=_FIREWALL if place.ipv6 and place.nat is not None else None,
        behind=carrier,
        uplink=place.uplink,
    )


def _reserves(end: Connection) -> dict[int, int]:
    """The validated paths through relays, and how many bytes have come on them."""
    return {path.id: path.received_bytes for path in end.paths if path.kind is PathKind.RELAY and path.validated}


def _of(who: tuple[Peer, ...]) -> str:
    return "of both" if len(who) == 2 else "of one"


async def _cancel(tasks: Iterable[asyncio.Task[object]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
