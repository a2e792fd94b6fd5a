"""Peers whose ids are keys that anybody can use."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from quice import Endpoint, PeerId
from quice.errors import InvalidPeerIdError
from quice.server import Server
from quice.sim.kinds import Nat
from quice.sim.simulation import Simulation

ALPN = "test/1"
LOW_ORDER = b"\1" + bytes(31)
"""The neutral element."""


def test_a_signature_that_everybody_can_make_for_a_key_of_low_order_is_none() -> None:
    """Which is why such a key is nobody's."""
    signature, message = b"\1" + bytes(63), b"whatever is to be signed"
    Ed25519PublicKey.from_public_bytes(LOW_ORDER).verify(signature, message)
    assert not PeerId(LOW_ORDER).verify(signature, message)


async def test_nobody_connects_to_a_key_of_low_order(simulation: Simulation, rendezvous: Server) -> None:
    with simulation.world.host("alice"):
        async with Endpoint.bind(server=rendezvous.url) as endpoint:
            with pytest.raises(InvalidPeerIdError):
                await endpoint.connect(PeerId(LOW_ORDER), alpn=ALPN)


async def test_a_peer_that_has_connected_with_such_a_key_is_not_called_through_the_server(
    simulation: Simulation, rendezvous: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Straight to an address it may, where nobody has anything sealed to it."""
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    asked: list[PeerId] = []

    def refuse(peer: PeerId) -> None:
        asked.append(peer)
        raise InvalidPeerIdError(str(peer))

    world = simulation.world
    sites = [world.site(nat=Nat.PORT_RESTRICTED) for _ in range(3)]
    alice, bob = sites[0].host("alice"), sites[1].host("bob")
    with bob:
        far = await Endpoint.bind(server=rendezvous.url, alpns=[ALPN])
    with alice:
        near = await Endpoint.bind(server=rendezvous.url)
        await near.connect(far.peer, alpn=ALPN)
    monkeypatch.setattr(PeerId, "agreement_key", refuse)
    alice.move(sites[2])
    await asyncio.sleep(60)
    assert far.peer in asked
    await near.close()
    await far.close()
    gc.collect()
    await asyncio.sleep(0)
    assert failures == []
