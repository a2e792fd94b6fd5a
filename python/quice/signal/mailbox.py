"""Codes through a rendezvous server: both sides of a mailbox, over any number of connections to the server."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple

from quice.errors import CodeGoneError, CodeLimitError, ServerUnreachableError, WrongCodeError
from quice.identity import PeerId
from quice.signal.codes import Code, password_of, random_words
from quice.signal.pairing import Claimant, Opener
from quice.signal.protocol import (
    AttendMailbox,
    ClaimMailbox,
    CloseMailbox,
    MailboxBody,
    MailboxClosed,
    MailboxEnd,
    MailboxOpened,
    MailboxTaken,
    MailboxToPeer,
    MailboxToServer,
    OpenMailbox,
    PutMailbox,
)
from quice.wire import Random

_ANSWER_TIMEOUT = 10.0
"""Seconds for the server's answer, also over another connection when one was lost."""
_PATIENCE = 30.0
"""Seconds that the other side may take to say what is its turn to say."""
_LEAST_INTERVAL = 1.0
"""Seconds between two words of attendance, however short a time the server gives a mailbox."""
_MAX_WAITING = 8
"""Messages about one mailbox that wait to be looked at: more than there are."""
_MAX_SETTLED = 8
"""Exchanges that are over here, but whose last word is said again on a new connection."""


class Paired(NamedTuple):
    """Who is at the other side of a code, for certain, and what that side had to say."""

    peer: PeerId
    payload: bytes


class OfferedCode:
    """A code that waits for the one who is told it. `str()` gives its text."""

    def __init__(self, mailboxes: Mailboxes, offer: _Offer, box: _Box, opened: MailboxOpened) -> None:
        self.code = Code(opened.number, offer.words)
        self._mailboxes = mailboxes
        self._opener = offer.opener
        self._box = box
        self._interval = max(opened.lifetime / 2, _LEAST_INTERVAL)
        self._ends = asyncio.get_running_loop().time() + opened.longest

    async def wait(self) -> Paired:
        """Wait until somebody has entered the code. Afterwards, whatever comes of it, the code is used up.

        Raises `WrongCodeError` when somebody has tried a wrong one under its number, and `CodeGoneError` when it has
        run out, as it does after an hour with `quice serve`, or the server has lost it.
        """
        try:
            return await self._wait()
        finally:
            await self.close()

    async def close(self) -> None:
        """Let nobody use the code any more; whoever waits for it gets `CodeGoneError`. Harmless when it is used up."""
        await self._mailboxes.leave(self._box)

    async def _wait(self) -> Paired:
        loop = asyncio.get_running_loop()
        number, ends, taken = self.code.number, self._ends, False
        while True:
            attends = math.inf if taken else loop.time() + self._interval
            message = await self._box.next(min(attends, ends))
            match message:
                case MailboxTaken():
                    taken, ends = True, loop.time() + _PATIENCE
                case MailboxBody(peer=key, body=answer):
                    claimant = PeerId(key)
                    reply, payload = self._opener.settle(number, claimant, answer)
                    await self._mailboxes.settle(self._box, PutMailbox(number=number, body=reply))
                    return Paired(claimant, payload)
                case MailboxClosed(reason=MailboxEnd.CLOSED):
                    raise WrongCodeError
                case MailboxClosed():
                    raise CodeGoneError("the server does not know this code any more")
                case None if taken:
                    raise WrongCodeError
                case None if loop.time() >= self._ends:
                    raise CodeGoneError("nobody has entered the code in time")
                case _:
                    await self._mailboxes.say(AttendMailbox(number=number))

    def __str__(self) -> str:
        return str(self.code)


