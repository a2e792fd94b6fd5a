"""Paths that go on elsewhere: the client's, the server's, through another NAT; and what a silence does to them."""

from __future__ import annotations

import pytest

from quice import TransportConfig, _native
from quice._native import Event
from tests.engine.flow import Flow
from tests.engine.multihomed import CLIENT_HOSTS, PORT, SERVER_HOSTS, MultihomedPair, link

MIB = 1 << 20
PATIENT = TransportConfig(idle_timeout=120)


def roaming(config: TransportConfig | None = None) -> tuple[MultihomedPair, _native.Connection, _native.Connection]:
    """A connection between hosts that all reach each other, settled."""
    pair = MultihomedPair(config, delay=0.05, roams=True)
    near, far = pair.connected()
    pair.advance(1.0)
    return pair, near, far


def local(connection: _native.Connection) -> list[object]:
    """The local addresses of its paths."""
    return [path["local"] for path in connection.paths()]


def finish(pair: MultihomedPair, flow: Flow, *ends: _native.Connection) -> float:
    """Carry the flow to its end; how long it takes until it goes on. Each end asks for an answer while it is owed one,
    as `Hearing` has it do."""
    start, before, due = pair.now, flow.read, pair.now
    on = 0.0

    def done() -> bool:
        nonlocal due, on
        flow.push()
        flow.pull()
        if flow.read > before and not on:
            on = pair.now
        if pair.now >= due:
            due = pair.now + 0.25
            for end in ends:
                if end.silence() >= 0.5:
                    end.nudge()
        return flow.ended

    pair.drive(done, within=10.0)
    flow.check()
    return on - start


def carried(pair: MultihomedPair, client: int, server: int) -> int:
    """How many bytes have gone between these hosts."""
    return pair.carried.get((CLIENT_HOSTS[client], SERVER_HOSTS[server]), 0)


def test_what_was_lost_before_a_move_is_sent_again_with_the_first_answer() -> None:
    pair, near, far = roaming()
    flow = Flow(pair, near, far, MIB)
    flow.push()
    pair.advance(0.01)
    pair.cut.add(link(0))
    pair.advance(3.0)
    near.move_path(0, (SERVER_HOSTS[0], PORT), CLIENT_HOSTS[1])
    assert finish(pair, flow, near, far) < 0.5
    assert local(near) == [(CLIENT_HOSTS[1], PORT)]


def test_a_path_that_has_moved_back_stays_there() -> None:
    """The server goes on sending to where it was for a round trip; noq would follow that, and the server the client."""
    pair, near, far = roaming()
    near.move_path(0, (SERVER_HOSTS[0], PORT), CLIENT_HOSTS[1])
    finish(pair, Flow(pair, near, far, MIB), near, far)
    flow = Flow(pair, near, far, 4 * MIB)
    flow.push()
    pair.advance(0.01)
    near.move_path(0, (SERVER_HOSTS[0], PORT), CLIENT_HOSTS[0])
    pair.advance(0.5)
    there = carried(pair, 1, 0)
    finish(pair, flow, near, far)
    assert carried(pair, 1, 0) == there
    assert local(near) == [(CLIENT_HOSTS[0], PORT)]


def test_where_a_path_was_before_it_moved_another_one_can_be_opened() -> None:
    pair, near, far = roaming()
    near.move_path(0, (SERVER_HOSTS[0], PORT), CLIENT_HOSTS[1])
    pair.advance(1.0)
    near.move_path(0, (SERVER_HOSTS[0], PORT), CLIENT_HOSTS[0])
    pair.advance(1.0)
    path = near.open_path((SERVER_HOSTS[0], PORT), CLIENT_HOSTS[1], backup=True)
    pair.advance(1.0)
    assert [each["id"] for each in near.paths() if each["validated"]] == [0, path]
    assert local(near) == [(CLIENT_HOSTS[0], PORT), (CLIENT_HOSTS[1], PORT)]
    pair.cut.add(link(0))
    finish(pair, Flow(pair, near, far, MIB), near, far)
    assert local(near) == [(CLIENT_HOSTS[1], PORT)]


