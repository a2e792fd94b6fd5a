"""Gathering candidates: host ones from the interfaces, server-reflexive ones by STUN (RFC 8445 §5.1.1)."""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from quice.ice.candidate import MAX_LOCAL_PREFERENCE, Candidate, CandidateKind, foundation, priority
from quice.ice.pacing import DEFAULT_TA, MIN_RTO, Pacer
from quice.stun.attributes import XorMappedAddress
from quice.stun.message import Method
from quice.stun.transaction import ClientTransaction, Succeeded
from quice.wire import Address, Random, Transmit

_LIMIT = 8.0
"""Seconds after which servers that have not answered are given up. By then a request was sent five times: with a loss
of a tenth each way, three leave one gathering in 150 without its public address."""
# Interfaces of containers, virtual machines, VPNs and tunnels: seldom the way to a peer, never the first.
_VIRTUAL = (
    "br-",
    "docker",
    "lxc",
    "podman",
    "tailscale",
    "tap",
    "tun",
    "utun",
    "veth",
    "virbr",
    "vmnet",
    "wg",
    "zt",
)


@dataclass(frozen=True)
class Base:
    """A local address to gather from, and the name of its interface."""

    address: Address
    interface: str = ""


@dataclass(frozen=True)
class ExternalAddress:
    """An address at which a local one is known outside, such as a cloud's 1:1 NAT gives it, with the same port.

    local: the IP address behind it; None for every one of its family. kind: what it is told to the peer as. A server
    reflexive one comes after the host candidates; a lite agent, which has host candidates alone, takes host.
    """

    host: str
    local: str | None = None
    kind: CandidateKind = CandidateKind.SERVER_REFLEXIVE

    def __post_init__(self) -> None:
        for host in (self.host, self.local):
            if host is not None:
                ipaddress.ip_address(host)

    def stands_for(self, base: Base) -> bool:
        """Whether this base is known by the address."""
        if self.local is not None:
            return self.local == base.address.host
        here = base.address.without_zone.ip
        unreachable = here.is_loopback or here.is_link_local
        return here.version == Address(self.host, 0).ip.version and not unreachable


InterfaceFilter = Callable[[Base], bool]
"""Whether to gather from a base, going by its interface's name or its address."""
CandidateFilter = Callable[[Candidate], bool]
"""Whether the session, and with it the peer, is to know a candidate."""


@dataclass(frozen=True)
class Gathered:
    """A candidate was found."""

    candidate: Candidate


@dataclass(frozen=True)
class GatheringComplete:
    """There will be no more."""


Event = Gathered | GatheringComplete


def is_virtual(interface: str) -> bool:
    """Whether an interface of this name is a container's, a virtual machine's, a VPN or a tunnel."""
    return interface.lower().startswith(_VIRTUAL)


def usable(bases: Sequence[Base], accepts: InterfaceFilter | None = None) -> list[Base]:
    """The bases to gather from: those the filter accepts, without addresses that RFC 8445 §5.1.1.1 excludes.

    A link-local IPv6 address is left out where the interface has another one: it would tell a peer what is meant to
    be hidden by those that change, and reach nobody else.
    """
    accepted = [base for base in bases if accepts is None or accepts(base)]
    routed = {base.interface for base in accepted if _scope(base) == "routed"}
    return [
        base
        for base in accepted
        if _scope(base) in ("routed", "ipv4") or (_scope(base) == "link" and base.interface not in routed)
    ]


def _scope(base: Base) -> str:
    ip = base.address.without_zone.ip
    if isinstance(ip, ipaddress.IPv4Address):
        return "ipv4"
    if ip.is_site_local or ip.ipv4_mapped is not None or (int(ip) >> 32 == 0 and not ip.is_loopback):
        return "excluded"
    return "link" if ip.is_link_local else "routed"


def ranked(bases: Sequence[Base]) -> list[tuple[Base, int]]:
    """The bases with their local preferences (RFC 8445 §5.1.2.2), all different.

    Real interfaces come before virtual ones. Within each, IPv6 and IPv4 take turns, IPv6 first, so that neither
    family's trouble holds up the other (RFC 8421 §4).
    """
    order: list[Base] = []
    for virtual in (False, True):
        group = [base for base in bases if is_virtual(base.interface) is virtual]
        v6 = [base for base in group if ":" in base.address.host]
        v4 = [base for base in group if ":" not in base.address.host]
        v6.sort(key=lambda base: base.address.without_zone.ip.is_link_local)
        while v6 or v4:
            order += [family.pop(0) for family in (v6, v4) if family]
    return [(base, MAX_LOCAL_PREFERENCE - index) for index, base in enumerate(order)]


