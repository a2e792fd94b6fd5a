"""Which strategy goes with which role (RFC 8445 §6.1.1)."""

from __future__ import annotations

from collections.abc import Callable

from quice.ice.controlled import Controlled
from quice.ice.controlling import Controlling
from quice.ice.events import Role
from quice.ice.generation import Generation
from quice.ice.lite import BothLite, ControllingLite, Lite
from quice.ice.strategy import Conclusion, Strategy

ROLES: dict[tuple[bool, bool, Role], Role] = {
    (False, False, Role.CONTROLLING): Role.CONTROLLING,
    (False, False, Role.CONTROLLED): Role.CONTROLLED,
    (False, True, Role.CONTROLLING): Role.CONTROLLING,
    (False, True, Role.CONTROLLED): Role.CONTROLLING,
    (True, False, Role.CONTROLLING): Role.CONTROLLED,
    (True, False, Role.CONTROLLED): Role.CONTROLLED,
    (True, True, Role.CONTROLLING): Role.CONTROLLING,
    (True, True, Role.CONTROLLED): Role.CONTROLLED,
}
"""Whether we are lite, whether the peer is, the role that we came with: the role that we take."""

STRATEGIES: dict[tuple[bool, bool, Role], Callable[[Generation, Conclusion], Strategy]] = {
    (False, False, Role.CONTROLLING): Controlling,
    (False, False, Role.CONTROLLED): Controlled,
    (False, True, Role.CONTROLLING): Controlling,
    (False, True, Role.CONTROLLED): Controlled,
    (True, False, Role.CONTROLLING): Lite,
    (True, False, Role.CONTROLLED): Lite,
    (True, True, Role.CONTROLLING): ControllingLite,
    (True, True, Role.CONTROLLED): BothLite,
}
"""Whether we are lite, whether the peer is, our role: what we do."""
