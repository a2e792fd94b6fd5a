"""A NAT as RFC 4787 describes what is found in the world, for TCP too (RFC 5382)."""

from __future__ import annotations

import enum
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from quice.sim.packet import Packet, Protocol
from quice.stun.discovery import Behaviour
from quice.wire import Address

_PORTS = 65536
_WELL_KNOWN = 1024


class PortAllocation(str, enum.Enum):
    """Which external port a new mapping gets (RFC 4787 §4.2.1)."""

    PRESERVED = "preserved"
    """The internal one while it is free, else as RANDOM."""
    OVERLOADED = "overloaded"
    """The internal one even if another host has it: who an answer is for is told by where it comes from."""
    RANDOM = "random"
    SEQUENTIAL = "sequential"
    """The next one that is free after that of the last mapping."""


class Pooling(str, enum.Enum):
    """Which of several external addresses a new mapping gets (RFC 4787 §4.1)."""

    PAIRED = "paired"
    """For one internal address always the same."""
    ARBITRARY = "arbitrary"


class Hairpinning(str, enum.Enum):
    """What becomes of a packet from inside to an external address of the NAT itself (RFC 4787 §6)."""

    OFF = "off"
    INTERNAL_SOURCE = "internal_source"
    """It arrives with its internal source, which its receiver did not send to."""
    EXTERNAL_SOURCE = "external_source"


@dataclass(frozen=True)
class NatBehaviour:
    """All that RFC 4787 tells NATs apart by; times are in seconds."""

    mapping: Behaviour = Behaviour.ENDPOINT_INDEPENDENT
    filtering: Behaviour = Behaviour.ADDRESS_AND_PORT_DEPENDENT
    ports: PortAllocation = PortAllocation.PRESERVED
    parity: bool = False
    """Whether an external port is even exactly where the internal one is (§4.2.2)."""
    hairpinning: Hairpinning = Hairpinning.OFF
    timeout: float = 120.0
    """How long a mapping of UDP, and what its filter lets in, live without being refreshed (§4.3)."""
    tcp_timeout: float = 7440.0
    """The same of TCP: 2 hours and 4 minutes (RFC 5382 §5), as segments are not looked into."""
    refreshed_by_inbound: bool = False
    """Whether packets that are let in refresh too (§4.3); those that go out always do."""
    pooling: Pooling = Pooling.PAIRED


@dataclass(eq=False)
class _Mapping:
    internal: Address
    external: Address
    key: tuple[Address, object]
    expires: float = 0.0
    remotes: dict[object, float] = field(default_factory=dict)
    """Whom its filter lets in, and until when."""


