"""Gathering candidates: host ones from the interfaces, server-reflexive ones by STUN (RFC 8445 §5.1.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from quice.ice.candidate import MAX_LOCAL_PREFERENCE, Candidate, CandidateKind, foundation, priority
from quice.ice.pacing import DEFAULT_TA, MIN_RTO
from quice.stun.attributes import XorMappedAddress
from quice.stun.message import Method
from quice.stun.transaction import ClientTransaction, Succeeded
from quice.wire import Address, Random, Transmit

_LIMIT = 10.0
"""Seconds after which servers that have not answered are given up."""
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
class Gathered:
    """A candidate was found."""

    candidate: Candidate


@dataclass(frozen=True)
class GatheringComplete:
    """There will be no more."""


Event = Gathered | GatheringComplete


def ranked(bases: Sequence[Base]) -> list[tuple[Base, int]]:
    """The bases with their local preferences (RFC 8445 §5.1.2.2), all different.

    Real interfaces come before virtual ones. Within each, IPv6 and IPv4 take turns, IPv6 first, so that neither
    family's trouble holds up the other (RFC 8421 §4).
    """
    order: list[Base] = []
    for virtual in (False, True):
        group = [base for base in bases if base.interface.lower().startswith(_VIRTUAL) is virtual]
        v6 = [base for base in group if ":" in base.address.host]
        v4 = [base for base in group if ":" not in base.address.host]
        v6.sort(key=lambda base: base.address.without_zone.ip.is_link_local)
        while v6 or v4:
            order += [family.pop(0) for family in (v6, v4) if family]
    return [(base, MAX_LOCAL_PREFERENCE - index) for index, base in enumerate(order)]


class Gatherer:
    """Finds the candidates of a set of bases. See `quice.wire` for the contract."""

    def __init__(self, bases: Sequence[Base], servers: Sequence[Address], rng: Random, now: float) -> None:
        """`servers`: STUN servers, by IP address; each is asked from every base of its family."""
        self._rng = rng
        self._preferences = {base.address: preference for base, preference in ranked(bases)}
        self._candidates: list[Candidate] = []
        self._asked: list[ClientTransaction] = []
        self._waiting = [
            (base.address, server) for server in servers for base, _ in ranked(bases) if _reaches(base.address, server)
        ]
        self._next_slot = now
        self._deadline = now + _LIMIT
        self._done = False
        self._events: list[Event] = []
        for base, _ in ranked(bases):
            # RFC 4007 §6: a zone is a name within one machine, and no business of the peer's.
            address = base.address.without_zone
            self._add(CandidateKind.HOST, address, base.address, "")
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
            times.append(self._next_slot)
        times += [time for transaction in self._asked if (time := transaction.timeout()) is not None]
        return min(times)

    def handle_timeout(self, now: float) -> None:
        """Ask the next server, or again, or give up."""
        if self._waiting and now >= self._next_slot:
            base, server = self._waiting.pop(0)
            transaction = ClientTransaction(Method.BINDING, (), base, server, self._rng, now, rto=MIN_RTO)
            self._asked.append(transaction)
            # RFC 8445 §14.1: one new transaction every Ta.
            self._next_slot = now + DEFAULT_TA
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
            yield self._events.pop(0)

    def _collect(self, transaction: ClientTransaction) -> None:
        for outcome in transaction.events():
            if isinstance(outcome, Succeeded) and transaction.source is not None:
                mapped = outcome.response.get(XorMappedAddress)
                if mapped is not None and mapped.address.port:
                    server = transaction.destination.host
                    self._add(CandidateKind.SERVER_REFLEXIVE, mapped.address, transaction.source, server)

    def _add(self, kind: CandidateKind, address: Address, base: Address, server: str) -> None:
        # §5.1.3: of two candidates with one address and base, the lesser is redundant.
        if any(c.address == address and c.base == base for c in self._candidates):
            return
        candidate = Candidate(
            kind=kind,
            address=address,
            priority=priority(kind, self._preferences[base]),
            foundation=foundation(kind, base.host, server),
            related_address=None if kind is CandidateKind.HOST else base,
            base=base,
        )
        self._candidates.append(candidate)
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
