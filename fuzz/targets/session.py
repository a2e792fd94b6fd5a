"""An endpoint's session beside a channel whose other end says whatever it likes, in a simulated internet."""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import Iterable
from typing import Any

import msgspec

from fuzz.mutation import mutate
from fuzz.target import Target, require
from fuzz.targets.messages import SIGNAL, WORDS
from quice import Endpoint
from quice.errors import ConnectError, SignallingClosedError
from quice.identity import Identity
from quice.signal.messages import Answer, Message, Offer, Restart, decode, encode
from quice.signal.session import MAX_MESSAGES
from quice.sim.simulation import Simulation

_IDENTITY, _PEER = Identity(bytes(32)), Identity(b"p" * 32).peer
_ALPN = "test/1"
_TIMEOUT = 3.0
_END = 60.0
"""Seconds by which every session is over."""
_JUNK: tuple[Any, ...] = (None, 7, "text", b"\xff", (), object(), ("not an address", -1), ("192.0.2.1", 1 << 20))
_ENDS: tuple[type[Exception] | None, ...] = (None, SignallingClosedError, OSError, KeyError, EOFError)


class Channel:
    """A carrier of signalling whose other end has said this, and says nothing more.

    Bytes are decoded here, as a carrier should; anything else is given as it is, and exceptions are raised. `fails`:
    with what sending and closing do; `takes`: so many messages, and does not return from sending and closing any more.
    """

    def __init__(self, said: Iterable[object], fails: type[Exception] | None = None, takes: float = math.inf) -> None:
        self.sent: list[Message] = []
        self._said = deque(said)
        self._fails = fails
        self._takes = takes

    async def send(self, message: Message) -> None:
        """See `Signalling`."""
        encode(message)
        self.sent.append(message)
        await self._respond()

    async def receive(self) -> Message:
        """See `Signalling`."""
        if not self._said:
            await asyncio.Event().wait()
        said: Any = self._said.popleft()
        if isinstance(said, Exception):
            raise said
        return decode(said) if isinstance(said, bytes) else said

    async def close(self) -> None:
        """See `Signalling`."""
        await self._respond()

    async def _respond(self) -> None:
        if len(self.sent) > self._takes:
            await asyncio.Event().wait()
        if self._fails is not None:
            raise self._fails


def hear(channel: Channel, *, initiates: bool) -> ConnectError | None:
    """Have an endpoint connect over the channel, or answer it, and end in order. Returns what it has failed with, if
    that is an error that is meant for users; everything else that is raised or reported is raised here."""
    failures: list[dict[str, Any]] = []

    async def take_part(endpoint: Endpoint) -> None:
        if initiates:
            await endpoint.connect(_PEER, alpn=_ALPN, signalling=channel, timeout=_TIMEOUT)
        else:
            await endpoint.respond(_PEER, channel)

    async def main() -> ConnectError | None:
        error = None
        async with Endpoint.bind(_IDENTITY, alpns=[_ALPN]) as endpoint:
            try:
                await asyncio.wait_for(take_part(endpoint), _END)
            except ConnectError as raised:
                error = raised
            except asyncio.TimeoutError:
                require(False, f"not over after {_END:g} s")
            await asyncio.sleep(0)
            receivers = endpoint._surroundings._receivers
            require(not receivers, f"{len(receivers)} sessions are left")
        return error

    with Simulation(seed=1) as simulation:
        simulation.loop.set_exception_handler(lambda _, context: failures.append(context))
        host = simulation.world.host("target")
        with host:
            error = simulation.run(main())
    require(not failures, f"{failures}")
    require(len(channel.sent) <= MAX_MESSAGES, f"{len(channel.sent)} messages said")
    return error


def _anything(rng: random.Random) -> object:
    """Something that a channel gives: often a message, sometimes none."""
    choice = rng.random()
    if choice < 0.6:
        return encode(rng.choice(WORDS))
    if choice < 0.75:
        return mutate(rng, SIGNAL)
    if choice < 0.95:
        # What a channel gives that has a codec of its own, and checks nothing.
        message = rng.choice(WORDS)
        fields = message.__struct_fields__
        return msgspec.structs.replace(message, **{rng.choice(fields): rng.choice(_JUNK)}) if fields else message
    return rng.choice((*_JUNK, OSError("gone"), SignallingClosedError(), ValueError(), RecursionError()))


def _play(rng: random.Random) -> None:
    initiates = rng.random() < 0.5
    said = [_anything(rng) for _ in range(rng.choice((0, 1, 2, 3, 5, 10, 300)))]
    if rng.random() < 0.8:
        # So that it does not end with what it begins with.
        first = (Answer,) if initiates else (Offer, Restart)
        said.insert(0, encode(rng.choice([word for word in WORDS if isinstance(word, first)])))
    if rng.random() < 0.3:
        said = [each for each in said for _ in range(rng.choice((1, 2)))]
    if not said:
        # Who answers waits for the first message as long as the channel does.
        said.append(SignallingClosedError())
    fails = rng.choice(_ENDS) if rng.random() < 0.2 else None
    error = hear(Channel(said, fails, rng.choice((*[math.inf] * 9, 0, 1))), initiates=initiates)
    require(not initiates or error is not None, "connected with nobody")


TARGETS = (Target("session", _play),)
