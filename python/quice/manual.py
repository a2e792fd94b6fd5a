"""Connecting by two texts that people carry: no server takes part but for STUN.

One side makes an offer, whose `description` goes to the other side by any way there is: a chat, a letter, a QR code.
The other side answers it, and that text goes back. Who carries them takes minutes, so that both sides are patient: STUN
servers are asked again and again (`quice.discovery`), which keeps the mappings that the texts name, and the answering
side's checks are repeated, which keeps its firewall open, until the offering side begins its own.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TypeVar

from quice.connection import Connection
from quice.errors import ConnectTimeoutError, DescriptionError, NoPathError, SignallingClosedError
from quice.identity import PeerId
from quice.introductions import Introductions
from quice.meeting import Meeting
from quice.policy import Policy
from quice.session import Session
from quice.signal.manual import MAX_ALPN, ManualSignalling, WrittenAnswer, WrittenOffer
from quice.signal.messages import Answer, Offer

GATHERING = 3.0
"""Seconds that a text waits for candidates. Those that come later are told to nobody."""
PATIENCE = 600.0
"""Seconds that carrying the texts may take, by default."""
TIMEOUT = 30.0
"""Seconds from the answer to the connection: 16 until the peer's firewall is open, if it has forgotten."""

SessionT = TypeVar("SessionT", bound="_ManualSession")


class _ManualSession:
    """What both sides have in common: it ends in a connection, which is kept until somebody asks for it."""

    def __init__(self, introductions: Introductions, meeting: Meeting, session: Session, policy: Policy) -> None:
        self._introductions = introductions
        self._meeting = meeting
        self._session = session
        self._policy = policy
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._connection: asyncio.Future[Connection] = self._loop.create_future()
        # That nobody asks for it is no fault.
        self._connection.add_done_callback(lambda future: future.exception())
        self._is_handed_out = False
        self._task = introductions.surroundings.spawn(self._follow(), "quice manual session")

    async def close(self) -> None:
        """Give up. A connection that somebody has got stays open."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if not self._connection.done():
            # The task had not even begun.
            await self._give_up(SignallingClosedError())
        elif self._connection.exception() is None and not self._is_handed_out:
            self._connection.result().close()

    async def __aenter__(self: SessionT) -> SessionT:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _follow(self) -> None:
        """Wait for the connection, and have it looked after."""
        try:
            connection = await self._meeting.connected
        except NoPathError as error:
            await self._give_up(self._introductions.explained(error, self._policy))
        except Exception as error:
            await self._give_up(error)
        except asyncio.CancelledError:
            await self._give_up(SignallingClosedError())
            raise
        else:
            connection.connect_seconds = self._loop.time() - self._began
            self._introductions.settle(self._session, self._meeting, connection, self._policy)
            self._connection.set_result(connection)

    async def _give_up(self, error: Exception) -> None:
        self._connection.set_exception(error)
        self._meeting.close()
        await self._introductions.end(self._session)

    async def _connected(self) -> Connection:
        connection = await asyncio.shield(self._connection)
        self._is_handed_out = True
        return connection


class ManualOffer(_ManualSession):
    """An offer that people carry, made by `Endpoint.offer`.

    description: the text for the other side. Close the offer unless it is completed; `async with` does.
    """

    def __init__(
        self,
        introductions: Introductions,
        meeting: Meeting,
        session: Session,
        policy: Policy,
        signalling: ManualSignalling,
        written: WrittenOffer,
        patience: float,
    ) -> None:
        super().__init__(introductions, meeting, session, policy)
        late = NoPathError(f"no answer to the offer came within {patience:g} s")
        self._deadline = self._loop.call_later(patience, meeting.on_failed, late)
        self._signalling = signalling
        self._tag = written.tag
        self.description = str(written)

    async def close(self) -> None:
        """Give up. A connection that somebody has got stays open."""
        self._deadline.cancel()
        await super().close()

    async def complete(self, answer: str, *, timeout: float = TIMEOUT) -> Connection:
        """Connect to who has answered, by the text that the other side shows.

        Raises `DescriptionError` for a text that is no answer to this offer: the right one may still come. And a
        `ConnectError`, after which the offer is of no use any more: `NoPathError` when no candidates reach each other
        or the answer came too late, `ConnectTimeoutError` after `timeout` seconds, `HandshakeError`.
        """
        written = WrittenAnswer.parse(answer)
        if written.tag != self._tag:
            raise DescriptionError("it answers another offer than this one")
        if self._meeting.peer not in (None, written.peer):
            raise DescriptionError("another peer has answered this offer before")
        self._meeting.peer = written.peer
        self._deadline.cancel()
        self._began = self._loop.time()
        self._signalling.bring(written.answer)
        try:
            return await asyncio.wait_for(self._connected(), timeout)
        except asyncio.TimeoutError:
            await self.close()
            reason = "no pair of candidates was found to work"
            raise ConnectTimeoutError(timeout, self._introductions.with_relays(reason)) from None


class ManualAnswer(_ManualSession):
    """The answer to an offer that people carry, made by `Endpoint.answer`.

    description: the text for the other side. peer: who offers. Close the answer unless it has connected; `async with`
    does.
    """

    def __init__(
        self,
        introductions: Introductions,
        meeting: Meeting,
        session: Session,
        policy: Policy,
        written: WrittenAnswer,
        peer: PeerId,
    ) -> None:
        super().__init__(introductions, meeting, session, policy)
        self.peer = peer
        self.description = str(written)

    async def connected(self) -> Connection:
        """The connection, once the other side has got the answer.

        Raises a `ConnectError`: `NoPathError` when that takes too long or no candidates reach each other.
        """
        return await self._connected()


async def offer(introductions: Introductions, alpn: str, policy: Policy, patience: float) -> ManualOffer:
    """Offer a connection to whoever gets the text. Raises `NoPathError`, and `ValueError` for too long an alpn."""
    if len(alpn.encode()) > MAX_ALPN:
        raise ValueError(f"an alpn of more than {MAX_ALPN} bytes leaves no room in a text that people carry")
    introductions.raise_if_confined(policy)
    await introductions.surroundings.discovery.settle(GATHERING)
    signalling = ManualSignalling()
    meeting, session = introductions.meet(None, alpn, signalling, policy, patience=patience)
    await session.offer(alpn)
    said = signalling.said.result()
    assert isinstance(said, Offer)
    return ManualOffer(
        introductions, meeting, session, policy, signalling, WrittenOffer(introductions.us, said), patience
    )


async def answer(introductions: Introductions, text: str, patience: float) -> ManualAnswer:
    """Answer an offer, and begin to check. Raises `DescriptionError` and `NoPathError`."""
    written = WrittenOffer.parse(text)
    policy = introductions.policy
    if written.peer == introductions.us:
        raise DescriptionError("it is this side's own offer")
    if written.offer.alpn not in introductions.alpns:
        raise DescriptionError(f"it is for the application protocol {written.offer.alpn!r}, and this side takes others")
    introductions.raise_if_confined(policy)
    await introductions.surroundings.discovery.settle(GATHERING)
    signalling = ManualSignalling()
    meeting, session = introductions.meet(written.peer, written.offer.alpn, signalling, policy, written.offer, patience)
    await session.respond()
    signalling.bring()
    said = signalling.said.result()
    assert isinstance(said, Answer)
    answered = WrittenAnswer(introductions.us, said, written.tag)
    return ManualAnswer(introductions, meeting, session, policy, answered, written.peer)
