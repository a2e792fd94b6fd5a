"""One negotiation of two peers: candidates exchanged and checked, tied together on asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

from quice.connection import Connection
from quice.discovery import Event as DiscoveryEvent
from quice.discovery import Withdrawn
from quice.driver import Driver
from quice.errors import NoPathError, RefusedError, SignallingClosedError, SignallingError, SignallingViolationError
from quice.ice import (
    Agent,
    Budget,
    Candidate,
    CandidatePair,
    Failed,
    Gathered,
    GatheringComplete,
    PairValid,
    Report,
    Role,
    Selected,
)
from quice.ice.agent import PATIENCE
from quice.ice.candidate import CandidateKind, foundation, priority
from quice.ice.events import Event
from quice.machine import this_machine
from quice.policy import Policy
from quice.signal.checked import CheckedSignalling
from quice.signal.interface import Signalling
from quice.signal.messages import (
    NAME_LENGTH,
    VERSION,
    Answer,
    Bye,
    CandidateFound,
    Description,
    DescriptionFields,
    EndOfCandidates,
    Establish,
    Message,
    Offer,
    Opening,
    Refuse,
    Restart,
    SignalDecodeError,
    public,
)
from quice.signal.session import Exchange, Side, State, Verdict
from quice.surroundings import Surroundings
from quice.wire import Address, random_bytes


class Observer(Protocol):
    """What a session tells of the pairs that it checks."""

    def on_pairs(self, pairs: Iterable[CandidatePair]) -> None:
        """There may be new pairs; these are all, the best first."""

    def on_valid(self, pair: CandidatePair) -> None:
        """A check of the pair was answered: packets pass both ways."""

    def on_selected(self, pair: CandidatePair) -> None:
        """Both agents know that this is the pair."""

    def on_failed(self, error: Exception) -> None:
        """No pair will work: `NoPathError`, `RefusedError` or a `SignallingError`."""


# What an attempt's first destination connection id is made of: the session's tag, and what makes it unique. Others make
# them of 8, 16 or 20 bytes.
_TAG = NAME_LENGTH
_UNIQUE = 9
_FINAL = (RefusedError, SignallingViolationError)
# RFC 8445 §7.1.1 has checks tell the priority; QUIC tells none, so it is the lowest of its kind.
_REVEALED_PRIORITY = priority(CandidateKind.PEER_REFLEXIVE, 0)


def tag_of(initial_id: bytes | None) -> bytes | None:
    """The tag of the session that a handshake says it belongs to; None if it does not say so."""
    return initial_id[:_TAG] if initial_id is not None and len(initial_id) == _TAG + _UNIQUE else None


class Introduced(Observer, Protocol):
    """What a session is for: it is told more than other observers, and before them."""

    def begin(self, opening: Opening, answer: Answer) -> None:
        """Both sides have described themselves; pairs are told from now on."""

    def on_heard(self, source: Address) -> None:
        """A check or an answer has come from this address of the peer's."""

    def on_hung_up(self) -> None:
        """The peer will say no more: it has what it wants, or has given up."""


