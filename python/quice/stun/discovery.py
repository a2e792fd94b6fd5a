"""How a NAT maps and filters (RFC 4787), found out by STUN (RFC 5780 §4).

A test asks a server with two addresses and two ports over one socket. Mapping and filtering are found out over two
sockets: what the one has spoken to would open the filter of the other.
"""

from __future__ import annotations

import enum
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from quice.stun.attributes import Attribute, ChangeRequest, OtherAddress, StunDecodeError, XorMappedAddress
from quice.stun.message import Kind, Message, Method
from quice.stun.responses import success
from quice.stun.transaction import DEFAULT_RTO, transaction_id
from quice.wire import Address, Random, Transmit

_TRIES = 3


class Behaviour(str, enum.Enum):
    """What a mapping or a filter depends on (RFC 4787 §4.1, §5)."""

    ENDPOINT_INDEPENDENT = "endpoint_independent"
    ADDRESS_DEPENDENT = "address_dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address_and_port_dependent"


@dataclass(frozen=True)
class Verdict:
    """How a NAT maps and filters, claimed or measured."""

    mapping: Behaviour
    filtering: Behaviour
    preserves_port: bool
    """Whether a host's port is also its port on the internet while that is free (RFC 4787 §4.2.1)."""


class DiscoveryError(Exception):
    """The server does not answer, or not as RFC 5780 asks."""


class Question(NamedTuple):
    """A Binding request to `server`. An answer counts when it comes from `answered_by`."""

    server: Address
    answered_by: Address
    attributes: tuple[Attribute, ...] = ()


T = TypeVar("T")
Questions = Generator[Question, Message | None, T]
"""One question after the other, each told its answer, and what they show in the end."""


def mapped(server: Address) -> Questions[Address]:
    """Find out the address that `server` sees the socket at."""
    return _get((yield Question(server, server)), XorMappedAddress)


def mapping(server: Address, local_port: int) -> Questions[tuple[Behaviour, bool]]:
    """RFC 5780 §4.3: one socket, three destinations. Also whether the first mapping kept the socket's port."""
    answer = yield Question(server, server)
    first, other = _get(answer, XorMappedAddress), _other(answer, server)
    preserves_port = first.port == local_port
    same_port = Address(other.host, server.port)
    second = _get((yield Question(same_port, same_port)), XorMappedAddress)
    if second == first:
        return Behaviour.ENDPOINT_INDEPENDENT, preserves_port
    third = _get((yield Question(other, other)), XorMappedAddress)
    if third == second:
        return Behaviour.ADDRESS_DEPENDENT, preserves_port
    return Behaviour.ADDRESS_AND_PORT_DEPENDENT, preserves_port


def filtering(server: Address) -> Questions[Behaviour]:
    """RFC 5780 §4.4: answers from elsewhere than was asked, to a socket that has asked nobody else."""
    other = _other((yield Question(server, server)), server)
    if (yield Question(server, other, (ChangeRequest(address=True, port=True),))) is not None:
        return Behaviour.ENDPOINT_INDEPENDENT
    other_port = Address(server.host, other.port)
    if (yield Question(server, other_port, (ChangeRequest(address=False, port=True),))) is not None:
        return Behaviour.ADDRESS_DEPENDENT
    return Behaviour.ADDRESS_AND_PORT_DEPENDENT


class Discovery(Generic[T]):
    """Asks questions over one socket. See `quice.wire` for the contract.

    wait: how many seconds an answer may take. A filter is told from a lost packet by three requests without one.
    """

    def __init__(self, questions: Questions[T], rng: Random, now: float, *, wait: float = DEFAULT_RTO) -> None:
        self.finished = False
        self._questions = questions
        self._rng = rng
        self._wait = wait
        self._outgoing: list[Transmit] = []
        self._found: T | None = None
        self._error: DiscoveryError | None = None
        self._resume(None, now)

    def result(self) -> T:
        """What was found out, once `finished`. Raises `DiscoveryError` when that was nothing."""
        if self._error is not None:
            raise self._error
        if self._found is None:
            raise RuntimeError("not finished")
        return self._found

    def receive(self, data: bytes, source: Address, destination: Address, now: float) -> None:
        """Take in a datagram."""
        try:
            response = Message.decode(data)
        except StunDecodeError:
            return
        if self.finished or response.transaction_id != self._id or response.kind is not Kind.SUCCESS:
            return
        if source == self._question.answered_by:
            self._resume(response, now)

    def timeout(self) -> float | None:
        """When `handle_timeout` wants to be called next."""
        return None if self.finished else self._deadline

    def handle_timeout(self, now: float) -> None:
        """Ask again, or do without an answer."""
        if self.finished or now < self._deadline:
            return
        if self._sent < _TRIES:
            self._send(now)
        else:
            self._resume(None, now)

    def transmits(self) -> Iterator[Transmit]:
        """The datagrams to send, each once."""
        while self._outgoing:
            yield self._outgoing.pop(0)

    def _resume(self, answer: Message | None, now: float) -> None:
        """Go on with what the last question brought."""
        try:
            self._question = self._questions.send(answer)
        except StopIteration as stop:
            self.finished = True
            self._found = stop.value
        except DiscoveryError as error:
            self.finished = True
            self._error = error
        else:
            self._id = transaction_id(self._rng)
            self._sent = 0
            self._send(now)

    def _send(self, now: float) -> None:
        request = Message(Method.BINDING, Kind.REQUEST, self._id, self._question.attributes)
        self._outgoing.append(Transmit(request.encode(), None, self._question.server))
        self._sent += 1
        self._deadline = now + self._wait


def answer(data: bytes, source: Address, asked: Address, other: Address) -> Transmit | None:
    """What a server with two addresses and two ports answers (RFC 5780 §6.1), None if nothing.

    asked: where the request came to; other: the server's other address with its other port.
    """
    try:
        request = Message.decode(data)
    except StunDecodeError:
        return None
    if request.method is not Method.BINDING or request.kind is not Kind.REQUEST:
        return None
    change = request.get(ChangeRequest) or ChangeRequest(address=False, port=False)
    sender = Address(other.host if change.address else asked.host, other.port if change.port else asked.port)
    return Transmit(success(request, XorMappedAddress(source), OtherAddress(other)), sender, source)


def _other(message: Message | None, server: Address) -> Address:
    """The server's other address. It must be one that the socket can send to."""
    other = _get(message, OtherAddress)
    if other.ip.version != server.ip.version or not other.port:
        raise DiscoveryError(f"the STUN server's other address {other} is not one to ask")
    return other


def _get(message: Message | None, kind: type[XorMappedAddress] | type[OtherAddress]) -> Address:
    if message is None:
        raise DiscoveryError("the STUN server does not answer")
    attribute = message.get(kind)
    if attribute is None:
        raise DiscoveryError(f"the STUN server's answer has no {kind.__name__}")
    return attribute.address
