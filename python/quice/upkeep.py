"""What an endpoint does for one connection, as long as it lives: it negotiates anew when the network has changed.

A negotiation is a `Session` of its own: fresh candidates of both sides, checks, and a pair that both agree on (an ICE
restart, RFC 8445 §9). It goes through the connection's control channel, and through the rendezvous server as well when
no answer comes that way. Either side may begin it; when both do at once, the client's counts. What was in use before
stays so until a path on the new pair is validated.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import cast

from quice import _native
from quice.connection import Connection
from quice.control import InbandSignalling
from quice.errors import (
    ConnectionClosedError,
    InvalidPeerIdError,
    RefusedError,
    SignallingClosedError,
    SignallingError,
)
from quice.hearing import Hearing
from quice.ice import CandidateKind, CandidatePair
from quice.path import Places
from quice.paths import PathKeeper
from quice.policy import Policy
from quice.session import Session
from quice.signal.interface import Signalling
from quice.signal.joint import JointSignalling
from quice.signal.messages import MAX_HEARD, Answer, Opening, Refuse, RefuseReason, Restart, SignalDecodeError
from quice.surroundings import Surroundings
from quice.wire import Address

logger = logging.getLogger(__name__)

_SUSPICION = 0.7
"""Seconds without any answer to what was sent, after which this side looks whether it is still where it was."""
_FIRST_PAUSE = 0.5
_LAST_PAUSE = 10.0
"""Seconds until it looks again: at first, and doubled each time, at most."""
_PATIENCE = 0.3
"""Seconds that the control channel alone has to bring an answer, and three round trips."""
_FAIR_TIME = 2.5
"""Seconds after which a negotiation that both take part in should have led to something: the network may have changed
again meanwhile, and another begins anew."""
_OFFERS = 16
_LINGER = 10.0
"""Seconds for which more candidates can be told once a pair is chosen."""
_RETRIES = (2.0, 300.0)
"""Seconds after which a connection that goes through a relay, or whose negotiation failed, is negotiated anew; doubled
each time, up to the second number."""


class Negotiation:
    """One session that is to find a pair for a connection that there is. Implements `quice.session.Introduced`."""

    def __init__(self, upkeep: Upkeep, *ways: Signalling, offer: Restart | None = None) -> None:
        self._upkeep = upkeep
        self.began = asyncio.get_running_loop().time()
        self.signalling = JointSignalling(*ways)
        self.offer = offer
        self.is_urgent = bool(ways) and not all(isinstance(way, InbandSignalling) for way in ways)
        """Whether one side did not get through to the other by the connection itself."""
        self.by_rendezvous: Signalling | None = None
        """The way through the rendezvous server, once it is used."""
        self.session = Session(
            upkeep.surroundings,
            self.signalling,
            self,
            controls=upkeep.leads,
            budget=upkeep.surroundings.budgets.of(upkeep.connection.peer, self.began, calls=not upkeep.leads),
            policy=upkeep.policy,
            opening=offer,
        )

    @property
    def is_answered(self) -> bool:
        """Whether both sides take part."""
        return self.session.is_answered

    @property
    def awaits_answer(self) -> bool:
        """Whether it is our offer, and the peer's answer has not come."""
        return self.offer is None and not self.is_answered

    def is_about(self, offer: Restart) -> bool:
        """Whether it is this offer of the peer's that it answers."""
        return self.offer is not None and self.offer.ufrag == offer.ufrag

    def begin(self, opening: Opening, answer: Answer) -> None:
        """See `Introduced`."""
        if self.offer is None:
            self._upkeep.on_answered(self)

    def on_heard(self, source: Address) -> None:
        """See `Introduced`."""

    def on_hung_up(self) -> None:
        """See `Introduced`: without a pair, there will be none."""
        self._upkeep.give_up(self, SignallingClosedError())

    def on_pairs(self, pairs: Iterable[CandidatePair]) -> None:
        """See `quice.session.Observer`."""

    def on_valid(self, pair: CandidatePair) -> None:
        """See `quice.session.Observer`."""

    def on_selected(self, pair: CandidatePair) -> None:
        """See `quice.session.Observer`."""
        self._upkeep.conclude(self, pair)

    def on_failed(self, error: Exception) -> None:
        """See `quice.session.Observer`."""
        self._upkeep.give_up(self, error)