class Mailboxes:
    """The mailboxes of one peer at its server."""

    def __init__(
        self,
        peer: PeerId,
        rng: Random,
        send: Callable[[MailboxToServer], Awaitable[None]],
        spawn: Callable[[Coroutine[Any, Any, None], str], object],
        url: Callable[[], str],
    ) -> None:
        """`send`: to the server; `repeat` says again what is lost with a connection. `spawn`: does something meanwhile.
        `url`: the server's.
        """
        self.say = send
        self._peer = peer
        self._rng = rng
        self._spawn = spawn
        self._url = url
        self._offers: deque[_Offer] = deque()
        """What was asked for, in the order of the answers."""
        self._boxes: dict[int, _Box] = {}
        self._settled: deque[PutMailbox] = deque(maxlen=_MAX_SETTLED)

    async def offer(self, payload: bytes) -> OfferedCode:
        """Have a code for somebody, who gets `payload` by it. Raises `CodeLimitError` and `ServerUnreachableError`."""
        words = random_words(self._rng)
        opener = Opener(password_of(words), self._peer, payload, self._rng)
        offer = _Offer(words, opener, asyncio.get_running_loop().create_future())
        self._offers.append(offer)
        try:
            await self.say(offer.message)
            await asyncio.wait([offer.offered], timeout=_ANSWER_TIMEOUT)
        except BaseException:
            self._abandon(offer)
            raise
        if not offer.offered.done():
            self._abandon(offer)
            raise ServerUnreachableError(self._url(), "it did not open a mailbox in time")
        return offer.offered.result()

    def _abandon(self, offer: _Offer) -> None:
        """Nobody waits for it any more."""
        # Its place in the order stays: the answer may come yet.
        if not offer.offered.cancel() and not offer.offered.cancelled() and offer.offered.exception() is None:
            self._spawn(offer.offered.result().close(), "quice mailbox")

    async def enter(self, code: Code, payload: bytes) -> Paired:
        """Meet the one who has offered this code, who gets `payload`.

        Raises `WrongCodeError`, `CodeGoneError`, `CodeLimitError`, and `ServerUnreachableError`.
        """
        if code.number in self._boxes:
            raise CodeGoneError("this program has offered this code itself, or is trying it already")
        box = self._boxes[code.number] = _Box(code.number, ClaimMailbox(number=code.number))
        try:
            await self.say(box.again)
            deadline = asyncio.get_running_loop().time() + _ANSWER_TIMEOUT
            opener, greeting = await self._body(box, deadline, "the server did not answer")
            claimant = Claimant(password_of(code.words), code.number, self._peer, opener, greeting, payload, self._rng)
            box.again = PutMailbox(number=code.number, body=claimant.answer)
            await self.say(box.again)
            deadline = asyncio.get_running_loop().time() + _PATIENCE
            while True:
                _, reply = await self._body(box, deadline, "the other side did not answer")
                # The greeting may come twice, where the claim was said again.
                if reply != greeting:
                    return Paired(opener, claimant.finish(reply))
        finally:
            await self.leave(box)

    async def _body(self, box: _Box, deadline: float, silence: str) -> tuple[PeerId, bytes]:
        match await box.next(deadline):
            case MailboxBody(peer=key, body=body):
                return PeerId(key), body
            case MailboxClosed(reason=MailboxEnd.CLOSED):
                raise WrongCodeError
            case MailboxClosed(reason=MailboxEnd.LIMIT):
                raise CodeLimitError
            case None:
                raise CodeGoneError(silence)
            case _:
                raise CodeGoneError("there is no such code, or it was used already")

    def receive(self, message: MailboxToPeer) -> None:
        """Take in what the server says."""
        match message:
            case MailboxOpened():
                self._on_opened(message)
            case MailboxClosed(number=0):
                if self._offers and not (offered := self._offers.popleft().offered).done():
                    offered.set_exception(CodeLimitError())
            case _ if (box := self._boxes.get(message.number)) is not None:
                box.give(message)

    def _on_opened(self, opened: MailboxOpened) -> None:
        # One that was asked for twice, over two connections, is answered twice.
        if opened.number in self._boxes or not self._offers:
            return
        offer = self._offers.popleft()
        if offer.offered.done():
            self._spawn(self._decline(opened.number), "quice mailbox")
            return
        box = self._boxes[opened.number] = _Box(opened.number, AttendMailbox(number=opened.number))
        offer.offered.set_result(OfferedCode(self, offer, box, opened))

    async def _decline(self, number: int) -> None:
        await self.say(CloseMailbox(number=number))

    async def repeat(self) -> None:
        """Say again, on a new connection, what an earlier one may have lost."""
        for message in [
            *(offer.message for offer in self._offers),
            *self._settled,
            *(box.again for box in self._boxes.values()),
        ]:
            await self.say(message)

    async def settle(self, box: _Box, last: PutMailbox) -> None:
        """Say the last word of an exchange."""
        del self._boxes[last.number]
        self._settled.append(last)
        await self.say(last)

    async def leave(self, box: _Box) -> None:
        """Have done with a mailbox, and have the server know. Harmless when it is over."""
        box.end(CodeGoneError("this side has closed it"))
        if self._boxes.get(box.number) is box:
            del self._boxes[box.number]
            await self.say(CloseMailbox(number=box.number))

    async def close(self) -> None:
        """Leave all of them. Who waits for something is told by a `ServerUnreachableError`."""
        error = ServerUnreachableError(self._url(), "this endpoint is closed")
        for offer in self._offers:
            if not offer.offered.done():
                offer.offered.set_exception(error)
        for box in list(self._boxes.values()):
            box.end(error)
            await self.leave(box)


class _Offer(NamedTuple):
    """A mailbox that the server was asked for."""

    words: tuple[str, str]
    opener: Opener
    offered: asyncio.Future[OfferedCode]

    @property
    def message(self) -> OpenMailbox:
        return OpenMailbox(body=self.opener.greeting)


class _Box:
    """A mailbox as one side has it."""

    def __init__(self, number: int, again: MailboxToServer) -> None:
        self.number = number
        self.again = again
        """What to say on a new connection."""
        self._messages: deque[MailboxToPeer] = deque()
        self._ended: Exception | None = None
        self._changed = asyncio.Event()

    def give(self, message: MailboxToPeer) -> None:
        if len(self._messages) < _MAX_WAITING:
            self._messages.append(message)
        self._changed.set()

    def end(self, error: Exception) -> None:
        """Nothing more comes: raise this, unless it has ended before."""
        self._ended = self._ended or error
        self._changed.set()

    async def next(self, deadline: float) -> MailboxToPeer | None:
        """The next message about it; None when the time has come. Raises what it was ended with."""
        loop = asyncio.get_running_loop()
        timer = None if deadline == math.inf else loop.call_at(deadline, self._changed.set)
        try:
            if not self._messages and self._ended is None:
                self._changed.clear()
                await self._changed.wait()
        finally:
            if timer is not None:
                timer.cancel()
        if self._ended is not None:
            raise self._ended
        return self._messages.popleft() if self._messages else None
