"""A simulated internet: hosts, sites, and what happens to them, reproduced by a seed.

    world = World(seed=7, clock=loop)
    server = world.host("server")
    home = world.site("home", nat=Nat.PORT_RESTRICTED, uplink=Conditions(delay=0.025))
    alice = home.host("alice")
    world.at(3.0, home.reboot)

All dice are of generators seeded by the world's seed and a thing's name: what is added changes nothing for others.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Callable, Collection
from typing import Any

from quice.sim import kinds
from quice.sim.addressing import Addressing
from quice.sim.firewall import Firewall, FirewallBehaviour, UdpBlock
from quice.sim.host import Host
from quice.sim.kinds import Nat
from quice.sim.link import Conditions
from quice.sim.nat import NatBehaviour, Translator
from quice.sim.nat64 import Nat64
from quice.sim.packet import Fate, Packet, Passage
from quice.sim.router import Router
from quice.sim.schedule import Clock, Schedule
from quice.sim.site import Site
from quice.sim.wiring import Wiring

_CALM = Conditions()


class World:
    """The internet and everything on it."""

    def __init__(self, seed: int, clock: Clock, equip: Callable[[Host], None] | None = None) -> None:
        """`equip`: called with each new host, to have programs run on it."""
        self.seed = seed
        self.hosts: dict[str, Host] = {}
        self.sites: dict[str, Site] = {}
        self._equip = equip
        self._watchers: list[Callable[[Passage], None]] = []
        self._schedule = Schedule(clock)
        self._addressing = Addressing()
        self._wiring = Wiring(self._schedule, self.rng, self._report)
        self.internet = Router("internet", [], self._schedule, self._report)

    def rng(self, name: str) -> random.Random:
        """A generator for the thing of this name."""
        return random.Random(f"{self.seed}/{name}")

    def host(
        self, name: str, *, ipv4: int = 1, ipv6: int = 0, link: Conditions = _CALM, inward: Conditions | None = None
    ) -> Host:
        """Add a host right on the internet, with so many public addresses of each family."""
        host = self._host(name)
        hosts = [self._addressing.ipv4() for _ in range(ipv4)] + [self._addressing.ipv6() for _ in range(ipv6)]
        interface = self._wiring.plug(host, "eth0", self.internet, link, inward)
        interface.assign([ipaddress.ip_interface(each) for each in hosts])
        return host

    def site(
        self,
        name: str = "",
        *,
        nat: Nat | NatBehaviour = Nat.PUBLIC,
        external: int = 1,
        ipv4: bool = True,
        ipv6: bool = False,
        firewall: FirewallBehaviour | None = None,
        nat64: NatBehaviour | None = None,
        udp_ports: Collection[int] | None = None,
        lan: str | None = None,
        carrier: bool = False,
        behind: Site | None = None,
        uplink: Conditions = _CALM,
        downlink: Conditions | None = None,
    ) -> Site:
        """Add a site.

        nat: a kind by name, or what exactly it does to IPv4; without one its hosts have public addresses. external: how
        many addresses the NAT has outside. ipv6: whether there are IPv6 addresses, public ones. firewall: of IPv6, and
        of IPv4 where no NAT is. nat64: for hosts of IPv6 alone; `quice.sim.nat64.DEFAULT` is a usual one. udp_ports:
        those outside that UDP may go to, None for all. lan: the private network behind the NAT, by default one that no
        other site has. carrier: whether that is of the addresses for carriers' NATs (RFC 6598). behind: the site, such
        as a carrier's, that provides this one's uplink. `downlink` None is as `uplink`.
        """
        behaviour = kinds.behaviour(nat) if isinstance(nat, Nat) else nat
        if ipv4 and behaviour is None and behind is not None and behind.nat is not None:
            raise ValueError("public addresses can't be behind a NAT: add the hosts to the site above")
        network = self._addressing.lan(lan, ipv4=ipv4, ipv6=ipv6, translated=behaviour is not None, carrier=carrier)
        name = name or f"site{network.number}"
        if name in self.sites:
            raise ValueError(f"there is a site {name!r} already")
        router = Router(name, network.networks, self._schedule, self._report)
        upstream = self.internet if behind is None else behind.router
        link = self._wiring.uplink(router, upstream, uplink, downlink)
        lease = self._addressing.ipv4 if behind is None else behind.lan.ipv4_address
        translator = translator64 = None
        if ipv4 and behaviour is not None:
            translator = Translator(behaviour, [lease() for _ in range(external)], self.rng(f"{name}.nat"))
        if nat64 is not None:
            translator64 = Nat64(nat64, [lease() for _ in range(external)], self.rng(f"{name}.nat64"))
        site = self.sites[name] = Site(
            name,
            router,
            link,
            network,
            self._wiring,
            self._host,
            lease,
            nat=translator,
            nat64=translator64,
            firewall=None if firewall is None else Firewall(firewall, ipv4=translator is None),
            udp_block=None if udp_ports is None else UdpBlock(udp_ports),
        )
        return site

    def at(self, time: float, action: Callable[..., object], *arguments: Any) -> None:
        """Have something happen when the clock shows `time`."""
        self._schedule.call_at(time, lambda _: action(*arguments), None)

    def watch(self, watcher: Callable[[Passage], None]) -> None:
        """Tell `watcher` what becomes of each packet at each place, from now on."""
        self._watchers.append(watcher)

    def _host(self, name: str) -> Host:
        if name in self.hosts:
            raise ValueError(f"there is a host {name!r} already")
        host = self.hosts[name] = Host(name, self._schedule, self.rng(name), self._report)
        if self._equip is not None:
            self._equip(host)
        return host

    def _report(self, place: str, fate: Fate, packet: Packet) -> None:
        if self._watchers:
            passage = Passage(self._schedule.time(), place, fate, packet)
            for watcher in self._watchers:
                watcher(passage)
