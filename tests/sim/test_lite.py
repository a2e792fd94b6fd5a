"""Endpoints that are public and know it: ICE lite (RFC 8445 §2.5), in the simulated internet."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from quice import Connection, Endpoint
from quice.ice import Report
from quice.ice.events import Role
from quice.server import Server
from quice.signal.messages import Establish
from quice.sim.kinds import Nat
from quice.sim.link import Conditions
from quice.sim.packet import Fate, Passage, Protocol
from quice.sim.simulation import Simulation

NEAR = Conditions(delay=0.025)
ALPN = "test/1"


@dataclass(frozen=True)
class Met:
    """A connection's reports, how long it took to come, and how many STUN requests each machine sent."""

    reports: tuple[Report, Report]
    connect_seconds: float
    requests: dict[str, int]


def meet(nat: Nat, lite: tuple[bool, bool], establish: Establish = Establish.INITIATOR) -> Met:
    """alice connects from behind this NAT to bob, who has none; `lite`: whether each is."""
    requests = {"alice": 0, "bob": 0}
    with Simulation(seed=1) as simulation:
        world = simulation.world
        service_machine = world.host("server")
        alice = world.site(nat=nat, uplink=NEAR).host("alice")
        bob = world.host("bob", link=NEAR)

        def count(passage: Passage) -> None:
            packet = passage.packet
            is_request = packet.protocol is Protocol.UDP and packet.data[:2] == b"\x00\x01"
            if passage.fate is Fate.SENT and is_request and packet.sender in requests:
                requests[packet.sender] += 1

        async def main() -> Met:
            with service_machine:
                service = await Server().__aenter__()
            with bob:
                far = await Endpoint.bind(server=service.url, alpns=[ALPN], lite=lite[1])
            with alice:
                near = await Endpoint.bind(server=service.url, alpns=[ALPN], lite=lite[0])
                await asyncio.sleep(1)
                connection = await near.connect(far.peer, alpn=ALPN, establish=establish.value)
            accepted = await far.accept()
            await talk(connection, accepted)
            await asyncio.sleep(3)
            met = Met((reported(connection), reported(accepted)), connection.connect_seconds, dict(requests))
            await near.close()
            await far.close()
            await service.__aexit__(None, None, None)
            return met

        world.watch(count)
        return simulation.run(main())


async def talk(near: Connection, far: Connection) -> None:
    stream = await near.open_stream()
    await stream.write(b"hello")
    assert await (await far.accept_stream()).readexactly(5) == b"hello"


def reported(connection: Connection) -> Report:
    assert connection.report is not None
    return connection.report


@pytest.mark.parametrize("establish", [Establish.INITIATOR, Establish.HIGHEST_ADDRESS, Establish.SIMULTANEOUS])
@pytest.mark.parametrize("nat", Nat)
def test_a_full_peer_behind_any_nat_connects_to_a_lite_one_that_sends_no_request(
    nat: Nat, establish: Establish
) -> None:
    met = meet(nat, (False, True), establish)
    near, far = met.reports
    assert met.requests["bob"] == 0
    assert (near.role, far.role) == (Role.CONTROLLING, Role.CONTROLLED)
    assert near.selected is not None
    assert far.selected is not None
    assert near.selected.remote.address == (far.selected.local.base or far.selected.local.address)
    assert met.connect_seconds < 0.6


@pytest.mark.parametrize("establish", [Establish.INITIATOR, Establish.HIGHEST_ADDRESS, Establish.SIMULTANEOUS])
def test_two_lite_peers_connect_without_any_request(establish: Establish) -> None:
    met = meet(Nat.PUBLIC, (True, True), establish)
    near, far = met.reports
    assert met.requests == {"alice": 0, "bob": 0}
    assert near.selected is not None
    assert far.selected is not None
    assert near.selected.remote.address == far.selected.local.address
    assert met.connect_seconds < 0.3


def test_rfc8445_6_1_1_a_lite_initiator_leaves_control_to_a_full_responder() -> None:
    met = meet(Nat.PUBLIC, (True, False))
    assert [report.role for report in met.reports] == [Role.CONTROLLED, Role.CONTROLLING]
    assert met.requests["alice"] == 0
    assert all(report.selected is not None for report in met.reports)
