"""What an application is told of its connection's paths, on both sides."""

from __future__ import annotations

import asyncio

from quice import Connection, PathChanged, PathClosed, PathEvent, PathOpened, PathStatusChanged
from quice.sim.host import Host
from quice.sim.simulation import Simulation
from tests.sim.test_paths import GONE, connected, echo, longest_pause, phone_and_server

__all__ = ["phone_and_server"]


async def gather(connection: Connection) -> list[PathEvent]:
    return [event async for event in connection.path_events()]


def move(phone_and_server: tuple[Simulation, Host, Host, Host]) -> tuple[list[PathEvent], list[PathEvent]]:
    """What both sides are told when the agents select the pair of the other interface."""
    simulation, server, phone, home = phone_and_server

    async def main() -> tuple[list[PathEvent], list[PathEvent]]:
        async with connected(server, phone, home) as (near, far):
            gathering = [asyncio.create_task(gather(side)) for side in (near, far)]
            answering = asyncio.create_task(echo(far))
            await asyncio.sleep(5)
            session, (path,) = near._session, near.paths
            assert session is not None
            assert path.local is not None
            host = path.local.host
            session.use(next(pair for pair in session.pairs if pair.is_valid and pair.base.host != host))
            await longest_pause(near, 5)
            answering.cancel()
            near.close()
            first, second = await asyncio.gather(*gathering)
            return first, second

    with simulation:
        return simulation.run(main())


def test_the_side_that_moves_is_told_of_each_step_in_order(
    phone_and_server: tuple[Simulation, Host, Host, Host],
) -> None:
    events, _ = move(phone_and_server)
    assert len(events) == 4
    opened, promoted, changed, closed = events
    assert isinstance(opened, PathOpened)
    assert (opened.path.status, opened.path.validated) == ("backup", True)
    assert isinstance(promoted, PathStatusChanged)
    assert (promoted.path.id, promoted.path.status) == (opened.path.id, "available")
    assert isinstance(changed, PathChanged)
    assert changed.after.id == opened.path.id != changed.before.id
    assert changed.after.local != changed.before.local
    assert isinstance(closed, PathClosed)
    assert (closed.path.id, closed.reason) == (changed.before.id, "closed")
    assert [event.time for event in events] == sorted(event.time for event in events)


def test_the_other_side_is_told_that_the_peer_has_moved(phone_and_server: tuple[Simulation, Host, Host, Host]) -> None:
    _, events = move(phone_and_server)
    (changed,) = [event for event in events if isinstance(event, PathChanged)]
    assert changed.before.remote != changed.after.remote
    assert [type(event) for event in events].count(PathOpened) == 1
    assert [event.reason for event in events if isinstance(event, PathClosed)] == ["closed by the peer"]


def test_a_path_that_falls_silent_and_goes_on_elsewhere_is_told_of(
    phone_and_server: tuple[Simulation, Host, Host, Host],
) -> None:
    simulation, server, phone, home = phone_and_server

    async def main() -> list[PathEvent]:
        async with connected(server, phone, home) as (near, far):
            gathering = asyncio.create_task(gather(near))
            answering = asyncio.create_task(echo(far))
            await longest_pause(near, 3)
            simulation.world.sites["wifi"].link.change(GONE)
            await longest_pause(near, 20)
            answering.cancel()
            near.close()
            return await gathering

    with simulation:
        events = simulation.run(main())
    (changed,) = [event for event in events if isinstance(event, PathChanged)]
    assert changed.before.id == changed.after.id
    lte = next(address.host for address in phone.addresses() if address.interface == "wwan0")
    assert changed.after.local is not None
    assert changed.after.local.host == lte


def test_who_reads_late_misses_what_was_before_and_of_the_rest_the_oldest(
    phone_and_server: tuple[Simulation, Host, Host, Host],
) -> None:
    simulation, server, phone, home = phone_and_server

    async def main() -> tuple[list[int], list[PathEvent]]:
        async with connected(server, phone, home) as (near, _):
            slow = near.path_events()
            path = near.paths[0]
            for number in range(300):
                for status in ("backup", "available"):
                    near._native.set_path_status(path.id, backup=status == "backup")
                    near._look_at_paths()
                if number == 298:
                    late = near.path_events()
            near.close()
            kept = [event async for event in slow]
            return [len(kept), len([event async for event in late])], kept

    with simulation:
        lengths, kept = simulation.run(main())
    assert lengths == [256, 2]
    assert isinstance(kept[-1], PathStatusChanged)
    assert kept[-1].path.status == "available"


def test_after_the_end_nothing_happens_any_more(phone_and_server: tuple[Simulation, Host, Host, Host]) -> None:
    simulation, server, phone, home = phone_and_server

    async def main() -> list[PathEvent]:
        async with connected(server, phone, home) as (near, _):
            near.close()
            return await gather(near)

    with simulation:
        assert simulation.run(main()) == []
