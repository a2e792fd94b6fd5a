"""A rendezvous server whose owner is the attacker, and the clients that use it; in the simulated internet."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field, replace

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from quice.identity import Identity, PeerId
from quice.machine import this_machine
from quice.signal import protocol
from quice.signal.protocol import Challenge, Deliver, Delivered, Register, Registered
from quice.signal.rendezvous import RendezvousClient
from quice.signal.sealed import RendezvousSignalling
from quice.sim.world import World

PORT = 4780
PATIENCE = 10.0
"""Simulated seconds in which what is repeated has been, and what will ever come has come."""


@dataclass(frozen=True)
class Passing:
    """Something that one peer has said to another, on its way through the server."""

    sender: PeerId
    receiver: PeerId
    session: bytes
    body: bytes

    def altered(self, **changes: object) -> Passing:
        """Another one, that differs in these."""
        return replace(self, **changes)  # type: ignore[arg-type]


Meddle = Callable[[Passing], Iterable[Passing]]


def honestly(passing: Passing) -> list[Passing]:
    """What the server should do."""
    return [passing]


@dataclass
class Malicious:
    """Passes on what `meddle` makes of what comes, and remembers everything."""

    meddle: Meddle = honestly
    passed: list[Passing] = field(default_factory=list)
    """All that came, in order."""
    frames: list[bytes] = field(default_factory=list)
    """Each WebSocket message that came or went, as the server sees it."""
    peers: dict[PeerId, ServerConnection] = field(default_factory=dict)

    async def serve(self, connection: ServerConnection) -> None:
        """Serve one connection. Whoever comes is believed."""
        with contextlib.suppress(ConnectionClosed):
            await self._send(connection, Challenge(version=protocol.VERSION, nonce=bytes(protocol.NONCE_LENGTH)))
            register = protocol.decode_to_server(await self._receive(connection))
            assert isinstance(register, Register)
            peer = PeerId(register.peer)
            self.peers[peer] = connection
            await self._send(connection, Registered(stun_port=0))
            while True:
                deliver = protocol.decode_to_server(await self._receive(connection))
                assert isinstance(deliver, Deliver)
                passing = Passing(peer, PeerId(deliver.to), deliver.session, deliver.body)
                self.passed.append(passing)
                await self.give(*self.meddle(passing))

    async def give(self, *passings: Passing) -> None:
        """Give these to their receivers."""
        for passing in passings:
            delivered = Delivered(sender=passing.sender.key, session=passing.session, body=passing.body)
            await self._send(self.peers[passing.receiver], delivered)

    async def _receive(self, connection: ServerConnection) -> bytes:
        frame = await connection.recv()
        assert isinstance(frame, bytes)
        self.frames.append(frame)
        return frame

    async def _send(self, connection: ServerConnection, message: protocol.ToPeer) -> None:
        frame = protocol.encode(message)
        self.frames.append(frame)
        await connection.send(frame)


class Client(RendezvousClient):
    """A client of the attacker's server, and the sessions that others have begun with it."""

    def __init__(self, url: str, identity: Identity) -> None:
        self.begun: asyncio.Queue[RendezvousSignalling] = asyncio.Queue()
        super().__init__(url, identity, self.begun.put_nowait)

    @property
    def peer(self) -> PeerId:
        return self.identity.peer


@dataclass(frozen=True)
class Scene:
    """Three peers at the attacker's server."""

    server: Malicious
    url: str
    alice: Client
    bob: Client
    carol: Client


@contextlib.asynccontextmanager
async def malicious(world: World) -> AsyncIterator[tuple[Malicious, str]]:
    """The attacker's server on a host of its own, and its URL."""
    attacker = Malicious()
    host = world.host("attacker")
    with host:
        listener = this_machine().listen(None, PORT)
        server = await serve(attacker.serve, sock=listener, compression=None, ping_interval=None, close_timeout=1)
    yield attacker, "ws://attacker:4780"
    server.close()
    await server.wait_closed()


@contextlib.asynccontextmanager
async def scene(world: World) -> AsyncIterator[Scene]:
    """The attacker's server, which is honest at first, and three clients."""
    async with malicious(world) as (attacker, url), contextlib.AsyncExitStack() as stack:
        clients = []
        for number, name in enumerate(("alice", "bob", "carol"), 1):
            with world.host(name):
                client = Client(url, Identity(bytes([number]) * 32))
                await client.start()
            stack.push_async_callback(client.close)
            clients.append(client)
        yield Scene(attacker, url, *clients)