class _Table:
    """The mappings of one protocol."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.outbound: dict[tuple[Address, object], _Mapping] = {}
        self.inbound: dict[Address, list[_Mapping]] = {}
        self.retired: frozenset[Address] = frozenset()
        """External addresses that are not given again for now."""

    def add(self, mapping: _Mapping) -> None:
        self.outbound[mapping.key] = mapping
        self.inbound.setdefault(mapping.external, []).append(mapping)

    def remove(self, mapping: _Mapping) -> None:
        del self.outbound[mapping.key]
        others = self.inbound[mapping.external]
        others.remove(mapping)
        if not others:
            del self.inbound[mapping.external]

    def is_free(self, external: Address, now: float) -> bool:
        for mapping in list(self.inbound.get(external, ())):
            if mapping.expires <= now:
                self.remove(mapping)
        return external not in self.inbound and external not in self.retired


class Translator:
    """Translates what passes it between the internal addresses of a site and the external ones that it has.

    IPv6 passes unchanged.
    """

    def __init__(self, behaviour: NatBehaviour, external: Sequence[str], rng: random.Random) -> None:
        self.behaviour = behaviour
        self.external = tuple(external)
        self._rng = rng
        self._key = DEPENDENCE[behaviour.mapping]
        self._remote = DEPENDENCE[behaviour.filtering]
        self._filters = behaviour.filtering is not Behaviour.ENDPOINT_INDEPENDENT
        self.reboot()

    def reboot(self, external: Sequence[str] | None = None) -> None:
        """Forget every mapping; `external`: other addresses from now on."""
        if external is not None:
            self.external = tuple(external)
        self._udp = _Table(self.behaviour.timeout)
        self._tcp = _Table(self.behaviour.tcp_timeout)
        self._pairs: dict[str, str] = {}
        self._last_port = self._rng.randrange(_WELL_KNOWN, _PORTS)

    def rebind(self) -> None:
        """Forget the mappings of UDP; who is mapped again gets another external port than it had."""
        before, self._udp = self._udp, _Table(self.behaviour.timeout)
        self._udp.retired = frozenset(before.inbound)

    def outbound(self, packet: Packet, now: float) -> Packet | None:
        """The packet as it leaves the site, None when no port is left for it."""
        _, source, destination, *_ = packet
        if ":" in destination.host:
            return packet
        table = self._table(packet)
        key = (source, self._key(destination))
        mapping = table.outbound.get(key)
        if mapping is None or mapping.expires <= now:
            if mapping is not None:
                table.remove(mapping)
            external = self._allocate(source, table, now)
            if external is None:
                return None
            mapping = _Mapping(source, external, key)
            table.add(mapping)
        mapping.expires = now + table.timeout
        if self._filters:
            mapping.remotes[self._remote(destination)] = mapping.expires
        return packet.between(mapping.external, destination)

    def inbound(self, packet: Packet, now: float) -> Packet | None:
        """The packet as it goes on to a host of the site, None when it is not let in."""
        _, source, destination, *_ = packet
        if ":" in destination.host:
            return packet
        table = self._table(packet)
        remote = self._remote(source)
        for mapping in table.inbound.get(destination, ()):
            if mapping.expires > now and (not self._filters or mapping.remotes.get(remote, 0.0) > now):
                if self.behaviour.refreshed_by_inbound:
                    mapping.expires = now + table.timeout
                    if self._filters:
                        mapping.remotes[remote] = mapping.expires
                return packet.between(source, mapping.internal)
        return None

    def hairpin(self, packet: Packet, now: float) -> Packet | None:
        """The packet from inside to an external address of this NAT as it goes on inside, None when it does not."""
        if self.behaviour.hairpinning is Hairpinning.OFF:
            return None
        outside = self.outbound(packet, now)
        inside = self.inbound(outside, now) if outside is not None else None
        if inside is not None and self.behaviour.hairpinning is Hairpinning.INTERNAL_SOURCE:
            return inside.between(packet.source, inside.destination)
        return inside

    def _table(self, packet: Packet) -> _Table:
        return self._udp if packet.protocol is Protocol.UDP else self._tcp

    def _allocate(self, internal: Address, table: _Table, now: float) -> Address | None:
        host = self._external_host(internal.host)
        same = Address(host, internal.port)
        if self.behaviour.ports is PortAllocation.OVERLOADED and same not in table.retired:
            return same
        for port in self._ports(internal.port):
            external = Address(host, port)
            if table.is_free(external, now):
                self._last_port = port
                return external
        return None

    def _external_host(self, internal: str) -> str:
        if len(self.external) == 1:
            return self.external[0]
        if self.behaviour.pooling is Pooling.ARBITRARY:
            return self._rng.choice(self.external)
        if internal not in self._pairs:
            self._pairs[internal] = self._rng.choice(self.external)
        return self._pairs[internal]

    def _ports(self, internal: int) -> Iterator[int]:
        """Every port that a mapping may get, in the order of preference."""
        if self.behaviour.ports is PortAllocation.PRESERVED:
            yield internal
        # RFC 4787 §4.2.1 (REQ-3): a port below 1024 says something of its owner, on either side.
        first, end = (1, _WELL_KNOWN) if internal < _WELL_KNOWN else (_WELL_KNOWN, _PORTS)
        step = 2 if self.behaviour.parity else 1
        if self.behaviour.parity and first % 2 != internal % 2:
            first += 1
        ports = range(first, end, step)
        if self.behaviour.ports is PortAllocation.SEQUENTIAL:
            start = (self._last_port - first) // step + 1
        else:
            start = self._rng.randrange(len(ports))
        for index in range(start, start + len(ports)):
            yield ports[index % len(ports)]


def _whole(address: Address) -> object:
    return address


def _host(address: Address) -> object:
    return address.host


def _nothing(address: Address) -> object:
    return None


DEPENDENCE: dict[Behaviour, Callable[[Address], object]] = {
    Behaviour.ENDPOINT_INDEPENDENT: _nothing,
    Behaviour.ADDRESS_DEPENDENT: _host,
    Behaviour.ADDRESS_AND_PORT_DEPENDENT: _whole,
}
"""What of the other side's address a mapping or a filter is told apart by."""