class Session:
    """The life of one offer or restart, on either side. The surroundings feed it datagrams by `receive`."""

    def __init__(
        self,
        surroundings: Surroundings,
        signalling: Signalling,
        purpose: Introduced,
        *,
        controls: bool,
        budget: Budget,
        policy: Policy = Policy.AUTO,
        opening: Offer | Restart | None = None,
        patience: float | None = None,
    ) -> None:
        """`controls`: whether this side's agent has the controlling role. `budget`: the peer's, for checks of what it
        names. `opening`: the peer's, if it is the peer who initiates. `patience`: seconds for which the peer may not
        have begun; by default it begins at once."""
        self._loop = asyncio.get_running_loop()
        self._surroundings = surroundings
        self._discovery = surroundings.discovery
        self._relays = surroundings.relays
        self._signalling = CheckedSignalling(signalling)
        self._purpose = purpose
        self._policy = policy
        self._observer: Observer = purpose
        self._exchange = Exchange(Side.INITIATING if opening is None else Side.RESPONDING)
        if opening is not None:
            self._exchange.receive(opening)
        role = Role.CONTROLLING if controls else Role.CONTROLLED
        lite, pacer = self._discovery.exposure.lite, self._discovery.pacer
        self._agent = Agent(
            role,
            this_machine().random,
            self._loop.time(),
            lite=lite,
            patience=PATIENCE if patience is None else patience,
            insistent=patience is not None,
            pacer=pacer,
            budget=budget,
        )
        self._driver = Driver(self._agent, surroundings.send, self._on_event)
        self._outbox: asyncio.Queue[Message] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._opening = opening
        self._is_introduced = False
        self._failed = False
        self._entrusted = False
        surroundings.join(self)

    @property
    def ufrag(self) -> str:
        """Ours."""
        return self._agent.credentials.ufrag

    @property
    def report(self) -> Report:
        """What is known so far."""
        return self._agent.report

    @property
    def tag(self) -> bytes:
        """What names the session to both sides."""
        initiating = self._opening or self._agent.credentials
        return hashlib.sha256(f"{initiating.ufrag}:{initiating.pwd}".encode()).digest()[:_TAG]

    def new_initial_id(self) -> bytes:
        """What an attempt of this session begins with."""
        return self.tag + random_bytes(this_machine().random, _UNIQUE)

    @property
    def is_answered(self) -> bool:
        """Whether both sides have described themselves."""
        return self._is_introduced

    async def offer(self, alpn: str, establish: Establish = Establish.INITIATOR) -> None:
        """Offer a connection, and begin to exchange and to check. Raises `SignallingError`."""
        await self._initiate(Offer(version=VERSION, alpn=alpn, establish=establish, **self._describe_ourselves()))

    async def restart(self, continues: bytes, heard: tuple[str, ...]) -> None:
        """Offer to negotiate the connection of this name anew, and do so. Raises `SignallingError`."""
        await self._initiate(Restart(version=VERSION, continues=continues, heard=heard, **self._describe_ourselves()))

    async def respond(self) -> None:
        """Answer the peer's offer or restart, and begin to exchange and to check. Raises `SignallingError`."""
        opening = self._opening
        assert opening is not None
        answer = Answer(**self._describe_ourselves())
        # The relay must let the peer in by the time it has our answer, and it is nearer.
        self._permit(opening)
        # The answer first: the peer's checks and handshake wait for it.
        await self._send(answer)
        self._is_introduced = True
        self._purpose.begin(opening, answer)
        self._take_description(opening)
        self._start_exchange()

    def receive(self, data: bytes, source: Address, destination: Address) -> bool:
        """Take in a STUN datagram; returns whether it was for this session."""
        if self._policy is Policy.RELAY and not self._relays.is_relayed(destination):
            # An answer would tell the peer an address of ours.
            return False
        taken = self._driver.receive(data, source, destination)
        if taken:
            # A check may have revealed an address of the peer's that nobody has named.
            self._observer.on_pairs(self._agent.pairs)
            self._purpose.on_heard(source)
        return taken

    @property
    def pairs(self) -> tuple[CandidatePair, ...]:
        """The pairs there are, the best first."""
        return self._agent.pairs

    def observe(self, observer: Observer) -> None:
        """Tell another observer from now on."""
        self._observer = observer

    def pair_of(self, connection: Connection) -> CandidatePair | None:
        """The pair that a connection is on which the peer has made."""
        for path in connection.paths[:1]:
            for pair in self.pairs:
                if pair.remote.address == path.remote and path.local in (None, pair.base):
                    return pair
        return None

    def learn(self, remote: Address) -> None:
        """QUIC has come from this address of the peer's: if nobody has named it, it is a peer-reflexive candidate."""
        name = foundation(CandidateKind.PEER_REFLEXIVE, str(remote))
        candidate = Candidate(
            kind=CandidateKind.PEER_REFLEXIVE, address=remote.without_zone, priority=_REVEALED_PRIORITY, foundation=name
        )
        self._agent.add_remote_candidate(candidate, self._loop.time())
        self._step()

    @property
    def selected(self) -> CandidatePair | None:
        """The pair that both agents agree on."""
        return self._agent.selected

    def use(self, pair: CandidatePair) -> None:
        """QUIC is established on this pair: nominate it."""
        self._agent.nominate(pair, self._loop.time())
        self._driver.step()

    def entrust(self) -> None:
        """QUIC is established, and finds out by itself when the peer is gone (RFC 7675 §5.1 leaves that to it)."""
        self._entrusted = True
        if (selected := self._agent.selected) is not None:
            self._agent.entrust(selected, self._loop.time())
            self._driver.step()

    def pair_lost(self, pair: CandidatePair, instead: CandidatePair | None) -> None:
        """QUIC gets no answer on this pair any more, and goes on with another, if there is one."""
        self._agent.pair_lost(pair, self._loop.time(), instead)
        self._driver.step()

    async def hang_up(self) -> None:
        """End the signalling; checks go on with what is known."""
        self._discovery.unlisten(self._on_discovery)
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._end_signalling()

    async def close(self) -> None:
        """End the session."""
        self._surroundings.leave(self)
        self._driver.close()
        self._agent.close()
        await self.hang_up()

    async def _initiate(self, opening: Offer | Restart) -> None:
        self._opening = opening
        await self._send(opening)
        self._start_exchange()

    def _describe_ourselves(self) -> DescriptionFields:
        agent = self._agent
        return DescriptionFields(
            ufrag=agent.credentials.ufrag,
            pwd=agent.credentials.pwd,
            candidates=self._take_candidates(),
            lite=agent.lite,
            pacing=round(agent.proposed_ta * 1000),
            renomination=True,
        )

    def _take_candidates(self) -> tuple[Candidate, ...]:
        """The candidates known by now, which go out at once; those found later follow one by one (RFC 8838)."""
        now = self._loop.time()
        known = [candidate for candidate in self._discovery.candidates if self._policy.uses(candidate)]
        for candidate in known:
            self._agent.add_local_candidate(candidate, now)
        if self._discovery.is_complete:
            self._on_discovery(GatheringComplete())
        self._discovery.listen(self._on_discovery)
        return tuple(self._told(candidate) for candidate in known)

    def _told(self, candidate: Candidate) -> Candidate:
        return public(self._policy.told(candidate))

    def _on_discovery(self, event: DiscoveryEvent) -> None:
        now = self._loop.time()
        match event:
            case Gathered(candidate) if self._policy.uses(candidate):
                self._agent.add_local_candidate(candidate, now)
                self._outbox.put_nowait(CandidateFound(candidate=self._told(candidate), ufrag=self.ufrag))
                self._step()
            case GatheringComplete():
                self._agent.end_of_local_candidates(now)
                self._outbox.put_nowait(EndOfCandidates(ufrag=self.ufrag))
            case Withdrawn(candidate) if candidate.kind in (CandidateKind.HOST, CandidateKind.RELAYED):
                self._agent.remove_local_base(candidate.sent_from, now)
                self._driver.step()
            case _:
                # What a NAT has called us is not what we send from.
                pass

    def _start_exchange(self) -> None:
        for run in (self._send_messages, self._receive_messages):
            self._tasks.append(asyncio.create_task(self._guarded(run)))

    async def _guarded(self, run: Callable[[], Awaitable[None]]) -> None:
        try:
            await run()
        except (SignallingError, SignalDecodeError, RefusedError) as error:
            self._purpose.on_hung_up()
            # What was exchanged may do, and checks from the peer may still come: only these two are final.
            if isinstance(error, _FINAL) or not self._agent.report.remote_candidates:
                self._fail(SignallingError.not_understood(error) if isinstance(error, SignalDecodeError) else error)

    async def _send(self, message: Message) -> None:
        if self._exchange.state is State.GONE:
            raise SignallingClosedError
        self._exchange.send(message)
        await self._signalling.send(message)

    async def _end_signalling(self) -> None:
        """Say that the session is over, if there is anybody to say it to, and hear nothing more."""
        with contextlib.suppress(SignallingError):
            if self._exchange.may_send(Bye()):
                await self._send(Bye())
        await self._signalling.close()

    async def _send_messages(self) -> None:
        while True:
            message = await self._outbox.get()
            # An endpoint may find more candidates than a session may name.
            if self._exchange.may_send(message):
                await self._send(message)

    async def _receive_messages(self) -> None:
        try:
            while True:
                self._judge(await self._signalling.receive())
        except (SignalDecodeError, SignallingViolationError):
            # Nobody reads any more what such a peer says.
            await self._end_signalling()
            raise

    def _judge(self, message: Message) -> None:
        match self._exchange.receive(message):
            case Verdict.TAKE:
                self._take(message)
            case Verdict.END:
                raise SignallingViolationError(type(message).__name__)
            case Verdict.IGNORE:
                pass

    def _take(self, message: Message) -> None:
        match message:
            case Answer():
                self._take_answer(message)
            case CandidateFound():
                self._take_candidate(message.candidate, message.ufrag)
                self._step()
            case EndOfCandidates():
                self._agent.end_of_remote_candidates(self._loop.time(), message.ufrag)
            case Refuse():
                raise RefusedError(message.reason.value, message.text)
            case Bye() if not self._is_introduced:
                raise SignallingClosedError
            case Bye():
                self._purpose.on_hung_up()
            case _:
                # An opening is what a session is made with.
                pass

    def _take_answer(self, answer: Answer) -> None:
        assert self._opening is not None
        self._is_introduced = True
        self._permit(answer)
        self._purpose.begin(self._opening, answer)
        self._take_description(answer)

    def _take_description(self, description: Description) -> None:
        # First the credentials, to whose generation the candidates belong.
        self._agent.set_remote_credentials(
            description.ufrag,
            description.pwd,
            self._loop.time(),
            lite=description.lite,
            ta=description.pacing / 1000,
            renomination=description.renomination,
        )
        for candidate in description.candidates:
            self._take_candidate(candidate)
        self._step()

    def _take_candidate(self, candidate: Candidate, ufrag: str | None = None) -> None:
        if self._policy.tries(candidate):
            self._relays.permit(self, [candidate.address])
            self._agent.add_remote_candidate(candidate, self._loop.time(), ufrag)

    def _permit(self, description: Description) -> None:
        """Have our relays let the peer in."""
        self._relays.permit(self, [each.address for each in description.candidates if self._policy.tries(each)])

    def _step(self) -> None:
        """After new candidates: new pairs, and checks of them."""
        self._driver.step()
        self._observer.on_pairs(self._agent.pairs)

    def _on_event(self, event: Event) -> None:
        match event:
            case PairValid(pair):
                self._observer.on_valid(pair)
            case Selected(pair):
                if self._entrusted:
                    self._agent.entrust(pair, self._loop.time())
                self._observer.on_selected(pair)
            case Failed(reason):
                self._fail(NoPathError(reason))
            case _:
                pass

    def _fail(self, error: Exception) -> None:
        if not self._failed:
            self._failed = True
            self._observer.on_failed(error)