class _Follower:
    """As the server: it answers from where it is, whatever pair the client's checks have led to. Implements
    `quice.session.Observer`, for a session that may choose another pair long after it has led to the connection."""

    def __init__(self, relocate: Callable[[CandidatePair], None]) -> None:
        self.on_selected = relocate

    def on_pairs(self, pairs: Iterable[CandidatePair]) -> None:
        """See `quice.session.Observer`."""

    def on_valid(self, pair: CandidatePair) -> None:
        """See `quice.session.Observer`."""

    def on_failed(self, error: Exception) -> None:
        """See `quice.session.Observer`."""


class Upkeep:
    """Keeps one connection reachable, on either side."""

    def __init__(self, surroundings: Surroundings, connection: Connection, *, leads: bool, policy: Policy) -> None:
        """`leads`: whether this side is the connection's client, which alone opens paths, and so controls."""
        self.surroundings = surroundings
        self.connection = connection
        self.leads = leads
        self.policy = policy
        self.name: bytes | None = None
        """What both sides call the connection in signalling."""
        self._session: Session | None = None
        self._keeper: PathKeeper | None = None
        self._negotiation: Negotiation | None = None
        self._muted: Negotiation | None = None
        """One that we have answered over the connection, which is silent since, so that another was begun."""
        self._offers: deque[str] = deque(maxlen=_OFFERS)
        """The peer's last ones, by their ufrags."""
        self._has_answer = False
        self._own_offers: list[str] = []
        """Ours, by their ufrags, from the last one that was answered on."""
        self._relayed: set[Address] = set()
        """Where relays of the peer's are or were."""
        self._relocated: Address | None = None
        """As the server: where the client was last found to be, whether it has come there or not."""
        self._loop = asyncio.get_running_loop()
        self._hearing = Hearing(connection._native, surroundings.pump, self._on_tick)
        self._next_try, self._try_pause = _SUSPICION, _FIRST_PAUSE
        self._retry, _ = _RETRIES
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        connection._upkeep = self
        connection._places = Places(surroundings.relays.address_at, self._is_relayed)
        if connection._control is not None:
            connection._control.on_session(self._on_session)

    def begin(self, session: Session, pair: CandidatePair | None) -> None:
        """The session has made the connection, on this pair if this side is the client."""
        self.name = session.tag
        self._adopt(session)
        if pair is not None and self.leads:
            self._keep_paths(pair, session)
            if session.selected is not None and self._keeper is not None:
                self._keeper.on_selected(session.selected)
        else:
            pair = session.pair_of(self.connection)
        if pair is not None and not pair.relays:
            # Of a relay the agents know better whether there is another way.
            session.use(pair)
        self._hold_relays()
        self._loop.call_later(_LINGER, self._hang_up, session)
        self._look_for_better()

    def begin_alone(self) -> None:
        """The connection was made straight to an address: look for a better one."""
        if self.leads and self.connection._control is not None:
            self.negotiate()

    def on_moved(self) -> None:
        """The network is another than before."""
        self._retry, _ = _RETRIES
        self.negotiate()

    def on_path_opened(self) -> None:
        """There is another path."""
        self._hold_relays()

    def on_path_lost(self) -> None:
        """A path was given up: perhaps this side is not where it was, or the peer."""
        if not self._closed:
            self.surroundings.doubt()
            if self.leads:
                self.on_moved()

    def negotiate(self) -> None:
        """Find out how the two sides reach each other now. No effect while they do."""
        if self._closed:
            return
        if self._negotiation is None:
            ways = [control.open()] if (control := self.connection._control) is not None else []
            self._negotiation = Negotiation(self, *ways)
            self._own_offers = [*self._own_offers[-_OFFERS:], self._negotiation.session.ufrag]
            self.surroundings.spawn(self._initiate(self._negotiation), "quice negotiation")
        elif self._is_cut_off:
            self.surroundings.spawn(self._call_by_rendezvous(self._negotiation), "quice negotiation")

    async def answer(self, signalling: Signalling, offer: Restart) -> None:
        """The peer begins a negotiation."""
        ongoing = self._negotiation
        if offer.ufrag in self._offers:
            is_muted = self._muted is not None and self._muted.is_about(offer)
            if is_muted and not self.leads:
                # The peer goes on with it.
                ongoing = self._resume()
            # It comes by another way, by which the answer may get through, or late.
            if ongoing is not None and ongoing.is_about(offer):
                await ongoing.signalling.add(signalling)
                return
            await signalling.close()
            if is_muted and ongoing is not None:
                await self._say_again(ongoing)
            return
        if self._is_outdated(offer):
            await signalling.close()
            return
        if ongoing is not None and self.leads and ongoing.awaits_answer:
            await _refuse(signalling, RefuseReason.CROSSED)
            await self._say_again(ongoing)
            return
        self._offers.append(offer.ufrag)
        # It is somewhere else than before, or has reason to think so.
        self._retry, _ = _RETRIES
        if self._wants_better or not isinstance(signalling, InbandSignalling):
            # The peer does not get through to us, or not directly: perhaps it is we who are not where we were.
            self.surroundings.doubt()
        self._forget_muted()
        self._negotiation = negotiation = Negotiation(self, signalling, offer=offer)
        if ongoing is not None:
            await ongoing.session.close()
        if self.name is None:
            self.name = negotiation.session.tag
        try:
            await negotiation.session.respond()
        except SignallingError as error:
            self.give_up(negotiation, error)

    def on_answered(self, negotiation: Negotiation) -> None:
        """The peer takes part in what we have begun."""
        ufrag = negotiation.session.ufrag
        self._forget_muted()
        if ufrag in self._own_offers:
            self._own_offers = self._own_offers[self._own_offers.index(ufrag) :]
            self._has_answer = True

    def _is_outdated(self, offer: Restart) -> bool:
        """Whether the peer has made this offer before it answered one of ours: it has dropped it then."""
        return self._has_answer and not any(heard in self._own_offers for heard in offer.heard)

    def conclude(self, negotiation: Negotiation, pair: CandidatePair) -> None:
        """A negotiation has found a pair."""
        if negotiation is not self._negotiation:
            return
        self._negotiation = None
        former, session = self._session, negotiation.session
        # What is in use now must outlive the session that asked for it.
        self._hold_relays()
        self._adopt(session)
        if former is not None:
            self._end(former)
        # It takes a round trip until the peer is heard on it.
        self._next_try = self._hearing.silence + _FIRST_PAUSE
        if not self.leads:
            self._relocate(pair)
            if negotiation.is_urgent:
                with contextlib.suppress(_native.ConnectionGone):
                    self.connection._native.nudge()
        else:
            if self._keeper is None:
                self._keep_paths(self._first_pair(pair, session), session)
            else:
                self._keeper.follow(session)
            if self._keeper is not None:
                session.observe(self._keeper)
                self._keeper.select(pair, urgent=negotiation.is_urgent)
        self._hold_relays()
        self._loop.call_later(_LINGER, self._hang_up, session)
        self._look_for_better()

    def give_up(self, negotiation: Negotiation, error: Exception) -> None:
        """A negotiation has failed, if it has not succeeded before."""
        if negotiation is self._muted:
            self._forget_muted()
        if negotiation is not self._negotiation:
            return
        self._end(negotiation.session)
        self._negotiation = None
        crossed = isinstance(error, RefusedError) and error.reason == RefuseReason.CROSSED.value
        if not crossed:
            logger.info("no other way to the peer was found: %s", error)
            if isinstance(error, SignallingError):
                self._retry, _ = _RETRIES
            self._look_for_better()

    def set_policy(self, policy: Policy) -> None:
        """Use and tell other candidates from now on."""
        if policy is not self.policy:
            self.policy = policy
            self._retry, _ = _RETRIES
            ongoing, self._negotiation = self._negotiation, None
            if ongoing is not None:
                self._end(ongoing.session)
            self.negotiate()

    def close(self) -> None:
        """The connection is over."""
        if self._closed:
            return
        self._closed = True
        self._hearing.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._keeper is not None:
            self._keeper.close()
        self._forget_muted()
        for session in self._sessions:
            self._end(session)
        self.surroundings.relays.release(self)

    @property
    def _sessions(self) -> list[Session]:
        negotiating = self._negotiation.session if self._negotiation is not None else None
        return [session for session in (self._session, negotiating) if session is not None]

    @property
    def _is_cut_off(self) -> bool:
        """Whether what is sent now will probably not arrive."""
        if self._hearing.silence >= _SUSPICION:
            return True
        here = {base.address.host for base in self.surroundings.bases}
        relays = self.surroundings.relays
        locals_ = [path.local for path in self.connection.paths]
        return not any(local is None or local.host in here or relays.is_relayed(local) for local in locals_)

    async def _initiate(self, negotiation: Negotiation) -> None:
        session, connection = negotiation.session, self.connection
        if connection._control is None or self._is_cut_off:
            await self._call_by_rendezvous(negotiation)
        if self.name is None:
            # Both sides call it so: this is the first session they have.
            self.name = session.tag
        try:
            await session.restart(self.name, tuple(self._offers)[-MAX_HEARD:])
        except (SignallingError, ConnectionClosedError) as error:
            self.give_up(negotiation, error)
            return
        rtt = min((path.rtt for path in connection.paths), default=0.0)
        await asyncio.sleep(_PATIENCE + 3 * rtt)
        if negotiation is self._negotiation and not negotiation.is_answered:
            await self._call_by_rendezvous(negotiation)

    async def _call_by_rendezvous(self, negotiation: Negotiation) -> None:
        """Have the rendezvous server carry what the connection itself may not."""
        rendezvous, way = self.surroundings.rendezvous, negotiation.by_rendezvous
        if rendezvous is not None and (way is None or not negotiation.signalling.has(way)):
            negotiation.is_urgent = True
            # Ed25519 lets everybody prove a key of low order, to which nothing can be sealed.
            with contextlib.suppress(InvalidPeerIdError):
                negotiation.by_rendezvous = way = rendezvous.open(self.connection.peer)
                await negotiation.signalling.add(way)

    async def _say_again(self, negotiation: Negotiation) -> None:
        """The peer is there. If our offer has not reached it, as while it slept, it does now."""
        negotiation.by_rendezvous = None
        await self._call_by_rendezvous(negotiation)

    def _on_session(self, signalling: InbandSignalling) -> None:
        self.surroundings.spawn(self._hear_out(signalling), "quice negotiation")

    async def _hear_out(self, signalling: InbandSignalling) -> None:
        with contextlib.suppress(SignallingError, SignalDecodeError):
            offer = await signalling.receive()
            if isinstance(offer, Restart) and not self._closed:
                await self.answer(signalling, offer)
                return
        await signalling.close()

    def _hold_relays(self) -> None:
        """Keep the channels of the paths that lead through relays of ours, whoever wanted them, and no others."""
        relays = self.surroundings.relays
        keep = {self._relocated}
        with contextlib.suppress(_native.ConnectionGone):
            for path in self.connection._native.paths():
                local = cast("tuple[str, int] | None", path["local"])
                if local is not None:
                    remote = Address(*cast("tuple[str, int]", path["remote"]))
                    relays.hold(local[0], remote, self)
                    keep.add(remote)
            relays.release(self, keep)

    def _relocate(self, pair: CandidatePair) -> None:
        """As the server, let the client go on over this pair, which leads elsewhere than its paths did."""
        surroundings, native = self.surroundings, self.connection._native
        local, remote = surroundings.relays.host_of(pair.base), pair.remote.address
        with contextlib.suppress(_native.ConnectionGone):
            ends = [(cast("tuple[str, int] | None", path["local"]), path["remote"]) for path in native.paths()]
            is_there = any(here is not None and (here[0], there) == (local, remote) for here, there in ends)
            # After a silence the client may have given up the path that is there, and go on with another.
            if is_there and self._hearing.silence < _SUSPICION:
                return
            surroundings.relays.open(pair.base, remote, self)
            self._relocated = remote
            native.relocate(remote, local)
            surroundings.pump.wake()

    def _is_relayed(self, remote: Address) -> bool:
        """Whether a relay of the peer's is at this address."""
        for session in self._sessions:
            relayed = (pair.remote for pair in session.pairs if pair.remote.kind is CandidateKind.RELAYED)
            self._relayed.update(candidate.address for candidate in relayed)
        return remote in self._relayed

    def _first_pair(self, pair: CandidatePair, session: Session) -> CandidatePair:
        """The pair that the connection is on already, which was made without a session."""
        return session.pair_of(self.connection) or pair

    def _keep_paths(self, first: CandidatePair, session: Session) -> None:
        keeper = PathKeeper(self.connection._native, self.surroundings, first, session, self._hearing)
        self._keeper = self.connection._paths = keeper
        session.observe(keeper)

    def _adopt(self, session: Session) -> None:
        self._session = self.connection._session = session
        session.entrust()
        if not self.leads:
            session.observe(_Follower(self._relocate))

    def _hang_up(self, session: Session) -> None:
        if session is self._session and not self._closed:
            self.surroundings.spawn(session.hang_up(), "quice session's end")

    def _end(self, session: Session) -> None:
        self.surroundings.spawn(session.close(), "quice session's end")

    def _on_tick(self) -> None:
        if self._keeper is not None:
            self._keeper.on_tick()
        silence = self._hearing.silence
        if silence < _SUSPICION:
            self._next_try, self._try_pause = _SUSPICION, _FIRST_PAUSE
        elif silence >= self._next_try:
            self._next_try = silence + self._try_pause
            self._try_pause = min(2 * self._try_pause, _LAST_PAUSE)
            self.surroundings.doubt()
            self._insist()

    def _insist(self) -> None:
        """The peer is silent: negotiate, or say again what it may not have heard."""
        ongoing = self._negotiation
        if ongoing is None:
            self.negotiate()
        elif ongoing.offer is not None and not ongoing.is_urgent and self._muted is None:
            # The answer is as silent as the connection, and only who has begun could say it again elsewhere.
            self._muted, self._negotiation = ongoing, None
            self.negotiate()
        elif ongoing.is_answered and self._loop.time() >= ongoing.began + _FAIR_TIME:
            self._negotiation = None
            self._end(ongoing.session)
            self.negotiate()
        elif ongoing.offer is None:
            # Even when it is answered: what has changed since then may not get through.
            self.surroundings.spawn(self._call_by_rendezvous(ongoing), "quice negotiation")

    def _resume(self) -> Negotiation | None:
        """Go on with the one that was muted."""
        ongoing, self._negotiation, self._muted = self._negotiation, self._muted, None
        if ongoing is not None:
            self._end(ongoing.session)
        return self._negotiation

    def _forget_muted(self) -> None:
        muted, self._muted = self._muted, None
        if muted is not None:
            self._end(muted.session)

    def _look_for_better(self) -> None:
        """Try again after a while, unless there is nothing to be found."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._closed or not self.leads or self.connection._control is None:
            return
        self._timer = self._loop.call_later(self._retry, self._try_again)

    def _try_again(self) -> None:
        self._timer = None
        if self._wants_better:
            self._retry = min(2 * self._retry, _RETRIES[1])
            self.surroundings.doubt()
            self.negotiate()
        else:
            self._retry, _ = _RETRIES

    @property
    def _wants_better(self) -> bool:
        if self._session is None or self._session.selected is None:
            return True
        used = self._keeper.selected if self._keeper is not None else self._session.selected
        return self.policy is Policy.AUTO and (used.relays > 0 or self._session.selected.relays > 0)


async def _refuse(signalling: Signalling, reason: RefuseReason) -> None:
    with contextlib.suppress(SignallingError):
        await signalling.send(Refuse(reason=reason))
    await signalling.close()
