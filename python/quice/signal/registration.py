"""A peer's registration with a rendezvous server, kept up for as long as the peer lives."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import WebSocketException

from quice.errors import ServerUnreachableError
from quice.identity import Identity
from quice.machine import this_machine
from quice.signal import protocol, servers
from quice.signal.protocol import Refused, Register, Registered, ToServer
from quice.signal.servers import Greeting, answer_of, reach
from quice.wire import Address

logger = logging.getLogger(__name__)

_BACKOFF = (0.25, 15.0)
"""The most seconds before the first and, doubled each time, before a later try to reach the server again."""
_PATIENCE = 5.0
"""Seconds that a message waits for the server to be reached again."""
_UNMEASURED = 0.5
"""Seconds for an answer of a server whose round trip is not known yet."""
_ANSWER_ROUND_TRIPS, _ANSWER_BOUNDS = 3, (0.2, 2.0)
"""Round trips for an answer, and how many seconds that is at least and at most: another network has others."""
_GATHERING = 5.0
"""Seconds after a server was lost in which a peer that is not there may be on its way back."""


class Registrant(Protocol):
    """Whom a server is to know."""

    def unacknowledged(self) -> Iterable[ToServer]:
        """What an earlier connection may have lost."""

    def on_registered(self, answer: Registered, greeting: Greeting) -> None:
        """A server has registered us, and answers so."""

    def on_adopted(self) -> None:
        """That server is the one that is used from now on."""

    def on_frame(self, frame: bytes | str, greeting: Greeting) -> None:
        """A server says something."""


@dataclass(eq=False)
class Registration:
    """A WebSocket on which a server knows this peer."""

    greeting: Greeting
    since: float
    rtt: float

    @property
    def websocket(self) -> ClientConnection:
        """What it is on."""
        return self.greeting.websocket

    @property
    def local_host(self) -> str:
        """The IP address of ours that it goes from."""
        host: str = self.websocket.local_address[0]
        return host.partition("%")[0]


class Registrar:
    """Has the peer registered with one server of several, or tries to, until it is closed.

    It takes the first that answers, and stays with it; when that one is lost, it is tried again before the next.
    """

    def __init__(self, urls: tuple[str, ...], identity: Identity, registrant: Registrant) -> None:
        self.url = urls[0]
        """The server that is used now, or was last."""
        self.registration: Registration | None = None
        self._urls = urls
        self._identity = identity
        self._registrant = registrant
        self._machine = this_machine()
        self._loop = asyncio.get_running_loop()
        self._known: dict[str, Greeting] = {}
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

    @property
    def peers_may_return(self) -> bool:
        """Whether all peers of a server have lost it a moment ago, so that one that is not there may be soon."""
        return self._loop.time() - self._back_since < _GATHERING

    async def start(self, within: float | None = None) -> None:
        """See `RendezvousClient`."""
        if within is None:
            self._adopt(await self._register(replace=True))
            return
        self.renew()
        await self._next(within)
        if self.registration is None:
            logger.warning("not registered with %s yet: %s", self.url, self._trouble)

    async def wait_registered(self) -> None:
        """See `RendezvousClient`."""
        while self.registration is None:
            await self._next()

    async def check(self, within: float | None = None) -> None:
        """See `RendezvousClient`."""
        if self._closed:
            raise ServerUnreachableError(self.url, self._trouble)
        self._failures = 0
        doubted = self.registration
        if doubted is None or not self._has(doubted.local_host):
            self.renew()
        elif await self._answers(doubted, within):
            return
        elif self.registration in (doubted, None):
            self.renew()
        while self.registration in (doubted, None):
            await self._next()

    async def reachable(self) -> None:
        """Wait until a message can be sent. Raises `ServerUnreachableError` when that takes too long."""
        deadline = self._loop.time() + _PATIENCE
        while self.registration is None:
            left = deadline - self._loop.time()
            if self._replaced or left <= 0:
                raise ServerUnreachableError(self.url, self._trouble)
            await self._next(left)

    async def send(self, message: ToServer) -> None:
        """Send, or lose: what is not acknowledged is sent again by whoever sent it."""
        if self.registration is not None:
            with contextlib.suppress(WebSocketException):
                await self.registration.websocket.send(protocol.encode(message))

    def leave(self, within: float) -> None:
        """The server ends in so many seconds: be at another one by then, at a moment left to chance."""
        # The old registration serves until the new one does.
        self._sent_away = True
        self.renew(within * self._chance())

    def renew(self, delay: float = 0.0) -> None:
        """Register again, in place of a try that has not come far or began long ago: in another network perhaps."""
        if self._closed:
            # Who had doubts was still waiting for an answer.
            return
        now = self._loop.time()
        if self._renewal is not None:
            if 0 <= now - self._renewing_since < _UNMEASURED:
                return
            self._renewal.cancel()
        self._renewal = self.spawn(self._register_again(delay), "quice rendezvous again")

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Do something meanwhile, until this is closed."""
        task = asyncio.create_task(work, name=name)
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)
        return task

    def end(self) -> None:
        """Register no more. What there is still serves."""
        self._trouble, self._closed = "this endpoint is closed", True

    async def close(self) -> None:
        """Leave the server, after `end`."""
        registration = self._set(None)
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

    async def _register(self, *, replace: bool) -> Registration:
        """Register with the server that was used last, or else with one of the others."""
        last = self._urls.index(self.url)
        urls = [*self._urls[last:], *self._urls[:last]]
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

    async def _introduce(self, greeting: Greeting, replace: bool) -> Registration:
        peer, asked = self._identity.peer, self._loop.time()
        signature = self._identity.sign(protocol.signed_text(greeting.challenge.nonce, peer))
        register = Register(version=protocol.VERSION, peer=peer.key, signature=signature, replace=replace)
        with contextlib.suppress(WebSocketException):
            await greeting.websocket.send(protocol.encode(register))
            # Right behind it, as the protocol allows.
            for message in self._registrant.unacknowledged():
                await greeting.websocket.send(protocol.encode(message))
        answer = await answer_of(greeting.url, greeting.websocket)
        if not isinstance(answer, Registered):
            why = f": {answer.text}" if isinstance(answer, Refused) else ""
            raise ServerUnreachableError(greeting.url, f"it refused the registration{why}")
        self._registrant.on_registered(answer, greeting)
        now = self._loop.time()
        return Registration(greeting, since=now, rtt=now - asked)

    def _adopt(self, registration: Registration) -> None:
        greeting = registration.greeting
        self.url = greeting.url
        self._known[greeting.url] = greeting
        self._replaced, self._renewal = False, None
        if (self.registration is None and self._lost) or self._sent_away:
            self._back_since = registration.since
        self._lost = self._sent_away = False
        previous = self._set(registration)
        self.spawn(self._read(registration), "quice rendezvous")
        self._registrant.on_adopted()
        if previous is not None:
            self.spawn(_retire(previous.websocket), "quice rendezvous before")

    def _set(self, registration: Registration | None) -> Registration | None:
        """Have this one from now on; returns the one until now."""
        previous, self.registration = self.registration, registration
        self._wake_all()
        return previous

    async def _read(self, registration: Registration) -> None:
        """Receive until the WebSocket ends, and have a new one then if it is still the one that is used."""
        websocket = registration.websocket
        with contextlib.suppress(WebSocketException):
            async for frame in websocket:
                self._registrant.on_frame(frame, registration.greeting)
        if registration is not self.registration:
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
            self.renew(self._delay())

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
        return self._machine.random.getrandbits(16) / (1 << 16)

    def _has(self, host: str) -> bool:
        """Whether the machine still has this address."""
        addresses = [address.host.partition("%")[0] for address in self._machine.addresses()]
        return host in addresses or Address(host, 0).ip.is_loopback

    async def _answers(self, registration: Registration, within: float | None) -> bool:
        """Whether the server answers a ping in time."""
        if within is None:
            least, most = _ANSWER_BOUNDS
            within = min(max(least, _ANSWER_ROUND_TRIPS * registration.rtt), most)
        ping = self.spawn(_ping(registration), "quice rendezvous ping")
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

    def _wake_all(self) -> None:
        for waiter in self._waiting:
            _wake(waiter)


async def _ping(registration: Registration) -> None:
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
