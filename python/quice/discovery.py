"""An endpoint's own candidates: found once it is bound, kept fresh, and known when a session begins (RFC 8445 §5.1)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quice.driver import Driver
from quice.ice import Base, Candidate, CandidateKind, Gathered, Gatherer, GatheringComplete, Pacer
from quice.ice.gather import CandidateFilter, ExternalAddress, InterfaceFilter
from quice.ice.gather import Event as GathererEvent
from quice.wire import Address, Random, Transmit

_REFRESH = 20.0
"""Seconds between two rounds of questions to the STUN servers. RFC 4787 §4.3 lets NATs forget a binding after two
minutes; many do after thirty seconds."""


@dataclass(frozen=True)
class Withdrawn:
    """A candidate is true no more: its address is gone, or its relay."""

    candidate: Candidate


Event = Gathered | Withdrawn | GatheringComplete
Listener = Callable[[Event], None]
"""Told of what happens after it began to listen."""


@dataclass(frozen=True)
class Exposure:
    """Which addresses an endpoint uses, and which it tells peers of; `Endpoint.bind` says what each field means."""

    interfaces: InterfaceFilter | None = None
    candidates: CandidateFilter | None = None
    external: tuple[ExternalAddress, ...] = ()
    lite: bool = False

    def accepts(self, candidate: Candidate) -> bool:
        """Whether a candidate is to be used and told of."""
        if self.lite and candidate.base is not None and candidate.address == candidate.base.without_zone:
            # Nobody checks from here, so what is told must be what others reach.
            behind = Base(candidate.base)
            if any(each.stands_for(behind) for each in self.external):
                return False
        return self.candidates is None or self.candidates(candidate)


class Discovery:
    """Gathers candidates from an endpoint's addresses, again and again for as long as it lives.

    A session that waited for its STUN servers would start a round trip late; so this has asked before. Relayed
    candidates are brought by `quice.relaying`.
    """

    def __init__(
        self,
        bases: Callable[[], Sequence[Base]],
        send: Callable[[Transmit], None],
        rng: Random,
        exposure: Exposure,
        remapped: Callable[[], None] = lambda: None,
    ) -> None:
        """`bases`: the addresses to gather from, as they are now. `remapped`: called when a NAT is found to have given
        this endpoint another address or port than before."""
        self._bases = bases
        self.exposure = exposure
        self._send = send
        self._rng = rng
        self._remapped = remapped
        self.pacer = Pacer()
        """Of this endpoint's questions, and of its sessions' checks (RFC 8445 §14.2)."""
        self._loop = asyncio.get_running_loop()
        self._servers: tuple[Address, ...] = ()
        self._listeners: list[Listener] = []
        self._driver: Driver[GathererEvent] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._round: list[Candidate] = []
        self._gathered: list[Candidate] = []
        self._doubted: list[Candidate] = []
        """What NATs have called us before the network was seen to change, or a peer to be silent."""
        self._relayed: list[Candidate] = []
        self._relays_are_awaited = False
        self._is_gathered = False

    @property
    def candidates(self) -> list[Candidate]:
        """Those that are known to be true now."""
        return self._gathered + self._relayed

    @property
    def is_complete(self) -> bool:
        """Whether no more will come for now."""
        return self._is_gathered and not self._relays_are_awaited

    def start(self, servers: Sequence[Address]) -> None:
        """Gather, asking these STUN servers; those asked before are forgotten."""
        self._servers = tuple(servers)
        self._begin()

    def start_again(self) -> None:
        """The network may have changed: gather anew, and tell nobody meanwhile what may be true no more."""
        here = [base.address for base in self._bases()]
        gone = [candidate for candidate in self._gathered if candidate.base not in here]
        kept = [candidate for candidate in self._gathered if candidate.base in here]
        # A peer that is told of a stale one checks it before the others of its foundation (RFC 8445 §6.1.2.6).
        self._gathered = [candidate for candidate in kept if not _is_mapped(candidate)]
        self._doubted = [candidate for candidate in kept if _is_mapped(candidate)]
        for candidate in gone:
            self._tell(Withdrawn(candidate))
        self._is_gathered = False
        self._begin()

    def await_relays(self, awaited: bool) -> None:
        """Relays have been asked, or none of them is asked any more."""
        before, self._relays_are_awaited = self.is_complete, awaited
        if self.is_complete and not before:
            self._tell(GatheringComplete())

    def add(self, candidate: Candidate) -> None:
        """A relay has given us this address."""
        if self.exposure.accepts(candidate):
            self._relayed.append(candidate)
            self._tell(Gathered(candidate))

    def withdraw(self, candidate: Candidate) -> None:
        """The relay does so no more."""
        if candidate in self._relayed:
            self._relayed.remove(candidate)
            self._tell(Withdrawn(candidate))

    def receive(self, data: bytes, source: Address, destination: Address) -> bool:
        """Feed a STUN datagram; returns whether it was an answer to a question of ours."""
        return self._driver is not None and self._driver.receive(data, source, destination)

    def listen(self, listener: Listener) -> None:
        """Call with what happens from now on."""
        self._listeners.append(listener)

    def unlisten(self, listener: Listener) -> None:
        """Call no more, if it was called."""
        self._listeners = [each for each in self._listeners if each != listener]

    async def settle(self, patience: float) -> None:
        """Wait until gathering is complete, or for so many seconds."""
        complete = self._loop.create_future()

        def note(event: Event) -> None:
            if isinstance(event, GatheringComplete) and not complete.done():
                complete.set_result(None)

        if not self.is_complete:
            self.listen(note)
            try:
                await asyncio.wait([complete], timeout=patience)
            finally:
                self.unlisten(note)

    def close(self) -> None:
        """Ask nobody any more."""
        self._stop()
        self._listeners.clear()

    def _begin(self) -> None:
        self._stop()
        self._round = []
        gatherer = Gatherer(
            self._bases(),
            self._servers,
            self._rng,
            self._loop.time(),
            candidates=self.exposure.accepts,
            external=self.exposure.external,
            pacer=self.pacer,
        )
        self._driver = Driver(gatherer, self._send, self._handle)
        if self._servers:
            self._timer = self._loop.call_later(_REFRESH, self._begin)
        self._driver.step()

    def _stop(self) -> None:
        if self._driver is not None:
            self._driver.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _handle(self, event: GathererEvent) -> None:
        match event:
            case Gathered(candidate):
                self._round.append(candidate)
                # With fewer addresses beside it, it ranks otherwise than in the round before.
                known = [each for each in self._gathered if _is_same(each, candidate)]
                if known:
                    self._gathered[self._gathered.index(known[0])] = candidate
                else:
                    moved = self._displace(candidate)
                    self._gathered.append(candidate)
                    self._tell(event)
                    if moved:
                        self._remapped()
            case GatheringComplete():
                self._end_round()

    def _displace(self, candidate: Candidate) -> bool:
        """Withdraw what the same server has seen instead before; returns whether there was such a candidate."""
        if not _is_mapped(candidate):
            return False
        # RFC 8445 §5.1.1.3: the foundation tells base and server.
        alike = [each for each in self._gathered + self._doubted if each.foundation == candidate.foundation]
        former = [each for each in alike if each not in self._round]
        self._gathered = [each for each in self._gathered if each not in former]
        return bool(former) and candidate not in former

    def _end_round(self) -> None:
        # What this round did not find again is true no more.
        gone = [candidate for candidate in self._gathered if candidate not in self._round]
        self._gathered = list(self._round)
        self._doubted = []
        for candidate in gone:
            self._tell(Withdrawn(candidate))
        before, self._is_gathered = self.is_complete, True
        if self.is_complete and not before:
            self._tell(GatheringComplete())

    def _tell(self, event: Event) -> None:
        for listener in list(self._listeners):
            listener(event)


def _is_same(one: Candidate, other: Candidate) -> bool:
    """Whether a peer that is told of both is told of one way."""
    return (one.kind, one.address, one.base) == (other.kind, other.address, other.base)


def _is_mapped(candidate: Candidate) -> bool:
    """Whether it is what a NAT makes of our address."""
    return candidate.kind is CandidateKind.SERVER_REFLEXIVE
