"""What the tests of the simulated internet share."""

from __future__ import annotations

import pytest

from quice.sim.packet import Passage
from quice.sim.world import World
from tests.sim.clock import HeapClock


@pytest.fixture
def clock() -> HeapClock:
    return HeapClock()


@pytest.fixture
def world(clock: HeapClock) -> World:
    return World(seed=1, clock=clock)


@pytest.fixture
def trace(world: World) -> list[Passage]:
    """All that happens to packets."""
    passages: list[Passage] = []
    world.watch(passages.append)
    return passages
