"""How many packets a second the simulated internet carries: `python -m bench.packets`.

Two hosts send each other datagrams, a few in flight at a time. A hop is a link or a router that a packet passes.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from quice.sim.clock import virtual_time
from quice.sim.host import Host
from quice.sim.kinds import Nat
from quice.sim.link import Bursts, Conditions
from quice.sim.packet import Packet, Protocol
from quice.sim.trace import Digest
from quice.sim.world import World
from quice.wire import Address

PACKETS = 50_000
IN_FLIGHT = 8
RUNS = 5
PORT = 5000
_ROUND = 10.0
NEAR = Conditions(delay=0.025)
WEATHER = Conditions(delay=0.025, jitter=0.005, loss=0.01, bursts=Bursts(0.001, 0.3), reordering=0.01, duplication=0.01)


@dataclass(frozen=True)
class Case:
    """Where the two hosts are. `hops`: on the way from one to the other."""

    name: str
    hops: int
    build: Callable[[World], tuple[Host, Host]]


def _internet(world: World) -> tuple[Host, Host]:
    return world.host("one", link=NEAR), world.host("two", link=NEAR)


def _nats(world: World, weather: Conditions = NEAR) -> tuple[Host, Host]:
    one, two = (world.site(name, nat=Nat.PORT_RESTRICTED, uplink=weather).host(name) for name in ("one", "two"))
    return one, two


def _carriers(world: World) -> tuple[Host, Host]:
    hosts = []
    for name in ("one", "two"):
        carrier = world.site(f"carrier {name}", nat=Nat.PORT_RESTRICTED, carrier=True)
        hosts.append(world.site(name, nat=Nat.PORT_RESTRICTED, behind=carrier, uplink=NEAR).host(name))
    return hosts[0], hosts[1]


def _watched(world: World) -> tuple[Host, Host]:
    world.watch(Digest())
    return _nats(world)


CASES = (
    Case("internet", 3, _internet),
    Case("two NATs", 7, _nats),
    Case("two NATs, weather", 7, lambda world: _nats(world, WEATHER)),
    Case("two NATs, watched", 7, _watched),
    Case("two NATs, carriers", 11, _carriers),
)


def packets_per_second(case: Case) -> float:
    """Carry the packets once, on the event loop of the simulation."""
    with virtual_time() as loop:
        world = World(1, loop)
        one, two = case.build(world)
        outside = [_outside(world, host) for host in (one, two)]
        left = PACKETS

        def answer(host: int, packet: Packet) -> None:
            nonlocal left
            if left:
                left -= 1
                bindings[host].send(packet.data, outside[1 - host])

        bindings = [
            host.bind(Protocol.UDP, Address("0.0.0.0", PORT), lambda packet, index=index: answer(index, packet))
            for index, host in enumerate((one, two))
        ]
        started = time.process_time()
        while left:
            # The first packets open the NATs. Where all have been lost, others follow.
            for _ in range(IN_FLIGHT):
                for index, binding in enumerate(bindings):
                    binding.send(bytes(1200), outside[1 - index])
            loop.run_until_complete(asyncio.sleep(_ROUND))
        return PACKETS / (time.process_time() - started)


def _outside(world: World, host: Host) -> Address:
    """Where a host that sends from `PORT` is seen: its NATs preserve the port."""
    for name in (f"carrier {host.name}", host.name):
        if name in world.sites:
            return Address(world.sites[name].external[0], PORT)
    return Address(next(each.host for each in host.addresses() if each.interface == "eth0"), PORT)


def main() -> None:
    for case in CASES:
        rate = statistics.median(packets_per_second(case) for _ in range(RUNS))
        print(f"{case.name:20} {rate:10,.0f} packets/s {rate * case.hops:12,.0f} hops/s")


if __name__ == "__main__":
    main()
