"""A STUN client transaction: a request, its retransmissions over UDP, its end (RFC 8489 §6.2, §6.3, §9)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from quice.stun.attributes import AlternateDomain, AlternateServer, Attribute, ErrorCode, StunDecodeError
from quice.stun.auth import LongTerm, ShortTerm, is_bid_down
from quice.stun.message import TRANSACTION_ID_LENGTH, Kind, Message, Method
from quice.wire import Address, Random, Transmit, random_bytes

# RFC 8489 §6.2.1: the defaults for UDP.
DEFAULT_RTO = 0.5
_RC = 7
_RM = 16
# §6.2.2: over a stream nothing is retransmitted, and this is how long an answer may take.
_TI = 39.5
# Seconds that an authentic answer has to make it known that an unsigned error was not the server's.
_DOUBT = 1.0
# A server that keeps asking for other credentials would keep us busy for ever.
_MAX_CHALLENGES = 2
_TRY_ALTERNATE = 300
_CHALLENGES = (401, 438)


@dataclass(frozen=True)
class Succeeded:
    """The server answered; `source` is where the answer came from."""

    response: Message
    source: Address


@dataclass(frozen=True)
class Refused:
    """The server answered with an error: `response.error` has code and reason."""

    response: Message


@dataclass(frozen=True)
class Redirected:
    """The server names another one, of the same address family, to be asked instead (§10).

    `domain`: the name that the other server's certificate has to be for, over TLS and DTLS.
    """

    response: Message
    server: Address
    domain: str | None


@dataclass(frozen=True)
class Incomprehensible:
    """The server's answer has attributes that must be understood and are not, or is an error without a code."""

    response: Message


@dataclass(frozen=True)
class TimedOut:
    """No answer came to any of the requests, or, with `integrity_violated`, none that was authentic (§9.1.4).

    unsigned: an error response without any signature. Some servers sign success alone, so that it may be the reason.
    """

    integrity_violated: bool = False
    unsigned: Message | None = field(default=None, compare=False)


Outcome = Succeeded | Refused | Redirected | Incomprehensible | TimedOut


def transaction_id(rng: Random) -> bytes:
    """A new transaction id (§5: 96 bits, uniformly at random)."""
    return random_bytes(rng, TRANSACTION_ID_LENGTH)


