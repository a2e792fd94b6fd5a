"""A router: it forwards between links, and the middleboxes of a site stand in it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Protocol

from quice.sim.link import Link, Pipe
from quice.sim.nat import Translator
from quice.sim.packet import Fate, Packet, Report
from quice.sim.schedule import Schedule

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Middlebox(Protocol):
    """What a site has between its hosts and the internet."""

    def outbound(self, packet: Packet, now: float) -> Packet | None:
        """The packet as it goes on outwards, None when it does not."""
        ...

    def inbound(self, packet: Packet, now: float) -> Packet | None:
        """The packet as it goes on inwards, None when it does not."""
        ...


class Router:
    """Forwards packets to what is attached, and everything else out by its uplink if it has one.

    networks: the addresses that are inside, attached or not. boxes: what a packet meets on its way out, in this order,
    and on its way in, in the other. For what is attached the router is a switch as well: nothing stands between.
    """

    def __init__(self, name: str, networks: Iterable[Network], schedule: Schedule, report: Report) -> None:
        self.name = name
        self.networks = list(networks)
        self.nat: Translator | None = None
        self.boxes: list[Middlebox] = []
        self._upstream: tuple[Router, Link] | None = None
        self._schedule = schedule
        self._report = report
        self._attached: dict[Network, Pipe] = {}
        self._known: dict[str, tuple[Pipe | None, bool]] = {}

    def connect(self, upstream: Router, link: Link) -> None:
        """Use `link` to reach everything else, by way of the router at its other end."""
        self._upstream = upstream, link

    def attach(self, network: Network, pipe: Pipe) -> None:
        """Send what is for these addresses into this pipe from now on.

        Those that are not of this router's own networks are announced upstream: they are public.
        """
        self._attached[network] = pipe
        self._known.clear()
        if not self._is_inside(network.network_address):
            self.announce(network)

    def detach(self, network: Network) -> None:
        """Undo `attach`."""
        del self._attached[network]
        self._known.clear()
        if not self._is_inside(network.network_address):
            self.withdraw(network)

    def announce(self, network: Network) -> None:
        """Have the router above send what is for these addresses down to this one."""
        if self._upstream is not None:
            upstream, link = self._upstream
            upstream.attach(network, link.inward)

    def withdraw(self, network: Network) -> None:
        """Undo `announce`."""
        if self._upstream is not None:
            upstream, _ = self._upstream
            upstream.detach(network)

    def from_inside(self, packet: Packet) -> None:
        """Forward what a host or a site behind this router sent."""
        host = packet.destination.host
        pipe, inside = self._lookup(host)
        if pipe is not None:
            self._report(self.name, Fate.FORWARDED, packet)
            pipe.carry(packet)
        elif self._lookup(packet.source.host)[0] is None:
            self._report(self.name, Fate.SPOOFED, packet)
        elif self.nat is not None and host in self.nat.external:
            self._hairpin(packet, self.nat)
        elif inside or self._upstream is None:
            self._report(self.name, Fate.NO_ROUTE, packet)
        else:
            self._leave(packet, self._upstream[1].outward)

    def from_outside(self, packet: Packet) -> None:
        """Forward what came by the uplink."""
        now = self._schedule.time()
        for box in reversed(self.boxes):
            passed = box.inbound(packet, now)
            if passed is None:
                self._report(self.name, Fate.FILTERED, packet)
                return
            packet = passed
        self._deliver(packet)

    def _leave(self, packet: Packet, uplink: Pipe) -> None:
        now = self._schedule.time()
        for box in self.boxes:
            passed = box.outbound(packet, now)
            if passed is None:
                self._report(self.name, Fate.FILTERED, packet)
                return
            packet = passed
        self._report(self.name, Fate.FORWARDED, packet)
        uplink.carry(packet)

    def _hairpin(self, packet: Packet, nat: Translator) -> None:
        turned = nat.hairpin(packet, self._schedule.time())
        if turned is None:
            self._report(self.name, Fate.FILTERED, packet)
        else:
            self._deliver(turned)

    def _deliver(self, packet: Packet) -> None:
        pipe, _ = self._lookup(packet.destination.host)
        if pipe is None:
            self._report(self.name, Fate.NO_ROUTE, packet)
        else:
            self._report(self.name, Fate.FORWARDED, packet)
            pipe.carry(packet)

    def _lookup(self, host: str) -> tuple[Pipe | None, bool]:
        """Where an address is attached, and whether it is inside even if nowhere."""
        found = self._known.get(host)
        if found is None:
            found = self._known[host] = self._look_up(host)
        return found

    def _look_up(self, host: str) -> tuple[Pipe | None, bool]:
        ip = ipaddress.ip_address(host)
        within = [network for network in self._attached if ip in network]
        longest = max(within, key=lambda network: network.prefixlen, default=None)
        return (None if longest is None else self._attached[longest]), self._is_inside(ip)

    def _is_inside(self, ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        return ip.is_link_local or any(ip in network for network in self.networks)
