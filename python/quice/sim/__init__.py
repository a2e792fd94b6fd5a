"""A simulated internet in one process, on virtual time: hosts, NATs and links, on which quice runs unchanged.

`docs/simulator.md` shows how to test programs in it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quice.sim.capture import Capture
    from quice.sim.clock import StuckError
    from quice.sim.firewall import FirewallBehaviour
    from quice.sim.host import Host
    from quice.sim.kinds import CLASSIC, Nat, NatPair
    from quice.sim.link import Bursts, Conditions
    from quice.sim.nat import Hairpinning, NatBehaviour, PortAllocation
    from quice.sim.simulation import Simulation
    from quice.sim.site import Site
    from quice.sim.trace import Digest, Traffic
    from quice.sim.world import World

# Where each name is: imported when it is asked for, since pytest loads `quice.sim.pytest_plugin` in every project.
_MODULES = {
    "CLASSIC": "kinds",
    "Bursts": "link",
    "Capture": "capture",
    "Conditions": "link",
    "Digest": "trace",
    "FirewallBehaviour": "firewall",
    "Hairpinning": "nat",
    "Host": "host",
    "Nat": "kinds",
    "NatBehaviour": "nat",
    "NatPair": "kinds",
    "PortAllocation": "nat",
    "Simulation": "simulation",
    "Site": "site",
    "StuckError": "clock",
    "Traffic": "trace",
    "World": "world",
}

__all__ = [
    "CLASSIC",
    "Bursts",
    "Capture",
    "Conditions",
    "Digest",
    "FirewallBehaviour",
    "Hairpinning",
    "Host",
    "Nat",
    "NatBehaviour",
    "NatPair",
    "PortAllocation",
    "Simulation",
    "Site",
    "StuckError",
    "Traffic",
    "World",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_MODULES]
