"""One attempt of two peers to reach each other: gathering, signalling and checks, tied together on asyncio."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Protocol

from quice.errors import NoPathError, RefusedError, SignallingError
from quice.ice import (
    Agent,
    Base,
    Candidate,
    CandidatePair,
    Failed,
    Gathered,
    Gatherer,
    GatheringComplete,
    Nominating,
    Report,
    Role,
    Selected,
)
from quice.machine import this_machine
from quice.signal.interface import Signalling
from quice.signal.messages import (
    VERSION,
    Answer,
    Bye,
    CandidateFound,
    EndOfCandidates,
    Message,
    Offer,
    Refuse,
    SignalDecodeError,
    public,
)
from quice.wire import Address, Transmit


class Port(Protocol):
    """What a session needs of its endpoint's socket."""

    @property
    def bases(self) -> list[Base]:
        """The local addresses that can be sent from."""

    def send(self, transmit: Transmit) -> None:
        """Send a datagram."""


class Session:
    """The life of one offer, on either side. The endpoint feeds it datagrams by `receive`."""

    def __init__(self, role: Role, port: Port, stun_servers: tuple[Address, ...], signalling: Signalling) -> None:
        self._loop = asyncio.get_running_loop()
        self.began = self._loop.time()
        """When the session began, on the loop's clock."""
        self._port = port
        self._signalling = signalling
        self._initiates = role is Role.CONTROLLING
        rng = this_machine().random
        self.agent = Agent(role, rng, self._loop.time())
        self._gatherer = Gatherer(port.bases, stun_servers, rng, self._loop.time())
        self._timer: asyncio.TimerHandle | None = None
        self._open = False
        self._outbox: asyncio.Queue[Message] = asyncio.Queue()
        self._chosen: asyncio.Future[CandidatePair] = self._loop.create_future()
        self.connected = asyncio.Event()
        """Set by the endpoint, once QUIC is established."""
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False
        self._step()

    @property
    def report(self) -> Report:
        """What is known so far."""
        return self.agent.report

    async def initiate(self, alpn: str) -> CandidatePair:
        """Offer, and wait for the pair on which QUIC can begin.

        Raises `NoPathError`, `RefusedError` and `SignallingError`.
        """
        candidates = self._begin_trickle()
        credentials = self.agent.credentials
        offer = Offer(version=VERSION, ufrag=credentials.ufrag, pwd=credentials.pwd, alpn=alpn, candidates=candidates)
        await self._signalling.send(offer)
        self._start_exchange()
        return await self._chosen

    async def respond(self, offer: Offer) -> CandidatePair:
        """Answer an offer, and wait until the peer has selected a pair. Raises as `initiate`."""
        candidates = self._begin_trickle()
        credentials = self.agent.credentials
        self._take_credentials(offer)
        await self._signalling.send(Answer(ufrag=credentials.ufrag, pwd=credentials.pwd, candidates=candidates))
        self._start_exchange()
        return await self._chosen

    def receive(self, data: bytes, source: Address, destination: Address) -> bool:
        """Take in a STUN datagram; returns whether it was for this session."""
        now = self._loop.time()
        taken = self._gatherer.receive(data, source, destination, now) or self.agent.receive(
            data, source, destination, now
        )
        if taken:
            self._step()
        return taken

    async def close(self) -> None:
        """End the session and its signalling."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if not self._chosen.done():
            self._chosen.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(SignallingError):
            await self._signalling.send(Bye())
        await self._signalling.close()
        self.agent.close()

    def _begin_trickle(self) -> tuple[Candidate, ...]:
        """The candidates known by now, which go out at once; those found later follow one by one."""
        self._open = True
        return tuple(public(candidate) for candidate in self.report.local_candidates)

    def _start_exchange(self) -> None:
        for run in (self._send_messages, self._receive_messages):
            self._tasks.append(asyncio.create_task(self._guarded(run)))

    async def _guarded(self, run: Callable[[], Awaitable[None]]) -> None:
        try:
            await run()
        except (SignallingError, SignalDecodeError, RefusedError) as error:
            # What was exchanged may do, and checks from the peer may still come: only a refusal is final.
            if isinstance(error, RefusedError) or not self.agent.report.remote_candidates:
                self._fail(error)

    async def _send_messages(self) -> None:
        while True:
            await self._signalling.send(await self._outbox.get())

    async def _receive_messages(self) -> None:
        while True:
            message = await self._signalling.receive()
            now = self._loop.time()
            match message:
                case Answer() if self._initiates:
                    self._take_credentials(message)
                case CandidateFound():
                    self.agent.add_remote_candidate(message.candidate, now)
                case EndOfCandidates():
                    self.agent.end_of_remote_candidates()
                case Refuse():
                    raise RefusedError(message.reason.value, message.text)
                case Bye() | Offer() | Answer():
                    pass
            self._step()

    def _take_credentials(self, message: Offer | Answer) -> None:
        now = self._loop.time()
        for candidate in message.candidates:
            self.agent.add_remote_candidate(candidate, now)
        self.agent.set_remote_credentials(message.ufrag, message.pwd, now)
        self._step()

    def _step(self) -> None:
        """Let both machines do what is due, carry out what they want, and set the timer for the next time."""
        if self._closed:
            return
        now = self._loop.time()
        for machine in (self._gatherer, self.agent):
            while (due := machine.timeout()) is not None and due <= now:
                machine.handle_timeout(now)
        self._collect(now)
        for machine in (self._gatherer, self.agent):
            for transmit in machine.transmits():
                self._port.send(transmit)
        times = [time for machine in (self._gatherer, self.agent) if (time := machine.timeout()) is not None]
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(min(times), self._step) if times else None

    def _collect(self, now: float) -> None:
        for event in self._gatherer.events():
            match event:
                case Gathered(candidate):
                    self.agent.add_local_candidate(candidate, now)
                    if self._open:
                        self._outbox.put_nowait(CandidateFound(candidate=public(candidate)))
                case GatheringComplete():
                    self.agent.end_of_local_candidates()
                    self._outbox.put_nowait(EndOfCandidates())
        for outcome in self.agent.events():
            match outcome:
                case Nominating(pair) | Selected(pair):
                    if not self._chosen.done():
                        self._chosen.set_result(pair)
                case Failed(reason):
                    self._fail(NoPathError(reason))
                case _:
                    pass

    def _fail(self, error: Exception) -> None:
        if not self._chosen.done():
            self._chosen.set_exception(error)
