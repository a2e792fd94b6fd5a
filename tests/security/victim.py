"""Somebody who has nothing to do with it, and what reaches them all the same."""

from __future__ import annotations

from collections import Counter

from quice.sim.host import Host
from quice.sim.packet import Fate, Passage
from quice.sim.world import World
from quice.wire import Address


class Victim:
    """A host on the internet that counts what comes to it. Nothing there answers."""

    def __init__(self, world: World, name: str = "victim", *, ipv6: int = 0) -> None:
        self.host: Host = world.host(name, ipv6=ipv6)
        self.packets: list[tuple[float, int, bytes]] = []
        """When each came, its size on the wire, and what was in it."""
        self.ports: set[int] = set()
        world.watch(self._on_passage)

    @property
    def address(self) -> str:
        """Its IPv4 address."""
        return next(each.host for each in self.host.addresses() if each.interface != "lo" and each.ip.version == 4)

    def addresses(self, count: int) -> list[Address]:
        """So many of its ports."""
        return [Address(self.address, 1000 + number) for number in range(count)]

    @property
    def bytes(self) -> int:
        """All that has come, with the headers of IP and UDP."""
        return sum(size for _, size, _ in self.packets)

    def most_in(self, seconds: float) -> int:
        """The most bytes that came within so many seconds."""
        most, start, total = 0, 0, 0
        for time, size, _ in self.packets:
            total += size
            while self.packets[start][0] < time - seconds:
                total -= self.packets[start][1]
                start += 1
            most = max(most, total)
        return most

    def by_protocol(self) -> dict[str, int]:
        """Bytes of STUN and of QUIC."""
        counted: Counter[str] = Counter()
        for _, size, data in self.packets:
            counted["stun" if data[0] < 4 else "quic"] += size
        return dict(counted)

    def _on_passage(self, passage: Passage) -> None:
        if passage.place == self.host.name and passage.fate in (Fate.NOT_LISTENING, Fate.DELIVERED):
            self.ports.add(passage.packet.destination.port)
            self.packets.append((passage.time, passage.packet.size, passage.packet.data))
