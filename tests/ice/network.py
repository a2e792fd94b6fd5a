"""Two or more agents on a link under virtual time, each behind a NAT if a test wants one.

    network = Network(latency=0.05)
    one = network.host(Role.CONTROLLING, "10.0.0.1", Nat("198.51.100.1", port_restricted))
    two = network.host(Role.CONTROLLED, "10.0.0.2", Nat("203.0.113.1", port_restricted))
    network.introduce(one, two)
    network.advance(1.0)

Nothing here waits: `advance` jumps from one arrival or timer to the next.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from quice.ice import Agent, Candidate, CandidateKind, CandidatePair, Role
from quice.ice.candidate import MAX_LOCAL_PREFERENCE, foundation, priority
from quice.ice.checklist import CheckListState
from quice.ice.events import Event
from quice.stun.attributes import UseCandidate
from quice.stun.message import Kind, Message
from quice.wire import Address, Transmit

SERVER = Address("192.0.2.1", 3478)
PORT = 5000
# A machine that asks to be woken more often than this without time passing will never stop asking.
_MAX_WAKES = 200

EventT = TypeVar("EventT")

Filter = Callable[[set[Address], Address], bool]
"""Whether a NAT lets a packet in: the addresses that its mapping has sent to, and the packet's source (RFC 4787 §5)."""


def full_cone(sent_to: set[Address], source: Address) -> bool:
    """Endpoint-independent filtering."""
    return True


def address_restricted(sent_to: set[Address], source: Address) -> bool:
    """Address-dependent filtering."""
    return any(address.host == source.host for address in sent_to)


def port_restricted(sent_to: set[Address], source: Address) -> bool:
    """Address and port-dependent filtering."""
    return source in sent_to


class Nat:
    """A NAT with one external address. A symmetric one maps by destination (RFC 4787 §4.1)."""

    def __init__(self, host: str, lets_in: Filter, *, symmetric: bool = False) -> None:
        self._host = host
        self._lets_in = lets_in
        self._symmetric = symmetric
        self._ports = itertools.count(40001)
        self._external: dict[tuple[Address, Address | None], Address] = {}
        self._internal: dict[Address, tuple[Address, set[Address]]] = {}

    def outbound(self, source: Address, destination: Address) -> Address:
        """The address that a packet from inside leaves with."""
        key = source, destination if self._symmetric else None
        if key not in self._external:
            external = self._external[key] = Address(self._host, next(self._ports))
            self._internal[external] = source, set()
        external = self._external[key]
        self._internal[external][1].add(destination)
        return external

    def inbound(self, source: Address, destination: Address) -> Address | None:
        """The inside address that a packet from outside goes to, None if it is dropped."""
        inside, sent_to = self._internal.get(destination, (None, set()))
        return inside if inside is not None and self._lets_in(sent_to, source) else None


def host_candidate(address: Address, preference: int = MAX_LOCAL_PREFERENCE) -> Candidate:
    """A candidate of an interface."""
    return Candidate(
        kind=CandidateKind.HOST,
        address=address,
        priority=priority(CandidateKind.HOST, preference),
        foundation=foundation(CandidateKind.HOST, address.host),
        base=address,
    )


def reflexive_candidate(
    mapped: Address,
    base: Address,
    preference: int = MAX_LOCAL_PREFERENCE,
) -> Candidate:
    """A candidate that a STUN server told of."""
    return Candidate(
        kind=CandidateKind.SERVER_REFLEXIVE,
        address=mapped,
        priority=priority(CandidateKind.SERVER_REFLEXIVE, preference),
        foundation=foundation(CandidateKind.SERVER_REFLEXIVE, base.host, SERVER.host),
        related_address=base,
        base=base,
    )


@dataclass
class Host:
    """An agent, its addresses, and all that it has sent and said with the times."""

    agent: Agent
    addresses: tuple[Address, ...]
    nat: Nat | None = None
    candidates: list[Candidate] = field(default_factory=list)
    sent: list[tuple[float, Transmit]] = field(default_factory=list)
    events: list[tuple[float, Event]] = field(default_factory=list)

    def time_of(self, kind: type[EventT]) -> float:
        """When the first event of this kind came."""
        return next(time for time, event in self.events if isinstance(event, kind))

    def said(self, kind: type[EventT]) -> list[EventT]:
        """The events of this kind."""
        return [event for _, event in self.events if isinstance(event, kind)]

    def checks(self) -> list[tuple[float, Message, Transmit]]:
        """The requests among what was sent."""
        decoded = [(time, Message.decode(transmit.data), transmit) for time, transmit in self.sent]
        return [each for each in decoded if each[1].kind is Kind.REQUEST]

    @property
    def selected(self) -> CandidatePair:
        """The selected pair, which must be there."""
        pair = self.agent.selected
        assert pair is not None, f"nothing selected; {self.agent.report}"
        return pair


@dataclass(frozen=True)
class Packet:
    """A datagram between two external addresses; `number` counts those of its network."""

    number: int
    data: bytes
    source: Address
    destination: Address

    @property
    def message(self) -> Message:
        return Message.decode(self.data)

    @property
    def nominates(self) -> bool:
        return self.message.get(UseCandidate) is not None


Weather = Callable[[Packet], Iterable[float]]
"""What becomes of a packet: the extra delay of each copy that arrives, none for a lost one."""


