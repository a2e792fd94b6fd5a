"""Sessions whose messages a rendezvous server passes on sealed: which there are, and who may begin one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, Protocol

from quice.errors import InvalidPeerIdError, PeerUnreachableError, SignallingClosedError
from quice.ice import Budget
from quice.identity import Identity, PeerId
from quice.signal.messages import Bye, Message, Opening, SignalDecodeError, decode, encode
from quice.signal.protocol import SESSION_LENGTH, Deliver, Delivered
from quice.signal.seal import Seal
from quice.signal.sequence import MessageSequence
from quice.wire import Random, random_bytes

logger = logging.getLogger(__name__)

_MAX_SESSIONS = 256
_BEGINNINGS, _BEGINNINGS_PER_SECOND = 128, 16
"""Messages of one peer that may begin a session and are looked at, at once and in the long run: to open one takes
0.15 ms, also if it is noise."""
_REMEMBERED = 4096
"""Sessions that others have begun, the last of all, that none can begin again."""
_MAX_WAITING = 128
"""Messages of one session that wait to be received."""
_LINGER = 5.0
"""Seconds for which a session that is closed here still sees to it that its last messages arrive."""

SessionKey = tuple[PeerId, bytes]


class Outlet(Protocol):
    """The way to the server."""

    async def reachable(self) -> None:
        """Wait until a message can be sent. Raises `ServerUnreachableError` when that takes too long."""

    async def send(self, message: Deliver) -> None:
        """Send, or lose."""

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> object:
        """Do something meanwhile."""


class RendezvousSignalling:
    """One session with one peer, through the server: whichever it is, and over any number of connections to it."""

    def __init__(self, sessions: Sessions, peer: PeerId, session: bytes) -> None:
        """Raises `InvalidPeerIdError` when nothing can be sealed to this peer."""
        self.peer = peer
        self._sessions = sessions
        self._session = session
        self._seal = Seal(sessions.identity, peer, session, sessions.rng)
        self._loop = asyncio.get_running_loop()
        self._sequence = MessageSequence()
        self._timer: asyncio.TimerHandle | None = None
        self._incoming: asyncio.Queue[Message] = asyncio.Queue(_MAX_WAITING)
        self._ended: Exception | None = None
        self._changed = asyncio.Event()

    async def send(self, message: Message) -> None:
        """See `Signalling`. Raises `ServerUnreachableError` when the server can't be reached again for some seconds,
        and `ValueError` for a message that is too large for it.
        """
        body = encode(message)
        # Who says goodbye waits for nobody; it is told once the server is back.
        if self._ended is None and not isinstance(message, Bye):
            await self._sessions.outlet.reachable()
        if self._sequence.is_full:
            self.end(SignallingClosedError())
        if self._ended is not None:
            raise self._ended
        self._sequence.send(body, self._loop.time())
        await self._flush()

    async def receive(self) -> Message:
        """See `Signalling`. Raises `PeerUnreachableError` when the server does not know the peer."""
        while self._incoming.empty():
            if self._ended is not None:
                raise self._ended
            self._changed.clear()
            await self._changed.wait()
        return self._incoming.get_nowait()

    async def close(self) -> None:
        """See `Signalling`. What was sent before still arrives."""
        self._sessions.dismiss(self)
        self.end(SignallingClosedError())

    @property
    def key(self) -> SessionKey:
        """What the session is known by."""
        return self.peer, self._session

    @property
    def is_heard(self) -> bool:
        """Whether the peer has said something."""
        return self._sequence.is_heard

    def take(self, body: bytes) -> list[Message]:
        """Take in what the peer sent; returns the messages for whoever receives."""
        envelope = self._seal.open(body)
        if envelope is None:
            self._sessions.unopened += 1
            logger.debug("a message that was not sealed by the peer for this session")
            return []
        taken = []
        for data in self._sequence.receive(envelope, self._loop.time()):
            try:
                taken.append(decode(data))
            except SignalDecodeError as error:
                logger.debug("a message of a peer that is none: %s", error)
        self._arm()
        return taken

    def give(self, messages: Iterable[Message]) -> None:
        """Have these received."""
        for message in messages:
            if self._incoming.full():
                self.end(SignallingClosedError())
                break
            self._incoming.put_nowait(message)
        self._changed.set()

    def repeat(self) -> list[Deliver]:
        """What may be lost with a connection to the server."""
        self._sequence.repeat()
        return self._pending()

    def stop(self) -> None:
        """Send nothing any more, not even again."""
        self._sequence.stop()
        self._arm()

    def end(self, error: Exception) -> None:
        """Raise this to who receives and sends."""
        if self._ended is None:
            self._ended = error
        self._changed.set()

    def _pending(self) -> list[Deliver]:
        """What is to be sent now."""
        bodies = map(self._seal.seal, self._sequence.transmits())
        return [Deliver(to=self.peer.key, session=self._session, body=body) for body in bodies]

    async def _flush(self) -> None:
        try:
            for message in self._pending():
                await self._sessions.outlet.send(message)
        finally:
            self._arm()

    def _arm(self) -> None:
        when = self._sequence.timeout()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if when is None else self._loop.call_at(when, self._on_timer, when)

    def _on_timer(self, when: float) -> None:
        self._timer = None
        # A loop's timers may come early by its clock's resolution.
        self._sequence.handle_timeout(max(when, self._loop.time()))
        if self._sequence.is_given_up:
            self.end(PeerUnreachableError(str(self.peer)))
        else:
            self._sessions.outlet.spawn(self._flush(), "quice rendezvous session")


class Sessions:
    """The sessions of one endpoint at its rendezvous server."""

    def __init__(
        self,
        identity: Identity,
        rng: Random,
        outlet: Outlet,
        on_session: Callable[[RendezvousSignalling], None],
    ) -> None:
        """`on_session`: called with each that another peer begins."""
        self.identity = identity
        self.rng = rng
        self.outlet = outlet
        self.unopened = 0
        """How many messages have come that were not what the peer whom the server named had sealed for us, in the
        session that it named: altered, or taken from elsewhere."""
        self.active: dict[SessionKey, RendezvousSignalling] = {}
        self.lingering: dict[SessionKey, RendezvousSignalling] = {}
        """Those that are closed here; the oldest first."""
        self.begun: dict[SessionKey, None] = {}
        """What others have begun, also if it is over; the oldest first."""
        self._on_session = on_session
        self._loop = asyncio.get_running_loop()
        self._beginnings: dict[PeerId, Budget] = {}
        self._endings: dict[RendezvousSignalling, asyncio.TimerHandle] = {}
        """When these are forgotten."""

    def open(self, peer: PeerId) -> RendezvousSignalling:
        """Begin a session with a peer. Raises `InvalidPeerIdError` when nothing can be sealed to it."""
        session = random_bytes(self.rng, SESSION_LENGTH)
        signalling = self.active[peer, session] = RendezvousSignalling(self, peer, session)
        return signalling

    def unacknowledged(self) -> Iterator[Deliver]:
        """What a connection to the server may have taken with it."""
        for session in [*self.active.values(), *self.lingering.values()]:
            yield from session.repeat()

    def deliver(self, message: Delivered) -> None:
        """Take in what a peer has sent."""
        key = (PeerId(message.sender), message.session)
        session = self.active.get(key)
        if session is not None:
            session.give(session.take(message.body))
        elif (closed := self.lingering.get(key)) is not None:
            closed.take(message.body)
        elif key in self.begun:
            logger.debug("a message of a session that is over")
        elif len(self.active) < _MAX_SESSIONS and self._may_begin(key[0]):
            try:
                session = RendezvousSignalling(self, *key)
            except InvalidPeerIdError as error:
                logger.debug("a message of a peer that is none: %s", error)
            else:
                self._begin(session, message.body)

    def undeliverable(self, key: SessionKey, *, may_return: bool) -> None:
        """The server does not know a session's peer. `may_return`: whether it may do so soon."""
        session = self.active.get(key)
        # Who was there, or has lost the server with everybody, may be on its way back: the message is sent again.
        if session is not None and not session.is_heard and not may_return:
            session.stop()
            session.end(PeerUnreachableError(str(session.peer)))

    def dismiss(self, session: RendezvousSignalling) -> None:
        """Have a session that is closed linger."""
        if self.active.pop(session.key, None) is None:
            return
        if len(self.lingering) >= _MAX_SESSIONS:
            self._forget(next(iter(self.lingering.values())))
        self.lingering[session.key] = session
        self._endings[session] = self._loop.call_later(_LINGER, self._forget, session)

    async def close(self) -> None:
        """End them all."""
        for session in list(self.active.values()):
            await session.close()
        for session in list(self.lingering.values()):
            self._forget(session)

    def _forget(self, session: RendezvousSignalling) -> None:
        self._endings.pop(session).cancel()
        del self.lingering[session.key]
        session.stop()

    def _may_begin(self, peer: PeerId) -> bool:
        """Whether one more message of this peer is looked at. What is not is repeated, if it is in order."""
        now = self._loop.time()
        if peer not in self._beginnings and len(self._beginnings) >= _MAX_SESSIONS:
            self._beginnings = {peer: each for peer, each in self._beginnings.items() if not each.is_whole(now)}
        return self._beginnings.setdefault(peer, Budget(_BEGINNINGS, _BEGINNINGS_PER_SECOND)).take(1, now)

    def _begin(self, session: RendezvousSignalling, body: bytes) -> None:
        """Have a session that the peer begins. Anything but a first message is late: for one that was closed here."""
        messages = session.take(body)
        if messages and isinstance(messages[0], Opening):
            if len(self.begun) >= _REMEMBERED:
                del self.begun[next(iter(self.begun))]
            self.begun[session.key] = None
            self.active[session.key] = session
            session.give(messages)
            self._on_session(session)
        else:
            session.stop()