class Gatherer:
    """Finds the candidates of a set of bases. See `quice.wire` for the contract."""

    def __init__(
        self,
        bases: Sequence[Base],
        servers: Sequence[Address],
        rng: Random,
        now: float,
        *,
        interfaces: InterfaceFilter | None = None,
        candidates: CandidateFilter | None = None,
        external: Sequence[ExternalAddress] = (),
        pacer: Pacer | None = None,
    ) -> None:
        """`servers`: STUN servers, by IP address; each is asked from every base of its family.

        interfaces, candidates: filters; what they refuse is neither used nor told. external: addresses that bases
        are known by outside. pacer: the one that all agents and gatherers of the program share.
        """
        order = ranked(usable(bases, interfaces))
        self._rng = rng
        self._accepts = candidates
        self._pacer = pacer or Pacer()
        self._preferences = {base.address: preference for base, preference in order}
        self._candidates: list[Candidate] = []
        self._asked: list[ClientTransaction] = []
        self._waiting = deque(
            (base.address, server) for server in servers for base, _ in order if _reaches(base.address, server)
        )
        self._next_slot = now
        self._deadline = now + _LIMIT
        self._done = False
        self._events: deque[Event] = deque()
        for base, preference in order:
            # RFC 4007 §6: a zone is a name within one machine, and no business of the peer's.
            self._add(CandidateKind.HOST, base.address.without_zone, base.address, "", preference)
        for base, preference in order:
            for address in external:
                if address.stands_for(base):
                    mapped = Address(address.host, base.address.port)
                    # §5.1.2.1: among candidates of one kind no preference comes twice.
                    lower = len(order) if address.kind is CandidateKind.HOST else 0
                    self._add(address.kind, mapped, base.address, address.host, preference - lower)
        self.handle_timeout(now)

    def receive(self, data: bytes, source: Address, destination: Address, now: float) -> bool:
        """Take in a datagram; returns whether it was an answer to one of our requests."""
        for transaction in self._asked:
            # An answer that came to another base is none to this one's request.
            if transaction.source == destination and transaction.receive(data, source, destination, now):
                self._collect(transaction)
                self._conclude(now)
                return True
        return False

    def timeout(self) -> float | None:
        """When `handle_timeout` wants to be called next."""
        if self._done:
            return None
        times = [self._deadline]
        if self._waiting:
            times.append(self._slot)
        times += [time for transaction in self._asked if (time := transaction.timeout()) is not None]
        return min(times)

    def handle_timeout(self, now: float) -> None:
        """Ask the next server, or again, or give up."""
        if self._waiting and now >= self._slot:
            base, server = self._waiting.popleft()
            transaction = ClientTransaction(Method.BINDING, (), base, server, self._rng, now, rto=MIN_RTO)
            self._asked.append(transaction)
            # RFC 8445 §14.1: one new transaction every Ta.
            self._next_slot = now + DEFAULT_TA
            self._pacer.take(now)
        for transaction in self._asked:
            transaction.handle_timeout(now)
            self._collect(transaction)
        self._conclude(now)

    def transmits(self) -> Iterator[Transmit]:
        """The datagrams to send, each once."""
        for transaction in self._asked:
            yield from transaction.transmits()

    def events(self) -> Iterator[Event]:
        """What was found, each once."""
        while self._events:
            yield self._events.popleft()

    @property
    def _slot(self) -> float:
        return max(self._next_slot, self._pacer.ready)

    def _collect(self, transaction: ClientTransaction) -> None:
        for outcome in transaction.events():
            if isinstance(outcome, Succeeded) and transaction.source is not None:
                mapped = outcome.response.get(XorMappedAddress)
                if mapped is not None and mapped.address.port:
                    server = transaction.destination.host
                    preference = self._preferences[transaction.source]
                    self._add(CandidateKind.SERVER_REFLEXIVE, mapped.address, transaction.source, server, preference)

    def _add(self, kind: CandidateKind, address: Address, base: Address, server: str, preference: int) -> None:
        # §5.1.3: of two candidates with one address and base, the lesser is redundant.
        if any(c.address == address and c.base == base for c in self._candidates):
            return
        candidate = Candidate(
            kind=kind,
            address=address,
            priority=priority(kind, preference),
            foundation=foundation(kind, base.host, server),
            related_address=None if kind is CandidateKind.HOST else base,
            base=base,
        )
        self._candidates.append(candidate)
        if self._accepts is None or self._accepts(candidate):
            self._events.append(Gathered(candidate))

    def _conclude(self, now: float) -> None:
        busy = self._waiting or any(transaction.timeout() is not None for transaction in self._asked)
        if not self._done and (not busy or now >= self._deadline):
            self._done = True
            self._waiting.clear()
            self._asked.clear()
            self._events.append(GatheringComplete())


def _reaches(base: Address, server: Address) -> bool:
    """Whether it makes sense to ask a server from a base."""
    here, there = base.without_zone.ip, server.without_zone.ip
    return (
        here.version == there.version
        and here.is_link_local == there.is_link_local
        and (
            # From loopback nothing but loopback can be reached.
            there.is_loopback or not here.is_loopback
        )
    )
