"""Who makes the connection of a session, over a channel of the application's own, on loopback."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from quice import Address, Connection, Endpoint, Identity
from quice.errors import RefusedError
from quice.signal import signalling_pair
from quice.signal.messages import VERSION, Establish, Message, Offer, Refuse, RefuseReason, Restart
from tests.endpoint.conftest import ALPN

WAYS = [Establish.INITIATOR.value, Establish.HIGHEST_ADDRESS.value, Establish.SIMULTANEOUS.value]
OURSELVES: dict[str, Any] = {"version": VERSION, "ufrag": "abcd", "pwd": "p" * 22}
LESSER, GREATER = sorted((Identity(bytes([n]) * 32) for n in (1, 2)), key=lambda identity: identity.peer.key)


async def meet(client: Endpoint, server: Endpoint, establish: str) -> tuple[Connection, Connection]:
    """One connects; both ends of the connection."""
    ours, theirs = signalling_pair()
    responding = asyncio.create_task(server.respond(client.peer, theirs))
    near = await client.connect(server.peer, alpn=ALPN, signalling=ours, establish=establish)  # type: ignore[arg-type]
    far = await server.accept()
    await responding
    return near, far


async def are_ends_of_one(near: Connection, far: Connection) -> bool:
    """Whether a token that goes into one connection comes out of the other."""
    stream = await near.open_stream()
    await stream.write(b"token")
    return await (await far.accept_stream()).readexactly(5) == b"token"


async def accepts_nothing(endpoint: Endpoint) -> bool:
    try:
        await asyncio.wait_for(endpoint.accept(), 0.1)
    except asyncio.TimeoutError:
        return True
    return False


@pytest.mark.parametrize("establish", WAYS)
@pytest.mark.parametrize("identities", [(LESSER, GREATER), (GREATER, LESSER)], ids=["lesser", "greater"])
async def test_both_sides_get_one_connection_and_the_same(
    establish: str, identities: tuple[Identity, Identity]
) -> None:
    async with (
        Endpoint.bind(identities[0], alpns=[ALPN]) as client,
        Endpoint.bind(identities[1], alpns=[ALPN]) as server,
    ):
        near, far = await meet(client, server, establish)
        assert (near.peer, far.peer, near.alpn, far.alpn) == (server.peer, client.peer, ALPN, ALPN)
        assert await are_ends_of_one(near, far)
        assert await accepts_nothing(client)
        assert await accepts_nothing(server)
        assert near.report is not None
        assert far.report is not None


@pytest.mark.parametrize(("ports", "initiator_is_client"), [((0, 1), True), ((1, 0), False)])
async def test_the_peer_with_the_highest_address_is_the_server(
    ports: tuple[int, int], initiator_is_client: bool
) -> None:
    async with (
        Endpoint.bind(alpns=[ALPN], host="127.0.0.1") as one,
        Endpoint.bind(alpns=[ALPN], host="127.0.0.1") as two,
    ):
        ordered = sorted((one, two), key=lambda endpoint: endpoint.port)
        client, server = (ordered[index] for index in ports)
        near, _ = await meet(client, server, "highest-address")
        # Only a client can open paths.
        assert (near._paths is not None) is initiator_is_client


@pytest.mark.parametrize("establish", WAYS)
async def test_sessions_in_both_directions_at_once_are_not_confused(establish: str) -> None:
    async with Endpoint.bind(LESSER, alpns=[ALPN]) as one, Endpoint.bind(GREATER, alpns=[ALPN]) as two:
        pairs = await asyncio.gather(*(meet(client, server, establish) for client, server in ((one, two), (two, one))))
        for near, far in pairs:
            assert await asyncio.wait_for(are_ends_of_one(near, far), 5)


@pytest.mark.parametrize(
    ("opening", "reason"),
    [
        (Offer(**OURSELVES, alpn=ALPN, establish=Establish("by-lot")), RefuseReason.ESTABLISH),
        (Offer(**OURSELVES, alpn="other/1"), RefuseReason.ALPN),
        (Restart(**OURSELVES, continues=b"unknown."), RefuseReason.GONE),
        (Offer(**OURSELVES | {"version": 9}, alpn=ALPN), RefuseReason.VERSION),
        (Restart(**OURSELVES | {"version": 9}, continues=b"unknown."), RefuseReason.VERSION),
    ],
)
async def test_what_this_side_can_not_do_is_refused_with_its_reason(opening: Message, reason: RefuseReason) -> None:
    ours, theirs = signalling_pair()
    async with Endpoint.bind(alpns=[ALPN]) as endpoint:
        await ours.send(opening)
        await endpoint.respond(Identity.generate().peer, theirs)
        refusal = await ours.receive()
        assert isinstance(refusal, Refuse)
        assert refusal.reason is reason


async def test_what_can_not_be_is_said_before_anything_is_sent() -> None:
    peer = Identity.generate().peer
    async with Endpoint.bind() as deaf, Endpoint.bind(alpns=[ALPN]) as endpoint:
        with pytest.raises(ValueError, match="alpns"):
            await deaf.connect(peer, alpn=ALPN, signalling=signalling_pair()[0], establish="simultaneous")
        with pytest.raises(ValueError, match="address"):
            await endpoint.connect(peer, alpn=ALPN, address=Address("127.0.0.1", 9), establish="highest-address")
        with pytest.raises(ValueError, match="none of the three"):
            await endpoint.connect(peer, alpn=ALPN, establish="by-lot")  # type: ignore[arg-type]


async def test_a_refusal_reaches_who_connects() -> None:
    ours, theirs = signalling_pair()
    async with Endpoint.bind(alpns=[ALPN]) as endpoint:
        connecting = asyncio.create_task(
            endpoint.connect(Identity.generate().peer, alpn=ALPN, signalling=ours, establish="simultaneous")
        )
        offer = await theirs.receive()
        assert isinstance(offer, Offer)
        assert offer.establish is Establish.SIMULTANEOUS
        await theirs.send(Refuse(reason=RefuseReason.ESTABLISH))
        with pytest.raises(RefusedError, match="establish"):
            await connecting


async def test_a_handshake_for_a_session_that_is_over_is_refused() -> None:
    async with Endpoint.bind(alpns=[ALPN]) as client, Endpoint.bind(alpns=[ALPN]) as server:
        address = Address("127.0.0.1", server.port)
        connection = client._begin(server.peer, ALPN, address, initial_id=b"8 bytes." + bytes(9))
        await asyncio.wait_for(connection.wait_closed(), 5)
        assert await accepts_nothing(server)
