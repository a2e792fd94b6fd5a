"""Programs in a simulated internet: a world, its virtual time, and the machines on which code runs."""

from __future__ import annotations

import contextlib
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

from quice.sim.clock import SimLoop, virtual_time
from quice.sim.host import Host
from quice.sim.machine import SimMachine
from quice.sim.world import World

T = TypeVar("T")


class Simulation:
    """A world that programs run in, reproduced by its seed; a context manager.

    with Simulation(seed=7) as simulation:
        home = simulation.world.site(nat=Nat.PORT_RESTRICTED)
        alice = simulation.machine(home.host("alice"))
        simulation.run(main(alice))

    async def main(alice):
        with alice.active():
            async with Endpoint.bind(server=url) as endpoint: ...
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._exits = contextlib.ExitStack()
        self.loop: SimLoop = self._exits.enter_context(virtual_time())
        self.world = World(seed, self.loop)
        self._machines: dict[str, SimMachine] = {}

    def machine(self, host: Host) -> SimMachine:
        """The machine that is this host."""
        if host.name not in self._machines:
            rng = self.world.rng(f"{host.name}.programs")
            self._machines[host.name] = SimMachine(self.loop, host, self._resolve, rng)
        return self._machines[host.name]

    def run(self, program: Coroutine[Any, Any, T]) -> T:
        """Run a program to its end, at whatever simulated time that is.

        Raises what it raises, and `StuckError` when it waits for what will never happen.
        """
        return self.loop.run_until_complete(program)

    def close(self) -> None:
        """End all programs."""
        self._exits.close()

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
