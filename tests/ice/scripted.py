"""An agent whose peer is the test: it composes every check and every answer itself."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from quice.ice import Agent, Candidate, CandidateKind, PairReport, PairState, Role
from quice.ice.events import Event
from quice.ice.pacing import DEFAULT_TA
from quice.stun.attributes import (
    ErrorCode,
    IceControlled,
    IceControlling,
    Priority,
    UseCandidate,
    Username,
    XorMappedAddress,
)
from quice.stun.message import Kind, Message, Method
from quice.stun.values import Attribute
from quice.wire import Address, Transmit
from tests.ice.network import host_candidate

BASE = Address("10.0.0.1", 5000)
UFRAG = "peer"
PWD = "the-peers-password-of-128-bits"
STRANGER = Address("198.51.100.66", 6666)
TIE_BREAKER = 1 << 62
"""The agent's own, so that a test can win or lose a conflict for sure."""


class FixedTieBreaker(random.Random):
    """Random, but for the first number of 64 bits, which is the agent's tie-breaker."""

    fixed: int | None = TIE_BREAKER

    def getrandbits(self, k: int, /) -> int:
        if k == 64 and self.fixed is not None:
            fixed, self.fixed = self.fixed, None
            return fixed
        return super().getrandbits(k)


@dataclass(frozen=True)
class Sent:
    """What the agent sent, and when."""

    time: float
    message: Message
    transmit: Transmit

    @property
    def to(self) -> Address:
        return self.transmit.destination

    @property
    def nominates(self) -> bool:
        return self.message.get(UseCandidate) is not None


def remote(number: int) -> Candidate:
    """The peer's candidate of that number, from 1 on: the lower, the better; each has a foundation of its own."""
    return Candidate(
        kind=CandidateKind.HOST,
        address=Address("192.0.2.1", 6000 + number),
        priority=2_000_000_000 - number,
        foundation=str(number),
    )


class Scripted:
    """An agent with one base, and `remotes` candidates of a peer that knows how to authenticate."""

    def __init__(
        self,
        role: Role = Role.CONTROLLING,
        *,
        remotes: int = 1,
        credentials: bool = True,
        renomination: bool = False,
        **options: Any,
    ) -> None:
        self.now = 0.0
        self.renomination = renomination
        self._kept: list[Sent] = []
        self.agent = Agent(role, FixedTieBreaker(1), self.now, **options)
        self.local = host_candidate(BASE)
        self.agent.add_local_candidate(self.local, self.now)
        for number in range(1, remotes + 1):
            self.agent.add_remote_candidate(remote(number), self.now)
        if credentials:
            self.learn_credentials()

    def learn_credentials(self) -> None:
        """Signalling brings the peer's ufrag and pwd."""
        self.agent.set_remote_credentials(UFRAG, PWD, self.now, ta=DEFAULT_TA, renomination=self.renomination)

    def sent(self) -> list[Sent]:
        """What the agent has sent since the last look."""
        kept, self._kept = self._kept, []
        return kept + [Sent(self.now, Message.decode(each.data), each) for each in self.agent.transmits()]

    def events(self) -> list[Event]:
        """What the agent has said since the last look."""
        return list(self.agent.events())

    def until(self, time: float) -> list[Sent]:
        """Go to that time, waking the agent whenever it wants; returns all that it sends on the way."""
        sent = self.sent()
        while (due := self.agent.timeout()) is not None and due <= time:
            self.now = max(self.now, due)
            self.agent.handle_timeout(self.now)
            sent += self.sent()
        self.now = time
        return sent

    def first_check(self) -> Sent:
        """Go to the next check that the agent sends."""
        while True:
            for sent in self.sent():
                if sent.message.kind is Kind.REQUEST:
                    return sent
            due = self.agent.timeout()
            assert due is not None, "no check is to come"
            self.now = max(self.now, due)
            self.agent.handle_timeout(self.now)

    def receive(self, data: bytes, source: Address, destination: Address = BASE) -> bool:
        """A datagram arrives."""
        return self.agent.receive(data, source, destination, self.now)

    def request(
        self,
        *,
        role: Role | None = None,
        tie_breaker: int = 0,
        nominate: bool = False,
        username: str = f"{{own}}:{UFRAG}",
        priority: int | None = 1_800_000_000,
        key: str | None = None,
        number: int = 1,
        fingerprint: bool = True,
        extra: tuple[Attribute, ...] = (),
    ) -> bytes:
        """A check of the peer's, right unless the test says otherwise.

        `username`: with `{own}` for the agent's ufrag; `number`: of the transaction.
        """
        own = self.agent.credentials
        if role is None:
            role = Role.CONTROLLED if self.agent.controlling else Role.CONTROLLING
        claim = IceControlling if role is Role.CONTROLLING else IceControlled
        attributes: list[Attribute] = [Username(username.format(own=own.ufrag))]
        if priority is not None:
            attributes.append(Priority(priority))
        attributes.append(claim(tie_breaker))
        if nominate:
            attributes.append(UseCandidate())
        message = Message(Method.BINDING, Kind.REQUEST, number.to_bytes(12, "big"), (*attributes, *extra))
        return message.encode((own.pwd if key is None else key).encode(), fingerprint=fingerprint)

    def check(self, source: Address, **options: object) -> list[Sent]:
        """A check of the peer's arrives; returns what answers it."""
        assert self.receive(self.request(**options), source)  # type: ignore[arg-type]
        sent = self.sent()
        self._kept = [each for each in sent if each.message.kind is Kind.REQUEST]
        return [each for each in sent if each.message.kind is not Kind.REQUEST]

    def answer(
        self,
        check: Sent,
        *,
        mapped: Address | None = BASE,
        source: Address | None = None,
        destination: Address = BASE,
        code: int | None = None,
        key: str = PWD,
        transaction: bytes | None = None,
        extra: tuple[Attribute, ...] = (),
    ) -> bool:
        """The peer answers a check: by a success, or by an error if there is a `code`."""
        kind = Kind.SUCCESS if code is None else Kind.ERROR
        attributes: tuple[Attribute, ...] = () if mapped is None else (XorMappedAddress(mapped),)
        if code is not None:
            attributes = (ErrorCode(code, "refused"),)
        identifier = check.message.transaction_id if transaction is None else transaction
        data = Message(Method.BINDING, kind, identifier, (*attributes, *extra)).encode(key.encode())
        return self.receive(data, check.to if source is None else source, destination)

    def pair(self, address: Address) -> PairReport:
        """The report on the pair with this remote address."""
        return next(pair for pair in self.agent.report.pairs if pair.remote.address == address)

    def state(self, number: int = 1) -> PairState:
        """The state of the pair with the peer's candidate of that number."""
        return self.pair(remote(number).address).state
