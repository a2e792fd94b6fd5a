"""The requests to a TURN server that wait for an answer, and what answers teach: a nonce, and how long they take."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from quice.stun.attributes import Attribute
from quice.stun.auth import LongTerm
from quice.stun.message import HEADER_LENGTH, TRANSACTION_ID_LENGTH, Method
from quice.stun.transaction import DEFAULT_RTO, ClientTransaction, Outcome, Refused, TimedOut
from quice.wire import Address, Random, Transmit

PATIENCE = 8.0
"""Seconds for which an answer is waited for. At the first RTO a request is sent five times by then."""
_MIN_RTO = 0.1
_MAX_RTO = 3.0
_ID_AT = HEADER_LENGTH - TRANSACTION_ID_LENGTH

Then = Callable[[Outcome, float], None]


class RoundTrips:
    """When to send again: RFC 8489 §6.2.1 has this estimated as TCP does (RFC 6298 §2)."""

    def __init__(self) -> None:
        self._smoothed = 0.0
        self._variation = 0.0
        self.rto = DEFAULT_RTO

    def add(self, sample: float) -> None:
        """An answer took that many seconds."""
        if not self._smoothed:
            self._smoothed, self._variation = sample, sample / 2
        else:
            self._variation += (abs(self._smoothed - sample) - self._variation) / 4
            self._smoothed += (sample - self._smoothed) / 8
        self.rto = min(_MAX_RTO, max(_MIN_RTO, self._smoothed + 4 * self._variation))


@dataclass
class _Request:
    transaction: ClientTransaction
    then: Then


class Requests:
    """The requests from one address to one server. What is to be sent is in `outgoing`, in order."""

    def __init__(self, source: Address, server: Address, credentials: LongTerm, rng: Random, *, reliable: bool) -> None:
        self.source = source
        self.server = server
        self.credentials = credentials
        """With the realm and nonce that the server gave last."""
        self.heard = -math.inf
        """When the last answer came."""
        self.outgoing: deque[Transmit] = deque()
        self._rng = rng
        self._reliable = reliable
        self._waiting: list[_Request] = []
        self._round_trips = RoundTrips()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def ask(
        self, method: Method, attributes: tuple[Attribute, ...], then: Then, now: float, *, patience: float = PATIENCE
    ) -> None:
        """Send a request. `then` is called once, with the outcome and the time."""
        transaction = ClientTransaction(
            method,
            attributes,
            self.source,
            self.server,
            self._rng,
            now,
            rto=self._round_trips.rto,
            credentials=self.credentials,
            reliable=self._reliable,
            patience=patience,
        )
        self._waiting.append(_Request(transaction, then))
        self.outgoing += transaction.transmits()

    def receive(self, data: bytes, source: Address, destination: Address, now: float) -> bool:
        """Take in a message; returns whether it was an answer to one of these requests."""
        identifier = data[_ID_AT:HEADER_LENGTH]
        for request in self._waiting:
            transaction = request.transaction
            if transaction.transaction_id != identifier:
                continue
            took, before = transaction.round_trip(now), transaction.credentials
            if not transaction.receive(data, source, destination, now):
                return False
            challenged = transaction.credentials != before
            if challenged and isinstance(transaction.credentials, LongTerm):
                self.credentials = transaction.credentials
            if challenged or transaction.timeout() is None:
                self.heard = now
                if took is not None:
                    self._round_trips.add(took)
            self._advance(request, now)
            return True
        return False

    def timeout(self) -> float | None:
        """When `handle_timeout` wants to be called next."""
        return min((t for r in self._waiting if (t := r.transaction.timeout()) is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        """Send again what was not answered, or give it up."""
        for request in list(self._waiting):
            request.transaction.handle_timeout(now)
            self._advance(request, now)

    def abandon(self) -> None:
        """Wait for no answer any more."""
        self._waiting.clear()

    def drop(self) -> None:
        """Wait for no answer any more, and send nothing that has not been sent."""
        self.abandon()
        self.outgoing.clear()

    def move(self, server: Address, credentials: LongTerm) -> None:
        """Ask another server from now on."""
        self.drop()
        self.server = server
        self.credentials = credentials
        self._round_trips = RoundTrips()

    def _advance(self, request: _Request, now: float) -> None:
        self.outgoing += request.transaction.transmits()
        for outcome in request.transaction.events():
            # An earlier outcome in the same turn may have dropped it.
            if request in self._waiting:
                self._waiting.remove(request)
                request.then(_explained(outcome), now)


def _explained(outcome: Outcome) -> Outcome:
    """An unsigned error counts for what it says, once nothing better has come: pion/turn signs none."""
    if isinstance(outcome, TimedOut) and outcome.unsigned is not None:
        return Refused(outcome.unsigned)
    return outcome
