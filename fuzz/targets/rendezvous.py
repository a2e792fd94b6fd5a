"""A client of a rendezvous server, with the server and its other peers saying whatever they like."""

from __future__ import annotations

import contextlib
import random
from types import SimpleNamespace
from typing import Any, cast

import msgspec

from fuzz.mutation import mutate
from fuzz.target import Target, require
from fuzz.targets.messages import ENVELOPES, SIGNAL, TO_PEER
from quice.errors import SignallingError
from quice.identity import Identity
from quice.signal import protocol
from quice.signal.messages import Opening
from quice.signal.rendezvous import RendezvousClient
from quice.signal.seal import Seal
from quice.signal.sealed import RendezvousSignalling
from quice.signal.sequence import Envelope
from quice.signal.servers import Greeting
from quice.sim.simulation import Simulation

_US, *_PEERS = (Identity(bytes([number]) * 32) for number in range(1, 5))
_SESSIONS = tuple(bytes([number]) * 16 for number in range(4))
_GREETING = cast("Greeting", SimpleNamespace(host="192.0.2.1", hosts=("192.0.2.1",), url="ws://192.0.2.1"))
_NOBODY = bytes(32), b"\1" + bytes(31), b"\xff" * 32


def _envelope(rng: random.Random) -> bytes:
    """What a peer that has a key may say: anything, in any order."""
    if rng.random() < 0.3:
        return mutate(rng, ENVELOPES)[: protocol.MAX_BODY - 112]
    message = rng.choice(SIGNAL) if rng.random() < 0.8 else mutate(rng, SIGNAL)
    number = rng.choice((0, 1, 1, 2, 3, 4, 128, 129, (1 << 32) - 1))
    return msgspec.msgpack.encode(Envelope(number, rng.choice((0, 1, 2, 1 << 31)), message[:16_000]))


def _frame(rng: random.Random, seals: dict[tuple[int, int], Seal], kept: list[bytes]) -> bytes:
    """A WebSocket message of the server."""
    choice = rng.random()
    if choice < 0.15:
        return mutate(rng, TO_PEER)
    if choice < 0.25 and kept:
        return rng.choice(kept)
    peer, session = rng.randrange(len(_PEERS)), rng.randrange(len(_SESSIONS))
    body = seals[peer, session].seal(_envelope(rng))
    sender, number = _PEERS[peer].peer.key, _SESSIONS[session]
    kind = rng.random()
    if kind < 0.1:
        body = mutate(rng, (body,))[: protocol.MAX_BODY]
    elif kind < 0.15:
        sender = rng.choice(_NOBODY)
    elif kind < 0.2:
        number = rng.choice(_SESSIONS)
    elif kind < 0.25:
        return protocol.encode(protocol.Undeliverable(to=sender, session=number))
    kept.append(protocol.encode(protocol.Delivered(sender=sender, session=number, body=body)))
    return kept[-1]


async def _converse(rng: random.Random) -> None:
    begun: list[RendezvousSignalling] = []

    def begin(session: RendezvousSignalling) -> None:
        require(isinstance(session._incoming._queue[0], Opening), "a session that begins with something else")  # type: ignore[attr-defined]
        begun.append(session)

    client = RendezvousClient("ws://192.0.2.1", _US, begin)
    seals = {
        (peer, session): Seal(_PEERS[peer], _US.peer, number, rng)
        for peer in range(len(_PEERS))
        for session, number in enumerate(_SESSIONS)
    }
    kept: list[bytes] = []
    for _ in range(rng.choice((3, 10, 30))):
        client.on_frame(_frame(rng, seals, kept), _GREETING)
        for session in begun:
            if rng.random() < 0.3 and not session._incoming.empty():
                await session.receive()
            if rng.random() < 0.1:
                await session.close()
        require(len(client.sessions.active) + len(client.sessions.lingering) <= len(seals), "sessions of nobody")
        require(len({session.key for session in begun}) == len(begun), "a session that has begun twice")
    await client.close()
    require(not client.sessions.active and not client.sessions.lingering, "sessions outlive their client")
    for session in begun:
        while not session._incoming.empty():
            await session.receive()
        with contextlib.suppress(SignallingError):
            await session.receive()
            require(False, "a session that goes on beyond its end")


def _play(rng: random.Random) -> None:
    failures: list[dict[str, Any]] = []
    with Simulation(seed=1) as simulation:
        simulation.loop.set_exception_handler(lambda _, context: failures.append(context))
        with simulation.world.host("target"):
            simulation.run(_converse(rng))
    require(not failures, f"{failures}")


TARGETS = (Target("rendezvous-client", _play),)
