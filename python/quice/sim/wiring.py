"""How links are made, with the dice that belong to each."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from quice.sim.host import Host
from quice.sim.interface import Interface
from quice.sim.link import Conditions, Link, Pipe
from quice.sim.packet import Packet, Report
from quice.sim.router import Router
from quice.sim.schedule import Schedule


class Wiring:
    """Makes the links of one world."""

    def __init__(self, schedule: Schedule, rng: Callable[[str], random.Random], report: Report) -> None:
        self._schedule = schedule
        self._rng = rng
        self._report = report

    def plug(
        self,
        host: Host,
        interface: str,
        router: Router,
        outward: Conditions,
        inward: Conditions | None,
        metric: int = 0,
    ) -> Interface:
        """Give a host an interface on a router, without addresses yet. `inward` None is as `outward`."""
        name = f"{host.name}.{interface}"
        up = self._pipe(f"{name} out", outward, router.from_inside, instant=True)
        arrive = partial(host.receive, interface)
        down = self._pipe(f"{name} in", outward if inward is None else inward, arrive, instant=False)
        plugged = Interface(interface, Link(up, down), router, metric)
        host.add_interface(plugged)
        return plugged

    def uplink(self, router: Router, upstream: Router, outward: Conditions, inward: Conditions | None) -> Link:
        """Connect a router to the one above it."""
        up = self._pipe(f"{router.name} up", outward, upstream.from_inside, instant=True)
        down = self._pipe(
            f"{router.name} down", outward if inward is None else inward, router.from_outside, instant=True
        )
        link = Link(up, down)
        router.connect(upstream, link)
        return link

    def _pipe(self, name: str, conditions: Conditions, far_end: Callable[[Packet], None], *, instant: bool) -> Pipe:
        return Pipe(name, conditions, self._schedule, self._rng(name), self._report, far_end, instant=instant)
