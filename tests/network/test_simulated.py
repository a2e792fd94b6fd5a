"""Changes of a simulated host's network are told of as those of a real machine."""

from __future__ import annotations

import asyncio

import pytest

from quice.machine import this_machine
from quice.network import LocalAddress, NetworkChange
from quice.sim.host import Host
from quice.sim.kinds import Nat
from quice.sim.simulation import Simulation
from quice.sim.site import Site
from quice.sim.world import World

WIFI, LTE = LocalAddress("192.168.1.11", "wlan0"), LocalAddress("192.168.2.11", "lte0")


@pytest.fixture
def wifi(world: World) -> Site:
    return world.site("wifi", nat=Nat.PORT_RESTRICTED)


@pytest.fixture
def lte(world: World) -> Site:
    return world.site("lte", nat=Nat.SYMMETRIC)


@pytest.fixture
def phone(wifi: Site) -> Host:
    return wifi.host("phone", interface="wlan0")


class Told:
    """What was told of a host's network, each on that host and soon."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._changes: list[NetworkChange] = []
        with host:
            self.watch = this_machine().watch(self._tell)

    def _tell(self, change: NetworkChange) -> None:
        assert this_machine() is self._host.machine
        self._changes.append(change)

    async def soon(self) -> list[NetworkChange]:
        """The changes since this was asked last."""
        await asyncio.sleep(0.1)
        changes, self._changes = self._changes, []
        return changes


async def test_a_phone_that_goes_from_wifi_to_lte_is_told_once(phone: Host, wifi: Site, lte: Site) -> None:
    told = Told(phone)
    lte.join(phone, "lte0")
    wifi.leave(phone)
    assert await told.soon() == [NetworkChange(added=(LTE,), removed=(WIFI,), default_route=True)]


async def test_an_interface_that_goes_down_and_up_is_told_of(phone: Host) -> None:
    told = Told(phone)
    phone.interfaces["wlan0"].link.cut()
    assert await told.soon() == [NetworkChange(removed=(WIFI,), default_route=True)]
    phone.interfaces["wlan0"].link.mend()
    assert await told.soon() == [NetworkChange(added=(WIFI,), default_route=True)]


async def test_another_network_with_the_same_address_is_another_default_route(phone: Host, world: World) -> None:
    told = Told(phone)
    phone.move(world.site("cafe", nat=Nat.PORT_RESTRICTED, lan="192.168.1.0/24"), "wlan0")
    assert await told.soon() == [NetworkChange(default_route=True)]


async def test_another_metric_is_another_default_route(phone: Host, lte: Site) -> None:
    lte.join(phone, "lte0")
    told = Told(phone)
    phone.interfaces["lte0"].metric = -1
    assert await told.soon() == [NetworkChange(default_route=True)]


async def test_a_host_that_slept_is_told_of_what_happened_meanwhile_when_it_wakes(
    simulation: Simulation, phone: Host, wifi: Site, lte: Site
) -> None:
    told = Told(phone)
    phone.sleep()
    lte.join(phone, "lte0")
    wifi.leave(phone)
    await asyncio.sleep(60)
    assert await told.soon() == []
    phone.wake()
    assert await told.soon() == [NetworkChange(added=(LTE,), removed=(WIFI,), default_route=True, woken=True)]
    phone.sleep()
    phone.wake()
    assert await told.soon() == [NetworkChange(woken=True)]


async def test_what_happens_behind_the_router_is_not_seen(phone: Host, wifi: Site) -> None:
    told = Told(phone)
    wifi.rebind()
    wifi.renumber()
    wifi.link.cut()
    assert await told.soon() == []


async def test_a_watch_that_is_closed_tells_nothing(phone: Host) -> None:
    told, other = Told(phone), Told(phone)
    told.watch.close()
    told.watch.close()
    phone.interfaces["wlan0"].link.cut()
    phone.sleep()
    phone.wake()
    assert await told.soon() == []
    assert len(await other.soon()) == 1
