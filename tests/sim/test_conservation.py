"""Whatever the world is like and whatever happens in it, each packet comes to one end, and each copy of it too."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest

from quice.sim import nat64
from quice.sim.firewall import FirewallBehaviour
from quice.sim.host import Host
from quice.sim.link import Bursts, Conditions
from quice.sim.nat import Hairpinning, NatBehaviour, Pooling, PortAllocation
from quice.sim.nat64 import synthesized
from quice.sim.packet import Fate, Passage, Protocol
from quice.sim.site import Site
from quice.sim.world import World
from quice.stun.discovery import Behaviour
from quice.wire import Address
from tests.sim.clock import HeapClock

ON_THE_WAY = {Fate.SENT, Fate.FORWARDED, Fate.DUPLICATED, Fate.CORRUPTED}
SECONDS = 200.0


def weather(dice: random.Random) -> Conditions:
    return Conditions(
        delay=dice.choice([0.0, 0.01, 0.3]),
        jitter=dice.choice([0.0, 0.02]),
        loss=dice.choice([0.0, 0.1]),
        bursts=dice.choice([None, Bursts(0.05, 0.2)]),
        reordering=dice.choice([0.0, 0.1]),
        duplication=dice.choice([0.0, 0.1]),
        corruption=dice.choice([0.0, 0.1]),
        rate=dice.choice([None, 1e4]),
        queue=3000,
        mtu=dice.choice([1500, 1300]),
    )


def behaviour(dice: random.Random) -> NatBehaviour:
    return NatBehaviour(
        dice.choice(list(Behaviour)),
        dice.choice(list(Behaviour)),
        dice.choice(list(PortAllocation)),
        parity=dice.random() < 0.5,
        hairpinning=dice.choice(list(Hairpinning)),
        timeout=dice.choice([20.0, 120.0]),
        pooling=dice.choice(list(Pooling)),
    )


def site(world: World, dice: random.Random, behind: Site | None = None) -> Site:
    return world.site(
        nat=behaviour(dice),
        external=dice.choice([1, 3]),
        ipv6=dice.random() < 0.6,
        firewall=FirewallBehaviour(dice.choice(list(Behaviour))) if dice.random() < 0.5 else None,
        nat64=nat64.DEFAULT if dice.random() < 0.3 else None,
        udp_ports=dice.choice([None, None, (5000,)]),
        behind=behind,
        uplink=weather(dice),
        downlink=weather(dice),
    )


def disturb(world: World, dice: random.Random, sites: list[Site], hosts: list[Host]) -> None:
    """Have something happen at some time."""
    disturbed, host = dice.choice(sites), dice.choice(hosts)
    event = dice.choice(
        [
            disturbed.reboot,
            disturbed.renumber,
            disturbed.link.cut,
            disturbed.link.mend,
            host.sleep,
            host.wake,
            lambda: disturbed.link.change(weather(dice)),
            lambda: disturbed.leave(host) if len(host.interfaces) > 1 else disturbed.move(host),
        ]
    )
    world.at(dice.uniform(0, SECONDS), event)


@pytest.mark.parametrize("seed", range(20))
def test_every_packet_comes_to_an_end(clock: HeapClock, seed: int) -> None:
    dice = random.Random(seed)
    world = World(seed, clock)
    trace: list[Passage] = []
    world.watch(trace.append)
    carrier = site(world, dice)
    sites = [carrier, site(world, dice, carrier), site(world, dice)]
    hosts = [each.host(f"host of {each.name}", link=weather(dice)) for each in sites]
    sites[2].join(hosts[0], "wlan0", link=weather(dice))
    hosts.append(world.host("server", ipv4=2, ipv6=1))
    seen = [Address(synthesized("203.0.113.250"), 5000)]

    def send(sender: Host) -> None:
        wildcard = dice.choice(["0.0.0.0", "::"])
        others = [each for host in hosts if host is not sender for each in host.addresses()]
        known = [each.host for each in others if each.interface != "lo" and "%" not in each.host]
        known += [external for each in sites for external in each.external]
        destination = dice.choice([*seen[-20:], *(Address(each, dice.choice([5000, 5000, 9])) for each in known)])
        protocol = dice.choice(list(Protocol))
        try:
            bindings[sender.name, wildcard, protocol].send(bytes(dice.choice([0, 100, 1400])), destination)
        except OSError:
            return

    bindings = {
        (host.name, wildcard, protocol): host.bind(
            protocol, Address(wildcard, 5000), lambda packet: seen.append(packet.source)
        )
        for host in hosts
        for wildcard in ("0.0.0.0", "::")
        for protocol in Protocol
    }
    for _ in range(1000):
        world.at(dice.uniform(0, SECONDS), send, dice.choice(hosts))
    for _ in range(10):
        disturb(world, dice, sites, hosts)
    clock.drain()

    began = Counter(
        (each.packet.sender, each.packet.number) for each in trace if each.fate in (Fate.SENT, Fate.DUPLICATED)
    )
    ended = Counter((each.packet.sender, each.packet.number) for each in trace if each.fate not in ON_THE_WAY)
    assert began == ended
    fates = Counter(each.fate for each in trace)
    assert fates[Fate.DELIVERED] > 50
    assert all(each.time <= later.time for each, later in itertools.pairwise(trace))
