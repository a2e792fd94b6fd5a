"""The rendezvous: peers register by proving their key, and messages go between them by PeerId."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from websockets.frames import CloseCode

from quice.errors import StoreUnreachableError
from quice.identity import PeerId
from quice.machine import this_machine
from quice.server.credentials import RelayCredentials
from quice.server.logs import Event, about
from quice.server.mailboxes import Mailboxes
from quice.server.sources import source_of
from quice.server.store import PeerKey, Store, Taken
from quice.server.websocket import WebSocket
from quice.signal import protocol
from quice.signal.protocol import (
    REFUSED,
    REPLACED,
    Challenge,
    Deliver,
    Delivered,
    Leaving,
    MailboxToServer,
    ProtocolDecodeError,
    Refused,
    Register,
    Registered,
    Relays,
    ToPeer,
    Undeliverable,
)
from quice.wire import random_bytes

# Who comes and goes is no more than DEBUG: strangers are not to fill logs.
logger = logging.getLogger(__name__)

_REGISTER_TIMEOUT = 10.0
"""Seconds a connection may take to register."""
_RATE = 100.0
_BURST = 400.0
"""Messages a second, and at once, that one peer may send; a faster one waits."""
_PAUSES = (1.0, 2.0, 4.0, 8.0)
"""Seconds between tries to tell a peer of its mailbox."""


@dataclass
class Counts:
    """What has happened since the beginning."""

    registered: int = 0
    refused: int = 0
    delivered: int = 0
    """Messages between two peers here, and those that have come from other processes."""
    forwarded: int = 0
    """Messages to peers that are not here."""
    undeliverable: int = 0
    bytes: int = 0
    """Of the bodies of messages that peers here have sent."""


class Rendezvous:
    """The peers that are here. One instance serves all WebSocket connections of a process."""

    def __init__(self, stun_port: int, relay_credentials: RelayCredentials, store: Store) -> None:
        """`stun_port`: what peers are told of the STUN service; 0 for none."""
        self.store = store
        self.counts = Counts()
        self.is_leaving = False
        self._stun_port = stun_port
        self._relay_credentials = relay_credentials
        self._mailboxes = Mailboxes(store.mailboxes)
        self._loop = asyncio.get_running_loop()
        self._peers: dict[PeerKey, Visit] = {}
        self._renewals: dict[Visit, float] = {}
        """When each peer gets new credentials: the first of them first."""
        self._renewal: asyncio.TimerHandle | None = None
        # In order, as a set would not be.
        self._tasks: dict[asyncio.Task[None], None] = {}

    def __len__(self) -> int:
        """How many peers are registered."""
        return len(self._peers)

    def welcome(self, websocket: WebSocket) -> Visit:
        """Serve a WebSocket that is open."""
        visit = Visit(self, websocket)
        visit.begin()
        return visit

    def leave(self, within: float) -> None:
        """Register nobody any more, and tell the peers to go elsewhere in so many seconds."""
        self.is_leaving = True
        for visit in list(self._peers.values()):
            visit.say(Leaving(within=within))

    async def close(self) -> None:
        """Begin nothing more."""
        if self._renewal is not None:
            self._renewal.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # What the store calls.

    def take(self, peer: PeerKey, message: bytes) -> Taken:
        """See `LocalPeers`."""
        visit = self._peers.get(peer)
        if visit is None:
            return Taken.ABSENT
        if not visit.websocket.send(message):
            return Taken.FULL
        self.counts.delivered += 1
        return Taken.YES

    def replaced(self, peer: PeerKey) -> None:
        """See `LocalPeers`."""
        if (visit := self._peers.get(peer)) is not None:
            visit.websocket.close(REPLACED, "registered again")

    # What a visit calls.

    def deliver(self, visit: Visit, message: Deliver) -> None:
        """Bring a message to its receiver, or tell the sender that it can't be brought."""
        delivered = protocol.encode(Delivered(sender=visit.peer, session=message.session, body=message.body))
        self.counts.bytes += len(message.body)
        match self.take(message.to, delivered):
            case Taken.ABSENT:
                self.counts.forwarded += 1
                self.store.forward(message.to, delivered, partial(self._fail, visit, message.to, message.session))
            case Taken.FULL:
                self._fail(visit, message.to, message.session)

    def _fail(self, visit: Visit, to: PeerKey, session: bytes) -> None:
        self.counts.undeliverable += 1
        visit.say(Undeliverable(to=to, session=session))

    async def keep_mail(self, visit: Visit, message: MailboxToServer) -> None:
        """Do what a peer wants of its mailboxes, and tell whom it concerns."""
        source = source_of(visit.websocket.host)
        try:
            told = await self._mailboxes.handle(PeerId(visit.peer), source, message)
        except StoreUnreachableError as error:
            # The peer registers again, perhaps elsewhere, and says all of it again.
            logger.debug(
                "mailboxes are not reached: %s",
                error,
                extra=about(Event.MAILBOXES_LOST, visit.peer, visit.websocket.host),
            )
            visit.websocket.close(CloseCode.TRY_AGAIN_LATER, "mailboxes are not reached")
            return
        for to, answer in told:
            if to.key == visit.peer:
                visit.say(answer)
            else:
                self._tell(to.key, protocol.encode(answer), _PAUSES)

    def _tell(self, to: PeerKey, message: bytes, pauses: Sequence[float]) -> None:
        """Bring what the server itself has to say to a peer that may be anywhere. `pauses`: before further tries."""
        if self.take(to, message) is Taken.ABSENT:
            self.store.forward(to, message, partial(self._tell_later, to, message, pauses))

    def _tell_later(self, to: PeerKey, message: bytes, pauses: Sequence[float]) -> None:
        if pauses:
            self.spawn(self._tell_again(to, message, pauses))

    async def _tell_again(self, to: PeerKey, message: bytes, pauses: Sequence[float]) -> None:
        # A peer that registers meanwhile asks by itself. One that is there all the time may be out of reach, as while a
        # process tells Redis anew who is at it.
        await asyncio.sleep(pauses[0])
        self._tell(to, message, pauses[1:])

    async def admit(self, visit: Visit, register: Register) -> None:
        """Register a peer that has proven its key. Raises `ProtocolDecodeError`."""
        peer, taken = register.peer, "this peer is registered on another connection"
        if self.is_leaving:
            raise ProtocolDecodeError("this server ends")
        if not register.replace and peer in self._peers:
            raise ProtocolDecodeError(taken)
        if not await self.store.claim(peer, replace=register.replace):
            raise ProtocolDecodeError(taken)
        if not visit.websocket.is_open:
            if peer not in self._peers:
                self.store.release(peer)
            return
        previous, self._peers[peer] = self._peers.get(peer), visit
        visit.peer = peer
        visit.websocket.settle()
        self.counts.registered += 1
        logger.debug("registered", extra=about(Event.REGISTERED, peer, visit.websocket.host))
        if previous is not None:
            # Whoever proves the key is the peer; a stale connection must not keep it from being reached.
            previous.websocket.close(REPLACED, "registered again")
        relays = self._relay_credentials.issue(PeerId(peer), visit.websocket.host)
        visit.say(Registered(stun_port=self._stun_port, relays=relays))
        if relays:
            self._renew_later(visit)

    def dismiss(self, visit: Visit) -> None:
        """A visit is over."""
        self._renewals.pop(visit, None)
        if visit.peer and self._peers.get(visit.peer) is visit:
            del self._peers[visit.peer]
            self.store.release(visit.peer)
            logger.debug("left", extra=about(Event.LEFT, visit.peer, visit.websocket.host))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Have this done beside."""
        task = asyncio.create_task(work)
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)

    def _renew_later(self, visit: Visit) -> None:
        """Have the peer get new credentials well before it can't allocate with its own any more."""
        self._renewals[visit] = self._loop.time() + self._relay_credentials.lifetime / 2
        if self._renewal is None:
            self._renewal = self._loop.call_at(self._renewals[visit], self._renew)

    def _renew(self) -> None:
        now = self._loop.time()
        due = [visit for visit, when in self._renewals.items() if when <= now]
        for visit in due:
            # Without room for it, what the peer has holds until the next time.
            visit.say(Relays(relays=self._relay_credentials.issue(PeerId(visit.peer), visit.websocket.host)))
            del self._renewals[visit]
            self._renewals[visit] = now + self._relay_credentials.lifetime / 2
        first = next(iter(self._renewals.values()), None)
        self._renewal = None if first is None else self._loop.call_at(first, self._renew)


