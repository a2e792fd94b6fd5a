"""Connectivity checks: STUN Binding transactions between two agents (RFC 8445 §7)."""

from __future__ import annotations

from dataclasses import dataclass

from quice.ice.pair import CandidatePair
from quice.stun.attributes import (
    Attribute,
    IceControlled,
    IceControlling,
    Priority,
    UseCandidate,
    Username,
)
from quice.stun.message import Kind, Message, Method

# RFC 8445 §14.3 would wait 500 ms at least, for the sake of many media streams at once. There is one component
# here, paced by Ta: a check that a NAT dropped, since the peer had not sent through it yet, is soon repeated.
INITIAL_RTO = 0.1
MAX_RTO = 1.6
MAX_REQUESTS = 8
"""Sent at 0, 0.1, 0.3, 0.7, 1.5, 3.1, 4.7 and 6.3 s; given up at 7.9 s."""


@dataclass(frozen=True)
class Credentials:
    """What one agent's checks are authenticated with (§5.3): `pwd` is the key for checks sent to it."""

    ufrag: str
    pwd: str

    @property
    def key(self) -> bytes:
        return self.pwd.encode()


@dataclass
class Check:
    """A Binding request for a pair that is on its way."""

    pair: CandidatePair
    transaction_id: bytes
    request: bytes
    nominating: bool
    controlling: bool
    first_sent: float
    next_send: float
    rto: float = INITIAL_RTO
    sent: int = 0
    cancelled: bool = False
    """RFC 8445 §7.3.1.4: not retransmitted any more, but an answer still counts."""

    def count_sent(self, now: float) -> None:
        """Note that the request has gone out, and when it is due again."""
        self.sent += 1
        self.pair.checks_sent += 1
        self.next_send = now + self.rto
        self.rto = min(2 * self.rto, MAX_RTO)

    @property
    def exhausted(self) -> bool:
        """Whether waiting for the last request's answer is all that is left."""
        return self.sent >= MAX_REQUESTS


def request(
    transaction_id: bytes,
    local: Credentials,
    remote: Credentials,
    priority: int,
    *,
    controlling: bool,
    tie_breaker: int,
    nominate: bool,
) -> bytes:
    """A check, as §7.2.2 composes it. `priority`: of the peer-reflexive candidate it may reveal (§7.1.1)."""
    role: Attribute = IceControlling(tie_breaker) if controlling else IceControlled(tie_breaker)
    attributes: tuple[Attribute, ...] = (Username(f"{remote.ufrag}:{local.ufrag}"), Priority(priority), role)
    if nominate:
        attributes += (UseCandidate(),)
    return Message(Method.BINDING, Kind.REQUEST, transaction_id, attributes).encode(remote.key)


def is_authentic_request(message: Message, local: Credentials) -> bool:
    """Whether a Binding request is for us, and from someone who knows our password (§7.3, RFC 8489 §9.1.3)."""
    username = message.get(Username)
    return (
        message.method is Method.BINDING
        and message.kind is Kind.REQUEST
        and message.has_fingerprint
        and not message.unknown_required
        and username is not None
        and username.value.startswith(local.ufrag + ":")
        and message.get(Priority) is not None
        and message.verify(local.key)
    )
