"""Programs in a simulated internet: a world, its virtual time, and the hosts on which code runs."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

from quice.server import Server
from quice.server.relay import RelaySettings
from quice.sim.clock import SimLoop, end_all, virtual_time
from quice.sim.entropy import seeded
from quice.sim.host import Host
from quice.sim.link import Conditions
from quice.sim.machine import SimMachine
from quice.sim.waiting import is_untold
from quice.sim.world import World

T = TypeVar("T")

_CALM = Conditions()


class Simulation:
    """A world that programs run in, reproduced by its seed; a context manager.

    Until it is closed, Python's own randomness (`random`, `secrets`, `uuid`, `os.urandom`) is of the seed too.

    with Simulation(seed=7) as simulation:
        home = simulation.world.site(nat=Nat.PORT_RESTRICTED)
        simulation.run(main(home.host("alice")))

    async def main(alice):
        with alice:
            async with Endpoint.bind(server=url) as endpoint: ...
    """

    def __init__(self, seed: int, limit: float = math.inf) -> None:
        """`limit`: simulated seconds that one `run` may take."""
        self.seed = seed
        self._limit = limit
        self._exits = contextlib.ExitStack()
        self._exits.enter_context(seeded(random.Random(f"{seed}/entropy")))
        self.loop: SimLoop = self._exits.enter_context(virtual_time())
        self._exits.callback(self._end)
        self.world = World(seed, self.loop, self._equip)

    def run(self, program: Coroutine[Any, Any, T]) -> T:
        """Run a program to its end, at whatever simulated time that is.

        Raises what it raises, else what a program of `Host.start` has failed with if nobody has awaited that; and
        `StuckError` when it waits for what will never happen, or longer than the limit.
        """
        __tracebackhide__ = True
        self.loop.deadline = self.loop.time() + self._limit
        result = self.loop.run_until_complete(program)
        for _, task in self.loop.failed:
            if is_untold(task):
                task.result()
        return result

    async def server(
        self, name: str = "server", *, link: Conditions = _CALM, ipv6: bool = False, relay: bool = True
    ) -> Server:
        """Start `quice serve` on a new public host of this name; it serves until the end of the simulation.

        Peers are given its `url`. link: the host's way to the internet. relay: whether it relays, too, so that any two
        peers that reach it reach each other.
        """
        with self.world.host(name, ipv6=int(ipv6), link=link):
            return await Server(relay=RelaySettings(serve=relay)).__aenter__()

    def close(self) -> None:
        """End all programs, then switch off their hosts."""
        self._exits.close()

    def _end(self) -> None:
        end_all(self.loop)
        for host in self.world.hosts.values():
            host.machine.tcp.abort()

    def _equip(self, host: Host) -> None:
        rng = self.world.rng(f"{host.name}.programs")
        host.machine = SimMachine(self.loop, host, self._resolve, rng)

    def _resolve(self, name: str) -> list[str]:
        host = self.world.hosts.get(name)
        found = host.addresses() if host is not None else []
        return [each.host for each in found if not (each.ip.is_loopback or each.ip.is_link_local)]

    def __enter__(self) -> Simulation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
