"""A connection outlives what happens to the networks of its two ends: they negotiate anew, and the stream goes on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from quice import Connection, Endpoint, PathKind, Stream
from quice.server import Server
from quice.sim.kinds import Nat
from quice.sim.link import Conditions
from quice.sim.simulation import Simulation
from quice.sim.site import Site

ALPN = "roaming/1"
SITE = Conditions(delay=0.025)


class Stage:
    """Two peers, each behind a port-restricted NAT, three more networks to go to, and a server."""

    def __init__(self, seed: int = 7) -> None:
        self.simulation = Simulation(seed)
        world = self.simulation.world
        self.server = world.host("server")
        self.cafe, self.office, self.train, self.home, self.garden = (
            world.site(name, nat=Nat.PORT_RESTRICTED, uplink=SITE)
            for name in ("cafe", "office", "train", "home", "garden")
        )
        self.near = self.cafe.host("near")
        self.far = self.home.host("far")

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[tuple[Connection, Connection]]:
        """A connection from near to far, as each side sees it."""
        async with contextlib.AsyncExitStack() as stack:
            with self.server:
                service = await stack.enter_async_context(Server())
            with self.far:
                far = await stack.enter_async_context(Endpoint.bind(server=service.url, alpns=[ALPN]))
            with self.near:
                near = await stack.enter_async_context(Endpoint.bind(server=service.url))
                await asyncio.sleep(1)
                connection = await near.connect(far.peer, alpn=ALPN)
            with self.far:
                yield connection, await far.accept()

    def both_move(self) -> None:
        self.near.move(self.office)
        self.far.move(self.garden)

    def both_move_back(self) -> None:
        self.near.move(self.cafe)
        self.far.move(self.home)

    def play(self, *acts: Callable[[], None], pause: float = 10.0) -> list[float]:
        """Have a numbered stream run both ways while all this happens, each after a while; the longest pauses."""

        async def main() -> list[float]:
            async with self.connected() as (near, far):
                ticker = Ticker(near, far)
                await asyncio.sleep(3)
                pauses = [ticker.longest()]
                for act in acts:
                    act()
                    await asyncio.sleep(pause)
                    pauses.append(ticker.longest())
                    # It is direct again.
                    assert near.path is not None
                    assert near.path.kind is PathKind.DIRECT
                await ticker.stop()
                return pauses

        with self.simulation:
            return self.simulation.run(main())


class Ticker:
    """Sends a number each 50 ms both ways on one stream, and checks that none is missing."""

    def __init__(self, near: Connection, far: Connection) -> None:
        self._loop = asyncio.get_running_loop()
        self._longest = 0.0
        self._ended = False
        self._tasks = [asyncio.create_task(work) for work in (self._begin(near), self._answer(far))]

    def longest(self) -> float:
        """The longest time without a number, at either end, since the last call."""
        longest, self._longest = self._longest, 0.0
        for task in self._tasks:
            if task.done():
                task.result()
        return longest

    async def stop(self) -> None:
        self._ended = True
        await asyncio.gather(*self._tasks)

    async def _begin(self, connection: Connection) -> None:
        stream = await connection.open_stream()
        await asyncio.gather(self._send(stream), self._receive(stream))

    async def _answer(self, connection: Connection) -> None:
        stream = await connection.accept_stream()
        await asyncio.gather(self._send(stream), self._receive(stream))

    async def _send(self, stream: Stream) -> None:
        number = 0
        while not self._ended:
            await stream.write(number.to_bytes(4, "big"))
            number += 1
            await asyncio.sleep(0.05)
        stream.finish()

    async def _receive(self, stream: Stream) -> None:
        last, number = self._loop.time(), 0
        while data := await stream.read(4):
            data += await stream.readexactly(4 - len(data)) if len(data) < 4 else b""
            assert int.from_bytes(data, "big") == number
            number += 1
            now = self._loop.time()
            self._longest = max(self._longest, now - last)
            last = now


class Transfer:
    """Sends 1.4 MB a second one way, from the side that has accepted the connection."""

    def __init__(self, near: Connection, far: Connection) -> None:
        self._loop = asyncio.get_running_loop()
        self._last, self._longest = self._loop.time(), 0.0
        self._tasks = [asyncio.create_task(work) for work in (self._send(far), self._receive(near))]

    def longest(self) -> float:
        """The longest time without new bytes since the last call, which goes on."""
        longest, self._longest = max(self._longest, self._loop.time() - self._last), 0.0
        for task in self._tasks:
            if task.done():
                task.result()
        return longest

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _send(self, connection: Connection) -> None:
        stream = await connection.open_stream()
        while True:
            await stream.write(bytes(14_000))
            await asyncio.sleep(0.01)

    async def _receive(self, connection: Connection) -> None:
        stream = await connection.accept_stream()
        while await stream.read():
            now = self._loop.time()
            self._longest, self._last = max(self._longest, now - self._last), now


@pytest.mark.slow
def test_a_transfer_goes_on_through_one_change_after_another() -> None:
    stage = Stage()
    changes: list[Callable[[], None]] = [
        stage.cafe.rebind,
        stage.cafe.renumber,
        stage.home.rebind,
        stage.home.renumber,
        lambda: stage.near.move(stage.office),
        lambda: stage.near.move(stage.cafe),
        stage.both_move,
        stage.both_move_back,
        stage.cafe.rebind,
        stage.home.rebind,
        lambda: stage.far.move(stage.garden),
        lambda: stage.far.move(stage.home),
    ]

    async def main() -> list[tuple[float, PathKind]]:
        async with stage.connected() as (near, far):
            transfer = Transfer(near, far)
            await asyncio.sleep(3)
            transfer.longest()
            seen = []
            for change in changes:
                change()
                await asyncio.sleep(5)
                assert near.path is not None
                seen.append((transfer.longest(), near.path.kind))
            transfer.cancel()
            return seen

    with stage.simulation:
        seen = stage.simulation.run(main())
    assert all(pause < 3 and kind is PathKind.DIRECT for pause, kind in seen), seen


def test_nothing_happens() -> None:
    stage = Stage()
    assert max(stage.play(pause=60)) < 0.1


def test_the_client_goes_to_another_network() -> None:
    stage = Stage()
    pauses = stage.play(lambda: stage.near.move(stage.office), lambda: stage.near.move(stage.train))
    assert max(pauses) < 3, pauses


def test_the_server_goes_to_another_network() -> None:
    stage = Stage()
    pauses = stage.play(lambda: stage.far.move(stage.garden), lambda: stage.far.move(stage.office))
    assert max(pauses) < 3, pauses


def test_both_go_at_once() -> None:
    stage = Stage()

    pauses = stage.play(stage.both_move, stage.both_move_back, stage.both_move)
    assert max(pauses) < 3, pauses


@pytest.mark.parametrize("who", ["near", "far", "both"])
@pytest.mark.parametrize("how", [Site.rebind, Site.renumber, Site.reboot])
def test_a_nat_forgets(who: str, how: Callable[[Site], None]) -> None:
    stage = Stage()
    sites = {"near": [stage.cafe], "far": [stage.home], "both": [stage.cafe, stage.home]}[who]

    def act() -> None:
        for site in sites:
            how(site)

    pauses = stage.play(act, act)
    assert max(pauses) < 3, pauses


def test_a_relay_lets_both_sides_through_for_as_long_as_the_connection_needs_it() -> None:
    simulation = Simulation(seed=11)
    world = simulation.world
    server = world.host("server")
    one, other = (world.site(nat=Nat.SYMMETRIC, uplink=SITE).host(name) for name in ("one", "other"))

    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            with server:
                service = await stack.enter_async_context(Server())
            with other:
                far = await stack.enter_async_context(Endpoint.bind(server=service.url, alpns=[ALPN]))
            with one:
                near = await stack.enter_async_context(Endpoint.bind(server=service.url))
                await asyncio.sleep(1)
                connection = await near.connect(far.peer, alpn=ALPN)
            with other:
                ticker = Ticker(connection, await far.accept())
            await asyncio.sleep(3600)
            assert connection.path is not None
            assert connection.path.kind is PathKind.RELAY
            assert ticker.longest() < 0.5
            # Nobody holds what was for this connection once it is over.
            await ticker.stop()
            connection.close()
            await asyncio.sleep(20)
            for endpoint in (near, far):
                assert not endpoint._surroundings.relays._peers
                assert not endpoint._surroundings._receivers

    with simulation:
        simulation.run(main())
