"""The ICE agent and the gatherer, with strangers, and with a peer that knows the password and means no good."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from fuzz.mutation import mutate
from fuzz.target import Target, require
from fuzz.targets.stun import BODIES, any_attribute, complete
from quice.ice import Agent, Base, Candidate, CandidateKind, Gathered, Gatherer, GatheringComplete, Role
from quice.ice.checklist import CheckListState
from quice.ice.generation import MAX_REMOTE_CANDIDATES
from quice.stun import responses
from quice.stun.attributes import (
    Attribute,
    IceControlled,
    IceControlling,
    Priority,
    UseCandidate,
    Username,
    XorMappedAddress,
)
from quice.stun.message import Kind, Message, Method
from quice.wire import Address, Transmit

_UFRAG, _PWD = "peer", "0123456789abcdef012345"
_LOCAL = (Address("10.0.0.1", 5000), Address("2001:db8::1", 5000), Address("fe80::1%eth0", 5000))
_REMOTE = (
    Address("192.0.2.7", 6000),
    Address("192.0.2.7", 6001),
    Address("10.0.0.2", 6000),
    Address("2001:db8::7", 6000),
    Address("fe80::7%eth0", 6000),
    Address("127.0.0.1", 6000),
)
_NAMED = (
    *_REMOTE,
    Address("224.0.0.1", 1),
    Address("255.255.255.255", 1),
    Address("0.0.0.0", 1),
    Address("ff02::1", 1),
)
_NOWHERE = (Address("198.51.100.1", 0), Address("::", 0))
_SERVERS = (Address("192.0.2.1", 3478), Address("2001:db8::53", 3478))
_MOST_WAKES = 200
_LONGEST_GATHERING = 60.0


@dataclass
class _Session:
    """An agent, the time, and what it has sent."""

    rng: random.Random
    agent: Agent
    now: float = 0.0
    sent: list[Transmit] = field(default_factory=list)
    continual: bool = False
    """Whether the peer may be given another pair later."""

    def settle(self) -> None:
        """Take what the agent has to say, and look whether it may say that."""
        for transmit in self.agent.transmits():
            Message.decode(transmit.data)
            ip = ipaddress.ip_address(transmit.destination.host.partition("%")[0])
            require(not ip.is_multicast and not ip.is_unspecified, f"sent to {transmit.destination}")
            self.sent.append(transmit)
        list(self.agent.events())
        report = self.agent.report
        require(sum(pair.nominated for pair in report.pairs) <= 1, "a second selected pair")
        require(len(report.remote_candidates) <= MAX_REMOTE_CANDIDATES, "too many remote candidates")

    def receive(self, data: bytes, source: Address, destination: Address) -> None:
        """Hand the agent a datagram."""
        self.agent.receive(data, source, destination, self.now)

    def wake(self, until: float) -> None:
        """Let time pass. An agent that does not want to sleep again is caught."""
        wakes = 0
        while (time := self.agent.timeout()) is not None and time <= until:
            wakes = wakes + 1 if time <= self.now else 0
            require(wakes < _MOST_WAKES, "a timer that never stops")
            self.now = max(self.now, time)
            self.agent.handle_timeout(self.now)
            self.settle()
        self.now = max(self.now, until)


def _candidate(rng: random.Random, addresses: tuple[Address, ...], *, local: bool) -> Candidate:
    address = rng.choice(addresses)
    return Candidate(
        kind=rng.choice(list(CandidateKind)),
        address=address,
        priority=rng.choice((1, rng.getrandbits(31) or 1, (1 << 31) - 1)),
        foundation=rng.choice(("a", "b", "c")),
        base=address if local else None,
    )


def _noise(session: _Session) -> None:
    session.receive(mutate(session.rng, BODIES), session.rng.choice(_REMOTE), session.rng.choice(_LOCAL))


def _mutated_check(session: _Session) -> None:
    data = complete(session.rng, mutate(session.rng, BODIES[1:2]), session.agent.credentials.key)
    session.receive(data, session.rng.choice(_REMOTE), session.rng.choice(_LOCAL))


def _authentic_check(session: _Session) -> None:
    rng = session.rng
    identifier = rng.randbytes(12)
    role = rng.choice((IceControlling, IceControlled))(rng.choice((0, 1, rng.getrandbits(64), (1 << 64) - 1)))
    attributes: list[Attribute] = [
        Username(f"{session.agent.credentials.ufrag}:{_UFRAG}"),
        Priority(rng.getrandbits(32)),
        role,
    ]
    attributes += [UseCandidate()] * (rng.random() < 0.4)
    attributes += [any_attribute(rng, identifier) for _ in range(rng.randrange(3))]
    rng.shuffle(attributes)
    message = Message(Method.BINDING, Kind.REQUEST, identifier, tuple(attributes))
    source, own = rng.choice(_REMOTE), rng.choice(_LOCAL)
    if rng.random() < 0.2:
        source = Address("192.0.2.8", rng.randrange(1, 1 << 16))
    elif session.sent and rng.random() < 0.5:
        # On a pair that is being checked, so that nominations meet answers.
        asked = rng.choice(session.sent)
        source, own = asked.destination, asked.source or own
    session.receive(message.encode(session.agent.credentials.key), source, own)


def _answer(session: _Session) -> None:
    rng = session.rng
    if not session.sent:
        return
    asked = rng.choice(session.sent[-rng.choice((1, 3, 20)) :])
    request = Message.decode(asked.data)
    extra = tuple(any_attribute(rng, request.transaction_id) for _ in range(rng.randrange(2)))
    if rng.random() < 0.7:
        mapped = XorMappedAddress(rng.choice((*_LOCAL, *_NAMED, *_NOWHERE)))
        data = responses.success(request, mapped, *extra, key=_PWD.encode())
    else:
        data = responses.error(request, rng.choice((300, 400, 401, 420, 487, 500)), *extra, key=_PWD.encode())
    source = asked.destination if rng.random() < 0.85 else rng.choice(_REMOTE)
    own = asked.source if asked.source is not None and rng.random() < 0.9 else rng.choice(_LOCAL)
    session.receive(data, source, own)


def _mutated_answer(session: _Session) -> None:
    if session.sent:
        asked = session.rng.choice(session.sent[-20:])
        data = bytearray(complete(session.rng, mutate(session.rng, BODIES[3:8]), _PWD.encode()))
        session.receive(
            complete(session.rng, bytes(data[:8]) + asked.data[8:20] + bytes(data[20:]), _PWD.encode()),
            asked.destination,
            asked.source or _LOCAL[0],
        )


def _reflection(session: _Session) -> None:
    if session.sent:
        asked = session.rng.choice(session.sent)
        session.receive(asked.data, asked.destination, asked.source or _LOCAL[0])


def _remote_candidates(session: _Session) -> None:
    for _ in range(session.rng.choice((1, 1, 1, 100))):
        address = session.rng.choice(_NAMED)
        if session.rng.random() < 0.9:
            address = address._replace(port=session.rng.randrange(1, 1 << 16))
        session.agent.add_remote_candidate(_candidate(session.rng, (address,), local=False), session.now)


def _local_candidate(session: _Session) -> None:
    session.agent.add_local_candidate(_candidate(session.rng, _LOCAL, local=True), session.now)


def _credentials(session: _Session) -> None:
    # Now and then the peer restarts, or says that it is lite.
    ufrag = "again" if session.rng.random() < 0.05 else _UFRAG
    lite = session.rng.random() < 0.05
    session.agent.set_remote_credentials(ufrag, _PWD, session.now, lite=lite, ta=0.005, renomination=session.continual)


def _restart(session: _Session) -> None:
    session.agent.restart(session.now)


def _layer_above(session: _Session) -> None:
    agent = session.agent
    pair = agent.selected if session.rng.random() < 0.7 else next(iter(agent.pairs), None)
    if pair is not None:
        session.rng.choice((agent.pair_lost, agent.entrust, agent.nominate))(pair, session.now)


def _address_gone(session: _Session) -> None:
    session.agent.remove_local_base(session.rng.choice(_LOCAL), session.now)


def _ends(session: _Session) -> None:
    session.rng.choice((session.agent.end_of_local_candidates, session.agent.end_of_remote_candidates))(session.now)


def _time_passes(session: _Session) -> None:
    session.wake(session.now + session.rng.choice((0.0, 0.01, 0.05, 0.3, 2.0, 11.0)))


_STEPS: dict[Callable[[_Session], None], int] = {
    _noise: 2,
    _mutated_check: 4,
    _authentic_check: 8,
    _answer: 16,
    _mutated_answer: 4,
    _reflection: 1,
    _remote_candidates: 2,
    _local_candidate: 2,
    _credentials: 2,
    _ends: 1,
    _restart: 1,
    _layer_above: 2,
    _address_gone: 1,
    _time_passes: 8,
}


def _play_agent(rng: random.Random) -> None:
    agent = Agent(rng.choice(list(Role)), rng, 0.0, lite=rng.random() < 0.1)
    session = _Session(rng, agent, continual=rng.random() < 0.5)
    if rng.random() < 0.8:
        # Most sessions begin as they should, so that the steps have something to break.
        _credentials(session)
        for local in _LOCAL[: rng.randrange(1, 4)]:
            session.agent.add_local_candidate(_candidate(rng, (local,), local=True), 0.0)
        for remote in _REMOTE[: rng.randrange(1, 5)]:
            session.agent.add_remote_candidate(_candidate(rng, (remote,), local=False), 0.0)
    for step in rng.choices(list(_STEPS), list(_STEPS.values()), k=rng.randrange(1, 60)):
        step(session)
        session.settle()
    session.wake(session.now + 100.0)
    require(session.agent.report.state is not CheckListState.RUNNING, "an agent that still checks after 100 s")
    session.agent.close()
    session.settle()
    require(session.agent.timeout() is None, "a timer after closing")


def _play_gatherer(rng: random.Random) -> None:
    bases = [Base(address, rng.choice(("eth0", "docker0", ""))) for address in _LOCAL]
    gatherer = Gatherer(bases, _SERVERS[: rng.randrange(3)], rng, 0.0)
    now, ends = 0.0, 0
    sent: list[Transmit] = []
    while ends == 0:
        sent += gatherer.transmits()
        for event in gatherer.events():
            ends += isinstance(event, GatheringComplete)
            if isinstance(event, Gathered):
                require(0 < event.candidate.address.port < 1 << 16, f"a candidate at {event.candidate.address}")
        if sent and rng.random() < 0.6:
            asked = rng.choice(sent)
            request = Message.decode(asked.data)
            extra = tuple(any_attribute(rng, request.transaction_id) for _ in range(rng.randrange(3)))
            if rng.random() < 0.5:
                data = responses.success(request, *extra, XorMappedAddress(rng.choice((*_NAMED, *_NOWHERE))))
            elif rng.random() < 0.5:
                data = responses.error(request, rng.choice((300, 401, 438, 500)), *extra)
            else:
                data = complete(rng, mutate(rng, BODIES), None)
            gatherer.receive(data, asked.destination, asked.source or _LOCAL[0], now)
            continue
        time = gatherer.timeout()
        if time is not None:
            now = max(now, time)
            gatherer.handle_timeout(now)
        require(now < _LONGEST_GATHERING, "gathering without an end")


TARGETS = (Target("ice-agent", _play_agent), Target("ice-gatherer", _play_gatherer))
