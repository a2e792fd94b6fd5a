"""Signalling through a rendezvous server: one WebSocket for all sessions of an endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import WebSocketException

from quice.errors import InvalidPeerIdError, PeerUnreachableError, ServerUnreachableError, SignallingClosedError
from quice.ice import Budget
from quice.identity import Identity, PeerId
from quice.machine import this_machine
from quice.signal import protocol, servers
from quice.signal.mailbox import Mailboxes
from quice.signal.messages import Bye, Message, Opening, SignalDecodeError, decode, encode
from quice.signal.protocol import (
    SESSION_LENGTH,
    Deliver,
    Delivered,
    Leaving,
    MailboxBody,
    MailboxClosed,
    MailboxOpened,
    MailboxTaken,
    ProtocolDecodeError,
    Refused,
    Register,
    Registered,
    Relays,
    RelayServer,
    ToPeer,
    ToServer,
    Undeliverable,
)
from quice.signal.seal import Seal
from quice.signal.sequence import MessageSequence
from quice.signal.servers import Greeting, answer_of, reach
from quice.wire import Address, random_bytes

logger = logging.getLogger(__name__)

_BACKOFF = (0.25, 15.0)
"""The most seconds before the first and, doubled each time, before a later try to reach the server again."""
_PATIENCE = 5.0
"""Seconds that a message waits for the server to be reached again."""
_UNMEASURED = 0.5
"""Seconds for an answer of a server whose round trip is not known yet."""
_ANSWER_ROUND_TRIPS, _ANSWER_BOUNDS = 3, (0.2, 2.0)
"""Round trips for an answer, and how many seconds that is at least and at most: another network has others."""
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
_GATHERING = 5.0
"""Seconds after a server was lost in which a peer that is not there may be on its way back."""

Sessions = dict[tuple[PeerId, bytes], "RendezvousSignalling"]


class RendezvousSignalling:
    """One session with one peer, through the server: whichever it is, and over any number of connections to it."""

    def __init__(self, client: RendezvousClient, peer: PeerId, session: bytes) -> None:
        self.peer = peer
        self._client = client
        self._session = session
        self._seal = Seal(client._identity, peer, session, client._rng)
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
            await self._client._reachable()
        if self._sequence.is_full:
            self._end(SignallingClosedError())
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
        self._client._dismiss(self)
        self._end(SignallingClosedError())

    @property
    def key(self) -> tuple[PeerId, bytes]:
        """What the session is known by."""
        return self.peer, self._session

    def _take(self, body: bytes) -> list[Message]:
        """Take in what the peer sent; returns the messages for whoever receives."""
        envelope = self._seal.open(body)
        if envelope is None:
            self._client.unopened += 1
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

    def _give(self, messages: Iterable[Message]) -> None:
        for message in messages:
            if self._incoming.full():
                self._end(SignallingClosedError())
                break
            self._incoming.put_nowait(message)
        self._changed.set()

    def _pending(self) -> list[Deliver]:
        """What is to be sent now."""
        bodies = map(self._seal.seal, self._sequence.transmits())
        return [Deliver(to=self.peer.key, session=self._session, body=body) for body in bodies]

    async def _flush(self) -> None:
        try:
            for message in self._pending():
                await self._client._send(message)
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
            self._end(PeerUnreachableError(str(self.peer)))
        else:
            self._client._spawn(self._flush(), "quice rendezvous session")

    def _stop(self) -> None:
        """Send nothing any more, not even again."""
        self._sequence.stop()
        self._arm()

    def _end(self, error: Exception) -> None:
        if self._ended is None:
            self._ended = error
        self._changed.set()


@dataclass(eq=False)
class _Registration:
    """A WebSocket on which a server knows this peer."""

    greeting: Greeting
    since: float
    rtt: float

    @property
    def websocket(self) -> ClientConnection:
        return self.greeting.websocket

    @property
    def local_host(self) -> str:
        host: str = self.websocket.local_address[0]
        return host.partition("%")[0]


class RendezvousClient:
    """A peer's registration with a rendezvous server, kept up for as long as it lives.

    `on_session` is called with each session that another peer begins with us, `on_relays` whenever `relays` is new:
    with each registration, and each time the server renews their credentials.

    Of several servers it takes the first that answers, and stays with it; when that one is lost, it is tried again
    before the next. Peers at two servers find each other only if these share who is where.
    """

    def __init__(
        self,
        server: str | Sequence[str],
        identity: Identity,
        on_session: Callable[[RendezvousSignalling], None],
        on_relays: Callable[[tuple[RelayServer, ...]], None] | None = None,
    ) -> None:
        self.urls = (server,) if isinstance(server, str) else tuple(server)
        if not self.urls:
            raise ValueError("no rendezvous server: name one, or several")
        self.url = self.urls[0]
        """The server that is used now, or was last."""
        self.unopened = 0
        """How many messages have come that were not what the peer whom the server named had sealed for us, in the
        session that it named: altered, or taken from elsewhere."""
        self.stun_servers: tuple[Address, ...] = ()
        """The server's STUN service, at each of the addresses that the URL's host has."""
        self.relays: tuple[RelayServer, ...] = ()
        """The relays that the server offers, with credentials for them."""
        self.host: str | None = None
        """The IP address that the server was reached at."""
        self.on_relays = on_relays
        self._identity = identity
        self._machine = this_machine()
        self._rng = self._machine.random
        self._loop = asyncio.get_running_loop()
        self._on_session = on_session
        self._sessions: Sessions = {}
        self._lingering: Sessions = {}
        """Those that are closed here; the oldest first."""
        self._begun: dict[tuple[PeerId, bytes], None] = {}
        """What others have begun, also if it is over; the oldest first."""
        self._beginnings: dict[PeerId, Budget] = {}
        self._endings: dict[RendezvousSignalling, asyncio.TimerHandle] = {}
        """When these are forgotten."""
        self._known: dict[str, Greeting] = {}
        self._registration: _Registration | None = None
        self._waiting: dict[asyncio.Future[None], None] = {}
        """Who waits for another registration, in order."""
        self._trouble = "this endpoint is not registered with it"
        self._replaced = False
        """Whether another program has registered with this identity."""
        self._closed = False
        self._renewal: asyncio.Task[None] | None = None
        self._renewing_since = 0.0
        self._failures = 0
        self._lost = False
        self._sent_away = False
        """Whether the server that is used has said that it ends."""
        self._back_since = -math.inf
        """When a server was reached again after one was lost, or has sent all its peers away."""
        # In order, as a set would not be.
        self._tasks: dict[asyncio.Task[None], None] = {}
        self.mailboxes = Mailboxes(identity.peer, self._rng, self._send, self._spawn, lambda: self.url)

    async def start(self, within: float | None = None) -> None:
        """Register; later losses are mended quietly.

        within: seconds to wait for that; if it fails, too, it goes on trying. By default `ServerUnreachableError` is
        raised then.
        """
        if within is None:
            self._adopt(await self._register(replace=True))
            return
        self._renew()
        await self._next(within)
        if self._registration is None:
            logger.warning("not registered with %s yet: %s", self.url, self._trouble)

    @property
    def is_registered(self) -> bool:
        """Whether a server knows this peer, as far as is known here."""
        return self._registration is not None

    async def wait_registered(self) -> None:
        """Wait until a server knows this peer. Raises `ServerUnreachableError` when this is closed."""
        while self._registration is None:
            await self._next()

    async def check(self, within: float | None = None) -> None:
        """Make sure that the server is there, and register again at once if it is not: call this when the network has
        changed, or there are doubts. Returns when this peer is registered for certain, however long that takes; raises
        `ServerUnreachableError` when this is closed.

        within: seconds that the server has to answer; by default three round trips. An old connection stays until a new
        one is registered, for it may be alive after all.
        """
        if self._closed:
            raise ServerUnreachableError(self.url, self._trouble)
        self._failures = 0
        doubted = self._registration
        if doubted is None or not self._has(doubted.local_host):
            self._renew()
        elif await self._answers(doubted, within):
            return
        elif self._registration in (doubted, None):
            self._renew()
        while self._registration in (doubted, None):
            await self._next()

    async def close(self) -> None:
        """Leave the server; all sessions end."""
        self._trouble, self._closed = "this endpoint is closed", True
        await self.mailboxes.close()
        registration = self._set(None)
        for session in list(self._sessions.values()):
            await session.close()
        for session in list(self._lingering.values()):
            self._forget(session)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
            if registration is not None:
                await registration.websocket.close()
        finally:
            # Cancelled, it would stay open.
            if registration is not None:
                registration.websocket.transport.abort()

    def open(self, peer: PeerId) -> RendezvousSignalling:
        """Begin a session with a peer; the first message tells it. Raises `InvalidPeerIdError` when nothing can be
        sealed to this peer.
        """
        session = random_bytes(self._rng, SESSION_LENGTH)
        signalling = self._sessions[peer, session] = RendezvousSignalling(self, peer, session)
        return signalling

    def _dismiss(self, session: RendezvousSignalling) -> None:
        """Have a session that is closed linger."""
        if self._sessions.pop(session.key, None) is None:
            return
        if len(self._lingering) >= _MAX_SESSIONS:
            self._forget(next(iter(self._lingering.values())))
        self._lingering[session.key] = session
        self._endings[session] = self._loop.call_later(_LINGER, self._forget, session)

    def _forget(self, session: RendezvousSignalling) -> None:
        self._endings.pop(session).cancel()
        del self._lingering[session.key]
        session._stop()

    async def _register(self, *, replace: bool) -> _Registration:
        """Register with the server that was used last, or else with one of the others."""
        last = self.urls.index(self.url)
        urls = [*self.urls[last:], *self.urls[:last]]
        while True:
            greeting = await reach(urls, self._known)
            urls.remove(greeting.url)
            try:
                return await self._introduce(greeting, replace)
            except ServerUnreachableError:
                greeting.websocket.transport.abort()
                if not urls:
                    raise
            except BaseException:
                greeting.websocket.transport.abort()
                raise

    async def _introduce(self, greeting: Greeting, replace: bool) -> _Registration:
        peer, asked = self._identity.peer, self._loop.time()
        signature = self._identity.sign(protocol.signed_text(greeting.challenge.nonce, peer))
        register = Register(version=protocol.VERSION, peer=peer.key, signature=signature, replace=replace)
        with contextlib.suppress(WebSocketException):
            await greeting.websocket.send(protocol.encode(register))
            # Right behind it, as the protocol allows, what an earlier connection may have lost.
            for session in [*self._sessions.values(), *self._lingering.values()]:
                session._sequence.repeat()
                for message in session._pending():
                    await greeting.websocket.send(protocol.encode(message))
        answer = await answer_of(greeting.url, greeting.websocket)
        if not isinstance(answer, Registered):
            why = f": {answer.text}" if isinstance(answer, Refused) else ""
            raise ServerUnreachableError(greeting.url, f"it refused the registration{why}")
        stun = answer.stun_port
        self.stun_servers = tuple(Address(host, stun) for host in greeting.hosts) if stun else ()
        self._take_relays(answer.relays, greeting)
        now = self._loop.time()
        return _Registration(greeting, since=now, rtt=now - asked)

    def _adopt(self, registration: _Registration) -> None:
        greeting = registration.greeting
        self.url = greeting.url
        self._known[greeting.url] = greeting
        self._replaced, self._renewal = False, None
        if (self._registration is None and self._lost) or self._sent_away:
            self._back_since = registration.since
        self._lost = self._sent_away = False
        previous = self._set(registration)
        self._spawn(self._read(registration), "quice rendezvous")
        self._spawn(self.mailboxes.repeat(), "quice mailboxes")
        if previous is not None:
            self._spawn(_retire(previous.websocket), "quice rendezvous before")

    def _set(self, registration: _Registration | None) -> _Registration | None:
        """Have this one from now on; returns the one until now."""
        previous, self._registration = self._registration, registration
        self._wake_all()
        return previous

    def _wake_all(self) -> None:
        for waiter in self._waiting:
            _wake(waiter)

    async def _read(self, registration: _Registration) -> None:
        """Receive until the WebSocket ends, and have a new one then if it is still the one that is used."""
        websocket = registration.websocket
        with contextlib.suppress(WebSocketException):
            async for frame in websocket:
                self._receive(frame, registration.greeting)
        if registration is not self._registration:
            return
        # If a new registration is on its way, it is that which has replaced this one.
        self._replaced = websocket.close_code == protocol.REPLACED and self._renewal is None
        if self._replaced:
            self._trouble = "another program has registered with this identity, which takes one at a time"
            logger.warning("%s; this one waits until it is gone", self._trouble)
        else:
            self._trouble = "the connection to it is lost"
            logger.info("the rendezvous server is gone; trying to reach it again")
        self._lost = True
        # A server that ends each connection soon is not to be pressed.
        if self._loop.time() - registration.since > _BACKOFF[1]:
            self._failures = 0
        self._set(None)
        if self._renewal is None:
            self._renew(self._delay())

    def _renew(self, delay: float = 0.0) -> None:
        """Register again, in place of a try that has not come far or began long ago: in another network perhaps."""
        if self._closed:
            # Who had doubts was still waiting for an answer.
            return
        now = self._loop.time()
        if self._renewal is not None:
            if 0 <= now - self._renewing_since < _UNMEASURED:
                return
            self._renewal.cancel()
        self._renewal = self._spawn(self._register_again(delay), "quice rendezvous again")

    async def _register_again(self, delay: float) -> None:
        while True:
            self._renewing_since = self._loop.time() + delay
            await asyncio.sleep(delay)
            try:
                registration = await self._register(replace=not self._replaced)
            except ServerUnreachableError as error:
                logger.debug("not registered again: %s", error)
                if not self._lost:
                    # Nothing better can be said: it has never been reached.
                    self._trouble = error.reason
                delay = self._delay()
                self._wake_all()
            else:
                self._adopt(registration)
                return

    def _delay(self) -> float:
        """Seconds before the next try: exponential, with all of it left to chance, for all of a server's peers lose it
        at the same moment.
        """
        first, last = _BACKOFF
        most = last if self._replaced else min(first * 2**self._failures, last)
        self._failures = min(self._failures + 1, 30)
        return most * self._chance()

    def _chance(self) -> float:
        """A number from 0 to 1."""
        return self._rng.getrandbits(16) / (1 << 16)

    def _has(self, host: str) -> bool:
        """Whether the machine still has this address."""
        addresses = [address.host.partition("%")[0] for address in self._machine.addresses()]
        return host in addresses or Address(host, 0).ip.is_loopback

    async def _answers(self, registration: _Registration, within: float | None) -> bool:
        """Whether the server answers a ping in time."""
        if within is None:
            least, most = _ANSWER_BOUNDS
            within = min(max(least, _ANSWER_ROUND_TRIPS * registration.rtt), most)
        ping = self._spawn(_ping(registration), "quice rendezvous ping")
        try:
            # Not wait_for, which can lose a cancellation that comes together with the result (before Python 3.12).
            done, _ = await asyncio.wait([ping], timeout=within)
        finally:
            ping.cancel()
        return bool(done) and not ping.cancelled() and ping.exception() is None

    async def _next(self, timeout: float | None = None) -> None:
        """Wait for another registration, or none, for so many seconds at most. Raises `ServerUnreachableError` when
        this is closed.
        """
        if self._closed:
            raise ServerUnreachableError(self.url, self._trouble)
        waiter = self._loop.create_future()
        self._waiting[waiter] = None
        timer = None if timeout is None else self._loop.call_later(timeout, _wake, waiter)
        try:
            await waiter
        finally:
            del self._waiting[waiter]
            if timer is not None:
                timer.cancel()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)
        return task

    def _receive(self, frame: bytes | str, greeting: Greeting) -> None:
        try:
            message: ToPeer = protocol.decode_to_peer(frame)
        except ProtocolDecodeError as error:
            logger.debug("a message of the server that is none: %s", error)
            return
        match message:
            case Delivered():
                self._deliver(message)
            case Relays(relays=relays):
                self._take_relays(relays, greeting)
            case Leaving(within=within):
                # The old registration serves until the new one does.
                self._sent_away = True
                self._renew(within * self._chance())
            case Undeliverable():
                self._undeliverable(PeerId(message.to), message.session)
            case MailboxOpened() | MailboxTaken() | MailboxBody() | MailboxClosed():
                self.mailboxes.receive(message)
            case _:
                logger.debug("unexpected from the server: %s", type(message).__name__)

    def _take_relays(self, relays: tuple[RelayServer, ...], greeting: Greeting) -> None:
        self.host = greeting.host
        here = f"[{greeting.host}]" if ":" in greeting.host else greeting.host
        self.relays = tuple(
            msgspec.structs.replace(relay, urls=tuple(_at_host(url, here) for url in relay.urls)) for relay in relays
        )
        if self.on_relays is not None:
            self.on_relays(self.relays)

    def _deliver(self, message: Delivered) -> None:
        key = (PeerId(message.sender), message.session)
        session = self._sessions.get(key)
        if session is not None:
            session._give(session._take(message.body))
        elif (closed := self._lingering.get(key)) is not None:
            closed._take(message.body)
        elif key in self._begun:
            logger.debug("a message of a session that is over")
        elif len(self._sessions) < _MAX_SESSIONS and self._may_begin(key[0]):
            try:
                session = RendezvousSignalling(self, *key)
            except InvalidPeerIdError as error:
                logger.debug("a message of a peer that is none: %s", error)
            else:
                self._begin(session, message.body)

    def _may_begin(self, peer: PeerId) -> bool:
        """Whether one more message of this peer is looked at. What is not is repeated, if it is in order."""
        now = self._loop.time()
        if peer not in self._beginnings and len(self._beginnings) >= _MAX_SESSIONS:
            self._beginnings = {peer: each for peer, each in self._beginnings.items() if not each.is_whole(now)}
        return self._beginnings.setdefault(peer, Budget(_BEGINNINGS, _BEGINNINGS_PER_SECOND)).take(1, now)

    def _begin(self, session: RendezvousSignalling, body: bytes) -> None:
        """Have a session that the peer begins. Anything but a first message is late: for one that was closed here."""
        messages = session._take(body)
        if messages and isinstance(messages[0], Opening):
            if len(self._begun) >= _REMEMBERED:
                del self._begun[next(iter(self._begun))]
            self._begun[session.key] = None
            self._sessions[session.key] = session
            session._give(messages)
            self._on_session(session)
        else:
            session._stop()

    def _undeliverable(self, peer: PeerId, number: bytes) -> None:
        session = self._sessions.get((peer, number))
        if session is None:
            return
        # Who was there, or has lost the server with everybody, may be on its way back: the message is sent again.
        returning = self._loop.time() - self._back_since < _GATHERING
        if not session._sequence.is_heard and not returning:
            session._stop()
            session._end(PeerUnreachableError(str(peer)))

    async def _reachable(self) -> None:
        """Wait until a message can be sent. Raises `ServerUnreachableError` when that takes too long."""
        deadline = self._loop.time() + _PATIENCE
        while self._registration is None:
            left = deadline - self._loop.time()
            if self._replaced or left <= 0:
                raise ServerUnreachableError(self.url, self._trouble)
            await self._next(left)

    async def _send(self, message: ToServer) -> None:
        """Send, or lose: what is not acknowledged is sent again by whoever sent it."""
        if self._registration is not None:
            with contextlib.suppress(WebSocketException):
                await self._registration.websocket.send(protocol.encode(message))


def _at_host(url: str, host: str) -> str:
    """A relay's URL, with the rendezvous server's host where it names none (see `protocol.SAME_HOST`)."""
    scheme, separator, rest = url.partition(":")
    is_same = rest.startswith(":") or not rest.partition("?")[0]
    return f"{scheme}:{host}{rest}" if separator and is_same else url


async def _ping(registration: _Registration) -> None:
    """Measure the round trip. Raises `WebSocketException`."""
    registration.rtt = await (await registration.websocket.ping())


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


async def _retire(websocket: ClientConnection) -> None:
    """Have a moment to read what the server sent on this connection before it knew of the next."""
    try:
        await asyncio.sleep(servers.CLOSE_TIMEOUT)
    finally:
        websocket.transport.abort()
