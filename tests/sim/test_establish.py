"""Who makes the connection, where it matters for whether there is one: in the simulated internet."""

from __future__ import annotations

import asyncio

import pytest

from quice import Endpoint, Identity
from quice.errors import ConnectError
from quice.server import Server
from quice.server.relay import NO_RELAY
from quice.signal.messages import Establish
from quice.sim.kinds import Nat
from quice.sim.link import Conditions
from quice.sim.packet import Packet, Protocol
from quice.sim.simulation import Simulation

NEAR = Conditions(delay=0.025)
ALPN = "test/1"
LESSER, GREATER = sorted((Identity(bytes([n]) * 32) for n in (1, 2)), key=lambda identity: identity.peer.key)


class QuicAlone:
    """A middlebox that lets STUN through to one host alone."""

    def __init__(self, host: str) -> None:
        self._host = host

    def outbound(self, packet: Packet, now: float) -> Packet | None:
        is_stun = packet.protocol is Protocol.UDP and packet.data[0] < 4
        return None if is_stun and packet.destination.host != self._host else packet

    def inbound(self, packet: Packet, now: float) -> Packet | None:
        return packet


def seconds(establish: Establish, client: Identity, server: Identity) -> float:
    """The public peer of the identity GREATER and one behind a symmetric NAT meet, where no check gets through."""
    with Simulation(seed=1) as simulation:
        world = simulation.world
        middle = world.host("server")
        service_machine = middle
        hidden_site = world.site(nat=Nat.SYMMETRIC, uplink=NEAR)
        hidden_site.router.boxes.append(QuicAlone(middle.addresses()[-1].host))
        machines = {
            LESSER: hidden_site.host("hidden"),
            GREATER: world.host("public", link=NEAR),
        }

        async def main() -> float:
            with service_machine:
                service = await Server(relay=NO_RELAY).__aenter__()
            with machines[server]:
                far = await Endpoint.bind(server, server=service.url, alpns=[ALPN])
            with machines[client]:
                near = await Endpoint.bind(client, server=service.url, alpns=[ALPN])
                await asyncio.sleep(1)
                try:
                    connection = await near.connect(far.peer, alpn=ALPN, establish=establish.value)
                    accepted = await far.accept()
                    stream = await connection.open_stream()
                    await stream.write(b"token")
                    assert await (await accepted.accept_stream()).readexactly(5) == b"token"
                finally:
                    await near.close()
                    await far.close()
                    await service.__aexit__(None, None, None)
            return connection.connect_seconds

        return simulation.run(main())


@pytest.mark.parametrize(("client", "server"), [(LESSER, GREATER), (GREATER, LESSER)], ids=["hidden", "public"])
def test_the_greater_peer_connects_to_where_the_handshake_of_the_lesser_came_from(
    client: Identity, server: Identity
) -> None:
    assert seconds(Establish.SIMULTANEOUS, client, server) < 2.0


def test_a_public_initiator_does_not_find_who_sends_no_initials_to_it() -> None:
    with pytest.raises(ConnectError):
        seconds(Establish.INITIATOR, GREATER, LESSER)
