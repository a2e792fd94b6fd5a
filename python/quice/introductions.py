"""How an endpoint and its peers come together: sessions that end in a connection, and those that go on with one."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

from quice import _native
from quice.budgets import HANDSHAKE
from quice.challenges import Improvement
from quice.connection import Connection
from quice.errors import (
    ConnectTimeoutError,
    EndpointClosedError,
    HandshakeError,
    NoPathError,
    SignallingError,
)
from quice.ice import CandidateKind, CandidatePair
from quice.identity import PeerId
from quice.meeting import Meeting, refuse
from quice.path import Places
from quice.policy import Policy
from quice.session import Session
from quice.signal.checked import CheckedSignalling
from quice.signal.interface import Signalling
from quice.signal.messages import (
    VERSION,
    Establish,
    Offer,
    Opening,
    Refuse,
    RefuseReason,
    Restart,
    SignalDecodeError,
)
from quice.surroundings import Surroundings
from quice.upkeep import Upkeep
from quice.wire import Address

_HANDSHAKE_TIMEOUT = 10.0
"""Seconds from the choice of a pair to the handshake of the peer who began the session: it follows at once."""
_MAX_RESPONSES = 64
_MAX_RESPONSES_TO_ONE = 16
"""Sessions of peers that are answered at once: of all, and of one, who is not to keep others out."""
_PACKET = 1200


class Beginner(Protocol):
    """What begins a handshake."""

    def __call__(
        self,
        peer: PeerId,
        alpn: str,
        address: Address,
        local: str | None = None,
        race: int | None = None,
        initial_id: bytes | None = None,
    ) -> Connection:
        """Raises `HandshakeError` when there is nothing to begin with, and `_native.RaceWon`."""


class Introductions:
    """All sessions of an endpoint, on both sides."""

    def __init__(
        self,
        us: PeerId,
        alpns: tuple[str, ...],
        surroundings: Surroundings,
        improvement: Improvement,
        policy: Policy,
        *,
        begin: Beginner,
        offer: Callable[[Connection], None],
        connections: Callable[[], Iterable[Connection]],
    ) -> None:
        """`policy`: for the connections that peers make. `offer` has one accepted; `connections`: those there are."""
        self.us = us
        self.alpns = alpns
        self.surroundings = surroundings
        self._improvement = improvement
        self.policy = policy
        self._begin = begin
        self._offer = offer
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._races = itertools.count(1)
        self._meetings: dict[bytes, Meeting] = {}
        self._responding: Counter[PeerId] = Counter()
        self._closed = False

    def close(self) -> None:
        """Begin and answer no more."""
        self._closed = True

    async def reach(
        self, peer: PeerId, alpn: str, signalling: Signalling, timeout: float, establish: Establish, policy: Policy
    ) -> Connection:
        """Connect by candidates; `Endpoint.connect` says what it raises."""
        try:
            self.raise_if_confined(policy)
        except NoPathError:
            await CheckedSignalling(signalling).close()
            raise
        meeting, session = self.meet(peer, alpn, signalling, policy)
        try:
            connection = await asyncio.wait_for(self._initiate(session, meeting, alpn, establish), timeout)
        except BaseException as error:
            meeting.close()
            await self.end(session)
            if isinstance(error, asyncio.TimeoutError):
                reason = "no pair of candidates was found to work"
                raise ConnectTimeoutError(timeout, self.with_relays(reason)) from None
            if isinstance(error, NoPathError):
                raise self.explained(error, policy) from None
            raise
        self.settle(session, meeting, connection, policy)
        return connection

    async def respond(self, peer: PeerId, signalling: Signalling) -> None:
        """Take part in a session that `peer` begins; see `Endpoint.respond`."""
        signalling = CheckedSignalling(signalling)
        try:
            match await signalling.receive():
                case Opening(version=version) if version != VERSION:
                    await signalling.send(Refuse(reason=RefuseReason.VERSION))
                case Offer() as offer:
                    if (refusal := self._refusal(peer, offer)) is None:
                        await self._respond(peer, offer, signalling)
                        return
                    await signalling.send(refusal)
                case Restart() as restart:
                    if (upkeep := self._kept(peer, restart.continues)) is not None:
                        await upkeep.answer(signalling, restart)
                        return
                    await signalling.send(Refuse(reason=RefuseReason.GONE))
                case _:
                    pass
        except BaseException as error:
            await signalling.close()
            if isinstance(error, SignalDecodeError):
                raise SignallingError.not_understood(error) from None
            raise
        await signalling.close()

    def accompany(self, connection: Connection, policy: Policy, *, leads: bool) -> None:
        """A connection was made straight to an address: from now on it is looked after."""
        improve = self._improvement.lead if leads else self._improvement.follow
        connection._paths = improve(connection._native, self.surroundings)
        if connection._paths is None and connection._control is not None:
            upkeep = Upkeep(self.surroundings, connection, leads=leads, policy=policy)
            if not all(path.remote.ip.is_loopback for path in connection.paths):
                upkeep.begin_alone()

    def on_handshake(self, connection: Connection, tag: bytes | None) -> None:
        """A peer has made this connection, for the session with this tag or for none."""
        if tag is None:
            self.accompany(connection, self.policy, leads=False)
            self._offer(connection)
        elif (meeting := self._meetings.get(tag)) is not None:
            meeting.on_handshake(connection)
        else:
            refuse(connection)

    def raise_if_confined(self, policy: Policy) -> None:
        """Raise `NoPathError` if the policy leaves no way at all."""
        if policy is Policy.RELAY and not self.surroundings.relays.are_there:
            raise NoPathError("this endpoint has no relay", policy.advice)

    def explained(self, error: NoPathError, policy: Policy) -> NoPathError:
        """The error, with the reason why there was no way through a relay either, and what would help."""
        return NoPathError(self.with_relays(error.reason), policy.advice)

    def with_relays(self, reason: str) -> str:
        """Why there is no way, and why there is none through a relay."""
        return "; ".join([reason, *self.surroundings.relays.problems])

    async def _initiate(self, session: Session, meeting: Meeting, alpn: str, establish: Establish) -> Connection:
        await session.offer(alpn, establish)
        return await meeting.connected

    async def _respond(self, peer: PeerId, offer: Offer, signalling: Signalling) -> None:
        meeting, session = self.meet(peer, offer.alpn, signalling, self.policy, offer)
        self._responding[peer] += 1
        try:
            await session.respond()
            connection = await meeting.connected
        except BaseException:
            meeting.close()
            await self.end(session)
            raise
        finally:
            self._responding -= Counter((peer,))
        connection.connect_seconds = self._loop.time() - meeting.began
        self.settle(session, meeting, connection, self.policy)
        self._offer(connection)

    def _refusal(self, peer: PeerId, offer: Offer) -> Refuse | None:
        if offer.alpn not in self.alpns:
            return Refuse(reason=RefuseReason.ALPN)
        if offer.establish is Establish.UNKNOWN:
            return Refuse(reason=RefuseReason.ESTABLISH, text="this side does not know that way of establishing")
        if self.policy is Policy.RELAY and not self.surroundings.relays.are_there:
            return Refuse(reason=RefuseReason.DECLINED, text="its policy is to use relays alone, and it has none")
        is_busy = self._responding.total() >= _MAX_RESPONSES or self._responding[peer] >= _MAX_RESPONSES_TO_ONE
        if self._closed or is_busy:
            return Refuse(reason=RefuseReason.BUSY)
        return None

    def _kept(self, peer: PeerId, name: bytes) -> Upkeep | None:
        """What looks after the connection with this peer that has this name, if there is one."""
        upkeeps = [each._upkeep for each in self._connections() if each._peer == peer and not each.is_closed]
        return next((each for each in upkeeps if each is not None and each.name == name), None)

    def meet(
        self,
        peer: PeerId | None,
        alpn: str,
        signalling: Signalling,
        policy: Policy,
        offer: Offer | None = None,
        patience: float | None = None,
    ) -> tuple[Meeting, Session]:
        """A session with a peer, not begun yet, and what leads it to a connection. `peer`: None if only its answer is
        to say who it is. `offer`: the peer's, if it initiates. `patience`: see `Session`."""
        if self._closed:
            raise EndpointClosedError
        number = next(self._races)
        relays = self.surroundings.relays
        budget = self.surroundings.budgets.of(peer, self._loop.time(), calls=offer is not None)

        def attempt(pair: CandidatePair) -> Connection:
            remote = pair.remote.address
            reserved = 0 if pair.is_answered else HANDSHAKE
            if not budget.take(reserved, self._loop.time()):
                raise HandshakeError("the peer has named too many addresses at which nobody answers")
            relays.open(pair.base, remote, session)
            assert meeting.peer is not None
            host, initial_id = relays.host_of(pair.base), session.new_initial_id()
            try:
                connection = self._begin(meeting.peer, alpn, remote, host, number, initial_id)
            except BaseException:
                budget.give_back(reserved)
                raise
            connection._established.add_done_callback(lambda _: budget.give_back(_unspent(reserved, connection)))
            return connection

        def learn(remote: Address) -> None:
            session.learn(remote)

        meeting = Meeting(self.us, peer, offer is None, attempt, learn, _HANDSHAKE_TIMEOUT)
        session = Session(
            self.surroundings,
            signalling,
            meeting,
            controls=offer is None,
            budget=budget,
            policy=policy,
            opening=offer,
            patience=patience,
        )
        self._meetings[session.tag] = meeting
        self.surroundings.pump.engine.expect(session.tag)
        return meeting, session

    def settle(self, session: Session, meeting: Meeting, connection: Connection, policy: Policy) -> None:
        """The session has its connection, which is looked after from now on."""
        self._forget(session)
        pair = meeting.pair
        improve = self._improvement.follow if pair is None else self._improvement.lead
        connection._paths = improve(connection._native, self.surroundings)
        if connection._paths is not None:
            # The connection looks for better paths by itself: the session has done its part.
            connection._session = session
            remotes = (pair.remote for pair in session.pairs)
            relayed = frozenset(each.address for each in remotes if each.kind is CandidateKind.RELAYED)
            connection._places = Places(self.surroundings.relays.address_at, relayed.__contains__)
            self.surroundings.spawn(self.end(session), "quice session's end")
            return
        Upkeep(self.surroundings, connection, leads=pair is not None, policy=policy).begin(session, pair)

    async def end(self, session: Session) -> None:
        """The session has failed, or is no longer needed."""
        self._forget(session)
        await session.close()

    def _forget(self, session: Session) -> None:
        """No handshake of this session is expected any more."""
        if self._meetings.pop(session.tag, None) is not None:
            self.surroundings.pump.engine.expect_no_more(session.tag)


def _unspent(reserved: int, connection: Connection) -> int:
    """What is left of the bytes reserved for a handshake, once it is over."""
    if connection._was_established:
        return reserved
    try:
        sent = connection._native.stats()["sent_bytes"]
    except _native.ConnectionGone:
        return 0
    # What says that it is over has not left yet, and neither may have what was written last.
    return max(0, reserved - sent - 2 * _PACKET)