class ClientTransaction:
    """One request to one server, until it has an outcome. See `quice.wire` for the contract.

    rto: seconds until the first retransmission, doubled each time. reliable: over a stream, where there is none.
    patience: seconds after which it is given up, where the RFC's are too many. With `LongTerm` credentials a 401 or
    438 is answered by a new request, as §9.2.5 says.
    """

    def __init__(
        self,
        method: Method,
        attributes: tuple[Attribute, ...],
        source: Address | None,
        destination: Address,
        rng: Random,
        now: float,
        *,
        rto: float = DEFAULT_RTO,
        credentials: ShortTerm | LongTerm | None = None,
        reliable: bool = False,
        patience: float = math.inf,
    ) -> None:
        self.source = source
        self.destination = destination
        self.credentials = credentials
        self.is_signed = False
        """Whether the request as it was last sent carries credentials."""
        self._method = method
        self._attributes = attributes
        self._rng = rng
        self._rto = rto
        self._most = 1 if reliable else _RC
        self._last_wait = _TI if reliable else _RM * rto
        self._patience = patience
        self._challenges = 0
        self._integrity_violated = False
        self._unsigned: Message | None = None
        self._outgoing: list[Transmit] = []
        self._outcome: Outcome | None = None
        self._reported = False
        self._start(now)

    def _start(self, now: float) -> None:
        self.transaction_id = transaction_id(self._rng)
        credentials = self.credentials
        attributes = self._attributes
        key: bytes | None = None
        if isinstance(credentials, ShortTerm) or (credentials is not None and credentials.nonce):
            attributes += credentials.attributes()
            key = credentials.key
        message = Message(self._method, Kind.REQUEST, self.transaction_id, attributes)
        self._key = key
        self.is_signed = key is not None
        self._sha256 = isinstance(credentials, LongTerm) and bool(credentials.algorithms)
        self._request = message.encode(key, sha256=self._sha256)
        self._sent = 0
        self._first_sent = now
        self._wait = self._rto
        self._deadline = now
        self._expires = now + self._patience
        self.handle_timeout(now)

    def receive(self, data: bytes, source: Address, destination: Address, now: float) -> bool:
        """Take in a datagram; returns whether it belongs to this transaction."""
        try:
            response = Message.decode(data)
        except StunDecodeError:
            return False
        if (
            response.transaction_id != self.transaction_id
            or response.method != self._method
            or response.kind not in (Kind.SUCCESS, Kind.ERROR)
            or source != self.destination
        ):
            return False
        if self._outcome is None:
            self._judge(response, source, now)
        return True

    def _judge(self, response: Message, source: Address, now: float) -> None:
        """End the transaction, begin it anew, or pass over a response that has to be."""
        if isinstance(self.credentials, LongTerm):
            if response.kind is Kind.ERROR and response.error.code in _CHALLENGES:
                # §9.2.4: the server can't sign these, for it does not know us yet.
                self._answer_challenge(self.credentials, response, now)
                return
            if is_bid_down(response):
                return
        if self._key is not None and not (response.has_sha256 == self._sha256 and response.verify(self._key)):
            # §9.1.4, §9.2.5: as if it had not come. The next one may be authentic.
            self._integrity_violated = True
            if response.kind is Kind.ERROR and not response.has_integrity and isinstance(self.credentials, LongTerm):
                self._unsigned = response
                self._expires = min(self._expires, now + _DOUBT)
                self._deadline = min(self._deadline, self._expires)
            return
        if response.unknown_required or (response.kind is Kind.ERROR and response.get(ErrorCode) is None):
            # §6.3.3, §6.3.4.
            self._finish(Incomprehensible(response))
        elif response.kind is Kind.SUCCESS:
            self._finish(Succeeded(response, source))
        else:
            self._finish(self._redirection(response) or Refused(response))

    def _answer_challenge(self, credentials: LongTerm, response: Message, now: float) -> None:
        """Try again with what a 401 or 438 asks for, where that makes sense."""
        renewed = credentials.challenged(response)
        if renewed is None or self._challenges >= _MAX_CHALLENGES:
            self._finish(Refused(response))
            return
        self._challenges += 1
        self.credentials = renewed
        self._outgoing.clear()
        self._start(now)

    def _redirection(self, response: Message) -> Redirected | None:
        """Where a 300 leads to. One that nobody has signed leads nowhere (§14.8), nor one to another family (§10)."""
        server = response.get(AlternateServer)
        if response.error.code != _TRY_ALTERNATE or self._key is None or server is None:
            return None
        if server.address.ip.version != self.destination.ip.version:
            return None
        domain = response.get(AlternateDomain)
        return Redirected(response, server.address, domain.value if domain is not None else None)

    def round_trip(self, now: float) -> float | None:
        """Seconds since the request was sent; None if it was sent more than once, so that none of them can be told
        to be the one that an answer is for (RFC 6298 §3)."""
        return now - self._first_sent if self._sent == 1 else None

    def timeout(self) -> float | None:
        """When `handle_timeout` wants to be called next."""
        return None if self._outcome is not None else self._deadline

    def handle_timeout(self, now: float) -> None:
        """Retransmit, or give up after Rc requests and Rm times RTO (§6.2.1), over a stream after Ti (§6.2.2)."""
        if self._outcome is not None or now < self._deadline:
            return
        if self._sent == self._most or now >= self._expires:
            self._finish(TimedOut(self._integrity_violated, self._unsigned))
            return
        self._outgoing.append(Transmit(self._request, self.source, self.destination))
        self._sent += 1
        self._deadline = min(self._expires, now + (self._wait if self._sent < self._most else self._last_wait))
        self._wait *= 2

    def transmits(self) -> Iterator[Transmit]:
        """The datagrams to send, each once."""
        while self._outgoing:
            yield self._outgoing.pop(0)

    def events(self) -> Iterator[Outcome]:
        """The outcome, once."""
        if self._outcome is not None and not self._reported:
            self._reported = True
            yield self._outcome

    def _finish(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._outgoing.clear()
