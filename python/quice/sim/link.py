"""Links between hosts and routers, and the weather on them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from quice.sim.packet import Fate, Packet, Protocol, Report
from quice.sim.schedule import Schedule

_ETHERNET_MTU = 1500


@dataclass(frozen=True)
class Bursts:
    """Loss that comes in bursts (Gilbert-Elliott): the link is good or bad, and may change at every packet.

    The mean length of a burst is 1 / `end` packets, and `begin` / (`begin` + `end`) of the packets meet one.
    """

    begin: float
    """The probability to turn bad."""
    end: float
    """The probability to turn good again."""
    loss: float = 1.0
    """The probability that a packet is lost while it is bad."""
    memory: float = 0.25
    """Seconds of silence after which it is good again: a chain that moves with packets alone would make a burst of few
    packets outlast all retransmissions of a quiet link."""


@dataclass(frozen=True)
class Conditions:
    """What one direction of a link does to packets. Times are in seconds, probabilities from 0 to 1."""

    delay: float = 0.0
    jitter: float = 0.0
    """Up to how much longer a packet takes, evenly distributed. It alone changes no order: it is that of a queue."""
    loss: float = 0.0
    bursts: Bursts | None = None
    """Loss besides."""
    reordering: float = 0.0
    """The probability that a packet is held back, so that those behind overtake it."""
    held_back: float = 0.01
    """For how long."""
    duplication: float = 0.0
    corruption: float = 0.0
    """The probability that one to three bits of a packet's data are flipped."""
    rate: float | None = None
    """Bits a second, None for no limit."""
    queue: int = 65536
    """How many bytes may wait for their turn where `rate` is limited; what finds no room is dropped."""
    mtu: int = _ETHERNET_MTU
    """The largest IP packet in bytes. Larger ones vanish, as where ICMP is filtered."""


class Pipe:
    """One direction of a link. `far_end` is called with each packet that arrives.

    instant: whether a packet that takes no time may arrive before `carry` returns. A router can bear that; a program
    that sends would be called back in the middle of it.
    """

    def __init__(
        self,
        name: str,
        conditions: Conditions,
        schedule: Schedule,
        rng: random.Random,
        report: Report,
        far_end: Callable[[Packet], None],
        *,
        instant: bool,
    ) -> None:
        self.name = name
        self.up = True
        self._schedule = schedule
        self._rng = rng
        self._report = report
        self._far_end = far_end
        self._instant = instant
        self.conditions = conditions

    @property
    def conditions(self) -> Conditions:
        """The weather. What is in flight arrives when the old one had it arrive."""
        return self._conditions

    @conditions.setter
    def conditions(self, conditions: Conditions) -> None:
        self._conditions = conditions
        self._mtu = conditions.mtu
        self._delay = conditions.delay
        self._bad = False
        self._last_packet = 0.0
        self._idle_at = 0.0
        self._last_arrival = 0.0
        self._calm = conditions == Conditions(delay=conditions.delay, mtu=conditions.mtu)

    def carry(self, packet: Packet) -> None:
        """Take a packet in."""
        if not self.up:
            self._report(self.name, Fate.CUT, packet)
        elif packet.size > self._mtu:
            self._report(self.name, Fate.TOO_BIG, packet)
        elif not self._calm:
            self._carry_through_weather(packet)
        elif self._delay or not self._instant:
            self._schedule.call_at(self._schedule.time() + self._delay, self._arrive, packet)
        else:
            self._far_end(packet)

    def _arrive(self, packet: Packet) -> None:
        if self.up:
            self._far_end(packet)
        else:
            self._report(self.name, Fate.CUT, packet)

    def _carry_through_weather(self, packet: Packet) -> None:
        departure = self._departure(packet.size)
        if departure is None:
            self._report(self.name, Fate.QUEUE_FULL, packet)
        elif self._is_lost():
            self._report(self.name, Fate.LOST, packet)
        else:
            weather = self._conditions
            if weather.duplication and self._rng.random() < weather.duplication:
                self._report(self.name, Fate.DUPLICATED, packet)
                self._fly(packet, departure)
            self._fly(packet, departure)

    def _departure(self, size: int) -> float | None:
        """When the last bit of a packet is on the wire; None if the queue has no room for it."""
        now, rate = self._schedule.time(), self._conditions.rate
        if rate is None:
            return now
        start = max(now, self._idle_at)
        waiting = (start - now) * rate / 8
        if waiting + size > self._conditions.queue:
            return None
        self._idle_at = start + size * 8 / rate
        return self._idle_at

    def _is_lost(self) -> bool:
        weather, dice = self._conditions, self._rng.random
        bursts = weather.bursts
        if bursts is not None:
            now, before = self._schedule.time(), self._last_packet
            self._last_packet = now
            bad = self._bad and now - before <= bursts.memory
            self._bad = dice() >= bursts.end if bad else dice() < bursts.begin
            if self._bad and dice() < bursts.loss:
                return True
        return bool(weather.loss) and dice() < weather.loss

    def _fly(self, packet: Packet, departure: float) -> None:
        weather, dice = self._conditions, self._rng.random
        if weather.corruption and dice() < weather.corruption and packet.data:
            if packet.protocol is Protocol.TCP:
                self._report(self.name, Fate.CHECKSUM, packet)
                return
            packet = packet._replace(data=self._corrupted(packet.data))
            self._report(self.name, Fate.CORRUPTED, packet)
        arrival = departure + weather.delay
        if weather.jitter:
            arrival += dice() * weather.jitter
        if weather.reordering and dice() < weather.reordering:
            arrival += weather.held_back
        else:
            arrival = self._last_arrival = max(arrival, self._last_arrival)
        self._schedule.call_at(arrival, self._arrive, packet)

    def _corrupted(self, data: bytes) -> bytes:
        flipped = bytearray(data)
        for position in self._rng.sample(range(len(data) * 8), min(self._rng.randint(1, 3), len(data) * 8)):
            flipped[position // 8] ^= 1 << position % 8
        return bytes(flipped)


class Link:
    """Two directions: `outward`, away from the host or site that the link connects, and `inward`, towards it."""

    def __init__(self, outward: Pipe, inward: Pipe) -> None:
        self.outward = outward
        self.inward = inward
        self._watchers: list[Callable[[], None]] = []

    @property
    def up(self) -> bool:
        """Whether packets can go both ways."""
        return self.outward.up and self.inward.up

    def cut(self) -> None:
        """Take the link down, in both directions. What is in flight when it is still down on arrival is gone."""
        self._switch(up=False)

    def mend(self) -> None:
        """Take the link up again."""
        self._switch(up=True)

    def change(self, outward: Conditions, inward: Conditions | None = None) -> None:
        """Change the weather; `inward` None is for the same in both directions."""
        self.outward.conditions = outward
        self.inward.conditions = outward if inward is None else inward

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call `watcher` whenever the link was cut or mended."""
        self._watchers.append(watcher)

    def _switch(self, *, up: bool) -> None:
        self.outward.up = self.inward.up = up
        for watcher in self._watchers:
            watcher()
