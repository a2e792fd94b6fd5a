"""An endpoint's own candidates: found once it is bound, kept fresh, and known when a session begins (RFC 8445 §5.1)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quice.driver import Driver
from quice.ice import Base, Candidate, Gathered, Gatherer, GatheringComplete, Pacer
from quice.ice.gather import CandidateFilter, Event, ExternalAddress, InterfaceFilter
from quice.wire import Address, Random, Transmit

_REFRESH = 20.0
"""Seconds between two rounds of questions to the STUN servers. RFC 4787 §4.3 lets NATs forget a binding after two
minutes; many do after thirty seconds."""

Listener = Callable[[Candidate | None], None]
"""Told of each candidate that is found after it began to listen, and of None when no more will come for now."""


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

    A session that waited for its STUN servers would start a round trip late; so this has asked before.
    """

    def __init__(
        self,
        bases: Callable[[], Sequence[Base]],
        send: Callable[[Transmit], None],
        rng: Random,
        exposure: Exposure,
    ) -> None:
        """`bases`: the addresses to gather from, as they are now."""
        self._bases = bases
        self.exposure = exposure
        self._send = send
        self._rng = rng
        self.pacer = Pacer()
        """Of this endpoint's questions, and of its sessions' checks (RFC 8445 §14.2)."""
        self._loop = asyncio.get_running_loop()
        self._servers: tuple[Address, ...] = ()
        self._listeners: list[Listener] = []
        self._driver: Driver[Event] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._round: list[Candidate] = []
        self.candidates: list[Candidate] = []
        """Those that are known to be true now."""
        self.is_complete = False

    def start(self, servers: Sequence[Address]) -> None:
        """Gather, asking these STUN servers; those asked before are forgotten."""
        self._servers = tuple(servers)
        self._begin()

    def receive(self, data: bytes, source: Address, destination: Address) -> bool:
        """Feed a STUN datagram; returns whether it was an answer to a question of ours."""
        return self._driver is not None and self._driver.receive(data, source, destination)

    def listen(self, listener: Listener) -> None:
        """Call with what is found from now on."""
        self._listeners.append(listener)

    def unlisten(self, listener: Listener) -> None:
        """Call no more, if it was called."""
        self._listeners = [each for each in self._listeners if each != listener]

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

    def _handle(self, event: Event) -> None:
        match event:
            case Gathered(candidate):
                self._round.append(candidate)
                if candidate not in self.candidates:
                    self.candidates.append(candidate)
                    self._tell(candidate)
            case GatheringComplete():
                # What this round did not find again is true no more.
                self.candidates = list(self._round)
                if not self.is_complete:
                    self.is_complete = True
                    self._tell(None)

    def _tell(self, found: Candidate | None) -> None:
        for listener in list(self._listeners):
            listener(found)