class Visit:
    """One connection: it is challenged, registers, and sends."""

    __slots__ = ("_allowance", "_last", "_loop", "_nonce", "_rendezvous", "_timer", "_waiting", "peer", "websocket")

    def __init__(self, rendezvous: Rendezvous, websocket: WebSocket) -> None:
        self.websocket = websocket
        self.peer: PeerKey = b""
        """Empty until it is registered."""
        self._rendezvous = rendezvous
        self._loop = asyncio.get_running_loop()
        self._nonce: bytes | None = None
        """What a registration has to sign."""
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: deque[bytes | str] | None = None
        """What has come and has to wait, in order."""
        self._allowance, self._last = _BURST, self._loop.time()

    def begin(self) -> None:
        """Challenge the peer."""
        self._nonce = random_bytes(this_machine().random, protocol.NONCE_LENGTH)
        self._timer = self._loop.call_later(_REGISTER_TIMEOUT, self._refuse, "no registration came in time")
        self.say(Challenge(version=protocol.VERSION, nonce=self._nonce))

    def say(self, message: ToPeer) -> None:
        """Send something, if there is room for it."""
        self.websocket.send(protocol.encode(message))

    def received(self, frame: bytes | str) -> None:
        """See `Guest`."""
        if self._waiting is not None:
            self._waiting.append(frame)
            return
        try:
            self._take(protocol.decode_to_server(frame))
        except ProtocolDecodeError as error:
            self._refuse(str(error))

    def left(self) -> None:
        """See `Guest`."""
        self._stop_timer()
        waiting, self._waiting = self._waiting, None
        self._rendezvous.dismiss(self)
        if waiting and self.peer:
            self._rendezvous.spawn(self._finish(waiting))

    def wait_for(self, work: Coroutine[Any, Any, None]) -> None:
        """Have work done before the next message is looked at; a `ProtocolDecodeError` of it refuses the peer."""
        self._hold()
        self._rendezvous.spawn(self._work(work))

    def _take(self, message: protocol.ToServer) -> None:
        if self._nonce is not None:
            self.wait_for(self._rendezvous.admit(self, self._proven(message)))
            return
        pause = self._count()
        match message:
            case Register():
                raise ProtocolDecodeError("registered already")
            case Deliver():
                self._rendezvous.deliver(self, message)
                if pause:
                    self._hold()
                    self._timer = self._loop.call_later(pause, self._resume)
            case _:
                self.wait_for(self._keep_mail(message, pause))

    def _proven(self, register: protocol.ToServer) -> Register:
        """The registration, if it is one and its peer has proven its key. Raises `ProtocolDecodeError`."""
        assert self._nonce is not None
        if not isinstance(register, Register) or register.version != protocol.VERSION:
            raise ProtocolDecodeError(f"version {protocol.VERSION} of the protocol begins with a registration")
        peer = PeerId(register.peer)
        if not peer.verify(register.signature, protocol.signed_text(self._nonce, peer)):
            raise ProtocolDecodeError("the signature is wrong")
        self._nonce = None
        self._stop_timer()
        return register

    def _count(self) -> float:
        """Seconds that a peer has to wait which sends too fast."""
        now = self._loop.time()
        self._allowance, self._last = min(_BURST, self._allowance + (now - self._last) * _RATE) - 1, now
        return max(0.0, -self._allowance / _RATE)

    async def _keep_mail(self, message: MailboxToServer, pause: float) -> None:
        if pause:
            await asyncio.sleep(pause)
        await self._rendezvous.keep_mail(self, message)

    async def _finish(self, waiting: deque[bytes | str]) -> None:
        """Do what the peer has still said before it left."""
        with contextlib.suppress(ProtocolDecodeError):
            for frame in waiting:
                match protocol.decode_to_server(frame):
                    case Deliver() as message:
                        self._rendezvous.deliver(self, message)
                    case Register():
                        return
                    case message:
                        await self._rendezvous.keep_mail(self, message)

    async def _work(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except ProtocolDecodeError as error:
            self._refuse(str(error))
        else:
            self._resume()

    def _hold(self) -> None:
        self._waiting = deque()
        self.websocket.hold()

    def _resume(self) -> None:
        """Go on with what has come meanwhile."""
        self._timer = None
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            # It has left.
            return
        while waiting and self.websocket.is_open and self._waiting is None:
            self.received(waiting.popleft())
        if self._waiting is not None:
            # It has to wait again, with what is left.
            self._waiting.extend(waiting)
        self.websocket.release()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, text: str) -> None:
        self._rendezvous.counts.refused += 1
        logger.debug("refused: %s", text, extra=about(Event.REFUSED, self.peer, self.websocket.host))
        self._waiting = None
        self.say(Refused(text=text))
        self.websocket.close(REFUSED, text)
