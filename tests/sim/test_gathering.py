"""What a peer is told of an endpoint's candidates as its networks come and go."""

from __future__ import annotations

import asyncio

from quice import Endpoint
from quice.discovery import Withdrawn
from quice.ice import Gathered
from quice.sim.simulation import Simulation


async def test_a_candidate_that_ranks_anew_is_not_withdrawn(simulation: Simulation) -> None:
    """It is better without another beside it, and the same way all the same: pairs of it may be in use."""
    world = simulation.world
    phone = world.site("wifi").host("phone", interface="wlan0")
    world.site("lte").join(phone, "wwan0")
    events: list[object] = []
    with phone:
        async with Endpoint.bind() as endpoint:
            await asyncio.sleep(1)
            discovery = endpoint._surroundings.discovery
            first, second = (next(a.host for a in phone.addresses() if a.interface == i) for i in ("wlan0", "wwan0"))
            before = {each.address.host: each.priority for each in discovery.candidates}
            worse = min(before, key=lambda host: before[host])
            discovery.listen(events.append)
            phone.unplug("wlan0" if worse == second else "wwan0")
            await asyncio.sleep(1)
            after = {each.address.host: each.priority for each in discovery.candidates}
    assert {first, second} == set(before)
    assert set(after) == {worse}
    assert after[worse] > before[worse]
    assert not [event for event in events if isinstance(event, Gathered)]
    assert [event.candidate.address.host for event in events if isinstance(event, Withdrawn)] == [
        host for host in before if host != worse
    ]
