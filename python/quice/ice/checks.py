"""Connectivity checks: STUN Binding transactions between two agents (RFC 8445 §7)."""

from __future__ import annotations

from dataclasses import dataclass

from quice.ice.pacing import RC, RM
from quice.ice.pair import CandidatePair
from quice.stun.attributes import (
    Attribute,
    IceControlled,
    IceControlling,
    Nomination,
    Priority,
    UseCandidate,
    Username,
)
from quice.stun.message import Kind, Message, Method

MAX_CANCELLED = 8
"""Checks of a pair that gave way to newer ones and whose answers would still count."""


@dataclass(frozen=True)
class Credentials:
    """What one agent's checks are authenticated with (§5.3): `pwd` is the key for checks sent to it."""

    ufrag: str
    pwd: str

    @property
    def key(self) -> bytes:
        return self.pwd.encode()


@dataclass(eq=False)
class Check:
    """A Binding request for a pair that is on its way."""

    pair: CandidatePair
    transaction_id: bytes
    request: bytes
    key: bytes
    """What the answer is authenticated with."""
    nominating: bool
    controlling: bool
    first_sent: float
    rto: float
    next_send: float = 0.0
    sent: int = 0
    expires: float = 0.0
    """When an answer counts no more, once the check has given way to another."""

    def count_sent(self, now: float) -> None:
        """Note that the request has gone out, and when it is due again (RFC 8489 §6.2.1)."""
        self.next_send = now + self.rto * (1 << self.sent if self.sent + 1 < RC else RM)
        self.sent += 1
        self.pair.checks_sent += 1

    @property
    def exhausted(self) -> bool:
        """Whether waiting for the last request's answer is all that is left."""
        return self.sent >= RC


class Checks:
    """The checks that are on their way: for a pair one that is repeated, and some that gave way to it."""

    def __init__(self) -> None:
        self._by_id: dict[bytes, Check] = {}
        self._current: dict[CandidatePair, Check] = {}

    def get(self, transaction_id: bytes) -> Check | None:
        """The check with this transaction id."""
        return self._by_id.get(transaction_id)

    def of(self, pair: CandidatePair) -> Check | None:
        """The check of the pair that is being repeated."""
        return self._current.get(pair)

    def is_current(self, check: Check) -> bool:
        """Whether the check has not given way to another."""
        return self._current.get(check.pair) is check

    def add(self, check: Check, now: float) -> None:
        """A check begins; the pair's former one gives way."""
        self.cancel(check.pair, now)
        self._by_id[check.transaction_id] = check
        self._current[check.pair] = check

    def cancel(self, pair: CandidatePair, now: float) -> None:
        """§7.3.1.4: the pair's check is repeated no more, but an answer still counts."""
        check = self._current.pop(pair, None)
        if check is None:
            return
        check.expires = check.first_sent + check.rto * ((1 << RC - 1) - 1 + RM)
        cancelled = [each for each in self._by_id.values() if each.pair is pair]
        for each in cancelled:
            if each.expires <= now:
                del self._by_id[each.transaction_id]
        for each in cancelled[:-MAX_CANCELLED]:
            self._by_id.pop(each.transaction_id, None)

    def end(self, check: Check) -> None:
        """The check has an outcome."""
        self._by_id.pop(check.transaction_id, None)
        if self.is_current(check):
            del self._current[check.pair]

    def forget(self, pair: CandidatePair) -> None:
        """No answer to a check of this pair counts any more."""
        self._current.pop(pair, None)
        for identifier in [i for i, check in self._by_id.items() if check.pair is pair]:
            del self._by_id[identifier]

    def free(self) -> None:
        """No answer to a check that gave way counts any more."""
        self._by_id = {i: check for i, check in self._by_id.items() if self.is_current(check)}

    def clear(self) -> None:
        """Forget all."""
        self._by_id.clear()
        self._current.clear()

    @property
    def next_due(self) -> float | None:
        """When the first check is to be repeated or given up."""
        return min((check.next_send for check in self._current.values()), default=None)

    def due(self, now: float) -> Check | None:
        """The check that is longest overdue."""
        check = min(self._current.values(), key=lambda check: check.next_send, default=None)
        return check if check is not None and check.next_send <= now else None

    @property
    def pairs(self) -> list[CandidatePair]:
        """The pairs that are being checked."""
        return list(self._current)

    def __len__(self) -> int:
        return len(self._by_id)


def request(
    transaction_id: bytes,
    local: Credentials,
    remote: Credentials,
    priority: int,
    *,
    controlling: bool,
    tie_breaker: int,
    nominate: bool,
    nomination: int = 0,
) -> bytes:
    """A check, as §7.2.2 composes it.

    priority: of the peer-reflexive candidate it may reveal (§7.1.1). nomination: the number of this nomination, 0 for
    the only one.
    """
    role: Attribute = IceControlling(tie_breaker) if controlling else IceControlled(tie_breaker)
    attributes: tuple[Attribute, ...] = (Username(f"{remote.ufrag}:{local.ufrag}"), Priority(priority), role)
    if nominate:
        attributes += (UseCandidate(),)
        if nomination:
            attributes += (Nomination(nomination),)
    return Message(Method.BINDING, Kind.REQUEST, transaction_id, attributes).encode(remote.key)


def keepalive(transaction_id: bytes) -> bytes:
    """A Binding indication that keeps NATs' bindings, with nothing but a fingerprint (§11)."""
    return Message(Method.BINDING, Kind.INDICATION, transaction_id).encode()


def called_ufrag(message: Message) -> str | None:
    """The ufrag of ours that a Binding request with all that a check needs was sent to (§7.3)."""
    username = message.get(Username)
    if (
        message.method is not Method.BINDING
        or message.kind is not Kind.REQUEST
        or not message.has_fingerprint
        or message.unknown_required
        or username is None
        or message.get(Priority) is None
    ):
        return None
    ours, colon, _ = username.value.partition(":")
    return ours if colon else None
