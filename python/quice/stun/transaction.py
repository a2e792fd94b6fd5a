"""A STUN client transaction over UDP: a request, its retransmissions, its end (RFC 8489 §6.2.1, §6.3, §9)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from quice.stun.attributes import Attribute, StunDecodeError
from quice.stun.auth import LongTerm, ShortTerm
from quice.stun.message import TRANSACTION_ID_LENGTH, Kind, Message, Method
from quice.wire import Address, Random, Transmit

# RFC 8489 §6.2.1: the defaults for UDP.
DEFAULT_RTO = 0.5
_RC = 7
_RM = 16
# A server that keeps asking for other credentials would keep us busy for ever.
_MAX_CHALLENGES = 2


@dataclass(frozen=True)
class Succeeded:
    """The server answered; `source` is where the answer came from."""

    response: Message
    source: Address


@dataclass(frozen=True)
class Refused:
    """The server answered with an error: `response.error` has code and reason; 300 names another server."""

    response: Message


@dataclass(frozen=True)
class TimedOut:
    """No answer came to any of the requests."""


Outcome = Succeeded | Refused | TimedOut


def transaction_id(rng: Random) -> bytes:
    """A new transaction id (§5: 96 bits, uniformly at random)."""
    return rng.getrandbits(8 * TRANSACTION_ID_LENGTH).to_bytes(TRANSACTION_ID_LENGTH, "big")


class ClientTransaction:
    """One request to one server, until it has an outcome. See `quice.wire` for the contract.

    rto: seconds until the first retransmission, doubled each time. With `LongTerm` credentials a 401 or 438 is
    answered by a new request, as §9.2.5 says.
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
    ) -> None:
        self.source = source
        self.destination = destination
        self.credentials = credentials
        self._method = method
        self._attributes = attributes
        self._rng = rng
        self._rto = rto
        self._challenges = 0
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
        self._request = message.encode(key, sha256=isinstance(credentials, LongTerm) and bool(credentials.algorithms))
        self._sent = 0
        self._wait = self._rto
        self._deadline = now
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
            or self._outcome is not None
        ):
            return False
        if response.kind is Kind.ERROR and self._challenge(response, now):
            return True
        must_verify = response.kind is Kind.SUCCESS or response.has_integrity
        if self._key is not None and must_verify and not response.verify(self._key):
            # §9.1.4, §9.2.5: a response that is not authentic is treated as if it had not come. An error may
            # be bare: the server could not know the key to sign it with.
            return True
        if response.kind is Kind.ERROR or response.unknown_required:
            self._finish(Refused(response))
        else:
            self._finish(Succeeded(response, source))
        return True

    def _challenge(self, response: Message, now: float) -> bool:
        """Try again with what a 401 or 438 asks for; returns whether there is a new request."""
        if not isinstance(self.credentials, LongTerm) or response.error.code not in (401, 438):
            return False
        if response.error.code == 401 and self.credentials.nonce:
            # §9.2.5: these credentials have been refused; the same again would be too.
            return False
        renewed = self.credentials.challenged(response)
        if renewed is None or self._challenges >= _MAX_CHALLENGES:
            return False
        self._challenges += 1
        self.credentials = renewed
        self._start(now)
        return True

    def timeout(self) -> float | None:
        """When `handle_timeout` wants to be called next."""
        return None if self._outcome is not None else self._deadline

    def handle_timeout(self, now: float) -> None:
        """Retransmit, or give up after Rc requests and Rm times RTO (§6.2.1)."""
        if self._outcome is not None or now < self._deadline:
            return
        if self._sent == _RC:
            self._finish(TimedOut())
            return
        self._outgoing.append(Transmit(self._request, self.source, self.destination))
        self._sent += 1
        self._deadline = now + (self._wait if self._sent < _RC else _RM * self._rto)
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