class Network:
    """Hosts on one internet; a packet takes `latency` seconds from any to any."""

    def __init__(self, latency: float = 0.05, seed: int = 1, *, renomination: bool = False) -> None:
        """renomination: whether the agents agree on it, which is what standard ICE has not."""
        self.now = 0.0
        self.latency = latency
        self.renomination = renomination
        self.weather: Weather = lambda packet: (0.0,)
        self.hosts: list[Host] = []
        self.packets: list[tuple[float, Packet]] = []
        """All that was put on the wire, before the weather."""
        self._rng = random.Random(seed)
        self._flying: list[tuple[float, int, Packet]] = []
        self._order = itertools.count()

    def host(self, role: Role, ip: str | tuple[str, ...], nat: Nat | None = None, **options: Any) -> Host:
        """An agent on a new host, with its host candidates and, behind a NAT, the server-reflexive ones."""
        ips = (ip,) if isinstance(ip, str) else ip
        addresses = tuple(Address(each, PORT) for each in ips)
        agent = Agent(role, random.Random(self._rng.getrandbits(64)), self.now, **options)
        host = Host(agent, addresses, nat)
        for index, address in enumerate(addresses):
            preference = MAX_LOCAL_PREFERENCE - index
            host.candidates.append(host_candidate(address, preference))
            if nat is not None:
                mapped = nat.outbound(address, SERVER)
                host.candidates.append(reflexive_candidate(mapped, address, preference))
        for candidate in host.candidates:
            agent.add_local_candidate(candidate, self.now)
        agent.end_of_local_candidates(self.now)
        self.hosts.append(host)
        return host

    def tell(self, listener: Host, speaker: Host) -> None:
        """Signalling: `listener` learns the candidates and the password of `speaker`."""
        self.tell_credentials(listener, speaker)
        for candidate in speaker.candidates:
            listener.agent.add_remote_candidate(candidate, self.now)
        listener.agent.end_of_remote_candidates(self.now)
        self._collect(listener)

    def tell_credentials(self, listener: Host, speaker: Host) -> None:
        """Signalling: `listener` learns what `speaker` says of itself, but for its candidates."""
        agent = speaker.agent
        listener.agent.set_remote_credentials(
            agent.credentials.ufrag,
            agent.credentials.pwd,
            self.now,
            lite=agent.lite,
            ta=agent.proposed_ta,
            renomination=self.renomination,
        )

    def introduce(self, one: Host, two: Host) -> None:
        """Signalling both ways, at once."""
        self.tell(one, two)
        self.tell(two, one)

    def inject(self, data: bytes, source: Address, destination: Address) -> None:
        """Put a datagram of anyone's on the wire."""
        packet = Packet(len(self.packets), data, source, destination)
        self.packets.append((self.now, packet))
        for delay in self.weather(packet):
            heapq.heappush(self._flying, (self.now + self.latency + delay, next(self._order), packet))

    def advance(self, seconds: float) -> None:
        """Let that much time pass."""
        end = self.now + seconds
        while (due := self._next()) is not None and due <= end:
            self.now = max(self.now, due)
            self._step()
        self.now = end

    def drive(self, limit: float = 60.0) -> None:
        """Let time pass until nothing flies and every agent has come to an end. `limit`: seconds."""
        end = self.now + limit
        while (due := self._next()) is not None and (self._flying or self._is_running):
            assert due <= end, f"still busy after {limit} s"
            self.now = max(self.now, due)
            self._step()

    @property
    def _is_running(self) -> bool:
        return any(host.agent.report.state is CheckListState.RUNNING for host in self.hosts)

    def _next(self) -> float | None:
        times = [time for host in self.hosts if (time := host.agent.timeout()) is not None]
        if self._flying:
            times.append(self._flying[0][0])
        return min(times, default=None)

    def _step(self) -> None:
        while self._flying and self._flying[0][0] <= self.now:
            self._deliver(heapq.heappop(self._flying)[2])
        for host in self.hosts:
            for _ in range(_MAX_WAKES):
                time = host.agent.timeout()
                if time is None or time > self.now:
                    break
                host.agent.handle_timeout(self.now)
            else:
                raise AssertionError("the agent asks to be woken again and again")
            self._collect(host)

    def _deliver(self, packet: Packet) -> None:
        for host in self.hosts:
            inside = packet.destination
            if host.nat is not None:
                inside = host.nat.inbound(packet.source, packet.destination) or inside
            if inside in host.addresses and (host.nat is None or inside != packet.destination):
                host.agent.receive(packet.data, packet.source, inside, self.now)
                self._collect(host)
                return

    def _collect(self, host: Host) -> None:
        host.events += [(self.now, event) for event in host.agent.events()]
        for transmit in host.agent.transmits():
            host.sent.append((self.now, transmit))
            source = transmit.source
            assert source in host.addresses, f"sent from {source}, which is not this host's"
            if host.nat is not None:
                source = host.nat.outbound(source, transmit.destination)
            self.inject(transmit.data, source, transmit.destination)


def assert_agreed(one: Host, two: Host) -> None:
    """Both have selected, and a packet on either's pair arrives at the other as one of its pair."""
    for here, there in ((one, two), (two, one)):
        pair = here.selected
        source = here.nat.outbound(pair.base, pair.remote.address) if here.nat is not None else pair.base
        assert source == there.selected.remote.address
        assert sum(each.nominated for each in here.agent.report.pairs) == 1