def test_what_is_on_its_way_on_a_moved_path_arrives_though_it_is_given_up() -> None:
    pair, near, far = roaming()
    near.move_path(0, (SERVER_HOSTS[1], PORT), CLIENT_HOSTS[0])
    far.relocate((CLIENT_HOSTS[0], PORT), SERVER_HOSTS[1])
    pair.advance(1.0)
    near.open_path((SERVER_HOSTS[0], PORT), CLIENT_HOSTS[1], backup=True)
    pair.advance(1.0)
    flow = Flow(pair, far, near, 8_000, down=True)
    flow.push()
    pair.advance(0.01)
    near.close_path(0)
    assert finish(pair, flow, near, far) < 0.06
    # Another is where it was, and where noq took it to be.
    for local_, remote in ((0, 1), (0, 0)):
        path = near.open_path((SERVER_HOSTS[remote], PORT), CLIENT_HOSTS[local_], backup=True)
        pair.advance(0.5)
        assert path in [each["id"] for each in near.paths() if each["validated"]]


def test_a_server_goes_on_from_another_address_once_it_is_told() -> None:
    pair, near, far = roaming()
    pair.cut |= {(host, SERVER_HOSTS[0]) for host in CLIENT_HOSTS}
    flow = Flow(pair, far, near, MIB, down=True)
    flow.push()
    pair.advance(1.0)
    near.move_path(0, (SERVER_HOSTS[1], PORT), CLIENT_HOSTS[0])
    pair.advance(1.0)
    # noq drops what comes to another address of a server's.
    assert not pair.client.seen(Event.Readable)
    far.relocate((CLIENT_HOSTS[0], PORT), SERVER_HOSTS[1])
    assert finish(pair, flow, near, far) < 0.5
    assert local(far) == [(SERVER_HOSTS[1], PORT)]
    assert [path["remote"] for path in far.paths()] == [(CLIENT_HOSTS[0], PORT)]


def test_a_backup_stays_one_when_its_nat_has_another_address() -> None:
    """noq takes it for a new path, on which nothing is known of what the client wants."""
    pair, near, far = roaming()
    backup = pair.second_path(near, backup=True)
    pair.mapped[CLIENT_HOSTS[1]] = "203.0.113.77"
    near.ping_path(backup)
    pair.advance(1.0)
    assert [path["remote"] for path in far.paths()] == [(CLIENT_HOSTS[0], PORT), ("203.0.113.77", PORT)]
    assert [path["status"] for path in far.paths()] == ["available", "backup"]
    before = carried(pair, 1, 1)
    finish(pair, Flow(pair, far, near, MIB, down=True), near, far)
    assert carried(pair, 1, 1) - before < 10_000


@pytest.mark.parametrize("stops", ["client", "server"])
def test_after_a_side_was_stopped_data_flows_as_before(stops: str) -> None:
    """What was answered when it went on is not a round trip of a minute, over which the next packets are paced."""
    pair, near, far = roaming(PATIENT)
    flow = Flow(pair, near, far, 8 * MIB)
    flow.push()
    pair.advance(0.3)
    side = pair.client if stops == "client" else pair.server
    pair.stopped.append(side)
    pair.advance(60.0)
    pair.resume(side)
    start = pair.now
    finish(pair, flow, near, far)
    assert pair.now - start < 4.0
    assert all(path["rtt"] < 1.0 for connection in (near, far) for path in connection.paths())


@pytest.mark.parametrize("seconds", [20, 60])
def test_a_late_acknowledgement_does_not_keep_what_is_lost_from_being_sent_again(seconds: int) -> None:
    """It comes by another path, long after its packet was sent: noq would wait three times as long, and three times
    that again, for others, when the path is given up. After 60 s that is longer than the idle timeout."""
    pair, near, far = roaming(PATIENT)
    pair.second_path(near, backup=True)
    flow = Flow(pair, near, far, MIB)
    flow.push()
    pair.advance(0.06)
    # Some has arrived, and no answer has. Only the second path comes back.
    pair.cut |= {link(0), link(1)}
    for _ in range(4 * seconds):
        pair.advance(0.25)
        near.nudge()
        far.nudge()
    pair.cut.remove(link(1))
    assert finish(pair, flow, near, far) < 2.0


def test_where_the_engine_takes_a_path_to_be_no_other_is_opened() -> None:
    pair, near, _ = roaming()
    first, elsewhere = ((SERVER_HOSTS[0], PORT), CLIENT_HOSTS[0]), ((SERVER_HOSTS[0], PORT), CLIENT_HOSTS[1])
    assert near.moved_from(*first) is None
    near.move_path(0, *elsewhere)
    assert near.moved_from(*first) == 0
    assert near.moved_from(*elsewhere) is None
    pair.advance(1.0)
    near.move_path(0, *first)
    assert near.moved_from(*first) is None
