"""A peer that was written from docs/rendezvous.md alone, and one of quice's, at quice's server."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from msgspec import msgpack
from websockets.asyncio.client import ClientConnection, connect

from quice import Endpoint, PeerId
from quice.errors import PeerUnreachableError, RefusedError
from quice.server import Server

HPKE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
P = 2**255 - 19

Map = dict[str, Any]


class Peer:
    """The other implementation: sections 2 to 7, of the latter just what an orderly network needs."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        seed = os.urandom(32)
        self._signing = Ed25519PrivateKey.from_private_bytes(seed)
        self.key = self._signing.public_key().public_bytes_raw()
        self._agreeing = X25519PrivateKey.from_private_bytes(hashlib.sha512(seed).digest()[:32])

    async def send(self, message: Map) -> None:
        await self._socket.send(msgpack.encode(message))

    async def receive(self) -> Map:
        frame = await self._socket.recv()
        assert isinstance(frame, bytes)
        message: Map = msgpack.decode(frame)
        return message

    async def register(self) -> Map:
        challenge = await self.receive()
        assert (challenge["type"], challenge["version"]) == ("challenge", 1)
        signature = self._signing.sign(b"quice rendezvous registration v1\0" + challenge["nonce"] + self.key)
        await self.send({"type": "register", "version": 1, "peer": self.key, "signature": signature})
        return await self.receive()

    async def say(self, to: bytes, session: bytes, number: int, received: int, message: Map | None = None) -> None:
        text = msgpack.encode([number, received, msgpack.encode(message) if message else b""])
        context = b"quice rendezvous message v1\0" + self.key + to + session
        y = int.from_bytes(to, "little") % 2**255
        u = (1 + y) * pow(1 - y, -1, P) % P
        receiver = X25519PublicKey.from_public_bytes(u.to_bytes(32, "little"))
        body = HPKE.encrypt(self._signing.sign(context + text) + text, receiver, context)
        await self.send({"type": "deliver", "to": to, "session": session, "body": body})

    async def hear(self) -> tuple[bytes, bytes, int, int, Map | None]:
        """The sender and session of what was delivered, and the three parts of its envelope."""
        delivered = await self.receive()
        assert delivered["type"] == "delivered"
        sender, session = delivered["sender"], delivered["session"]
        context = b"quice rendezvous message v1\0" + sender + self.key + session
        opened = HPKE.decrypt(delivered["body"], self._agreeing, context)
        signature, text = opened[:64], opened[64:]
        Ed25519PublicKey.from_public_bytes(sender).verify(signature, context + text)
        number, received, message = msgpack.decode(text)
        return sender, session, number, received, msgpack.decode(message) if number else None


@contextlib.asynccontextmanager
async def other_peer(server: Server) -> AsyncIterator[Peer]:
    async with connect(server.url, proxy=None, compression=None, close_timeout=0.5) as socket:
        peer = Peer(socket)
        registered = await peer.register()
        assert (registered["type"], registered["stun_port"]) == ("registered", server.stun.port)
        yield peer


async def test_an_offer_is_read_and_refused_by_the_other_implementation(server: Server) -> None:
    async with other_peer(server) as peer, Endpoint.bind(server=server.url) as endpoint:
        connecting = asyncio.create_task(endpoint.connect(PeerId(peer.key), alpn="test/1"))
        sender, session, number, received, offer = await peer.hear()
        assert (sender, number, received) == (endpoint.peer.key, 1, 0)
        assert offer is not None
        assert (offer["type"], offer["alpn"]) == ("offer", "test/1")
        refuse = {"type": "refuse", "reason": "declined", "text": "not today"}
        await peer.say(sender, session, 1, number, refuse)
        with pytest.raises(RefusedError, match="not today"):
            await connecting
        # Of what there is to say, the endpoint still sees to the acknowledgement.
        while received < 1:
            _, _, _, received, _ = await peer.hear()
        assert received == 1


async def test_an_offer_of_the_other_implementation_is_answered(server: Server) -> None:
    async with other_peer(server) as peer, Endpoint.bind(server=server.url, alpns=["test/1"]) as endpoint:
        session = os.urandom(16)
        offer = {"type": "offer", "version": 1, "ufrag": "abcd", "pwd": "0123456789abcdef012345", "alpn": "test/1"}
        await peer.say(endpoint.peer.key, session, 1, 0, offer)
        sender, same, number, received, answer = await peer.hear()
        assert (sender, same, number, received) == (endpoint.peer.key, session, 1, 1)
        assert answer is not None
        assert answer["type"] == "answer"
        assert answer["candidates"]
        await peer.say(endpoint.peer.key, session, 2, 1, {"type": "bye"})


async def test_what_the_other_implementation_changes_is_not_taken(server: Server) -> None:
    async with other_peer(server) as peer, Endpoint.bind(server=server.url) as endpoint:
        connecting = asyncio.create_task(endpoint.connect(PeerId(peer.key), alpn="test/1"))
        sender, session, number, _, _ = await peer.hear()
        refuse = {"type": "refuse", "reason": "declined", "text": "another session's"}
        await peer.say(sender, os.urandom(16), 1, number, refuse)
        await peer.say(sender, session, 1, number, refuse | {"text": "this session's"})
        with pytest.raises(RefusedError, match="this session's"):
            await connecting


async def test_a_peer_that_is_not_there_is_undeliverable(server: Server) -> None:
    async with other_peer(server) as peer:
        nobody = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
        session = os.urandom(16)
        await peer.say(nobody, session, 1, 0, {"type": "bye"})
        assert await peer.receive() == {"type": "undeliverable", "to": nobody, "session": session}
    async with Endpoint.bind(server=server.url) as endpoint:
        with pytest.raises(PeerUnreachableError):
            await endpoint.connect(PeerId(nobody), alpn="test/1")
