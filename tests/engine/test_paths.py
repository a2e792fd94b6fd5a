"""Several paths of one connection: opening and closing them, what goes over which, and the failure of one."""

from __future__ import annotations

import select
import time
from collections.abc import Callable

import pytest

from quice import TransportConfig, _native
from quice._native import Event, PathLoss
from tests.engine.flow import Flow
from tests.engine.multihomed import CLIENT_HOSTS, PORT, SERVER_HOSTS, MultihomedPair, link, losing, opened
from tests.engine.pair import ALPN, CLIENT_SEED, SERVER_SEED, Pair, public_key

MIB = 1 << 20


def described(connection: _native.Connection) -> list[tuple[object, ...]]:
    """Of each path: id, status, whether validated, local and remote host."""
    return [
        (path["id"], path["status"], path["validated"], path["local"], path["remote"]) for path in connection.paths()
    ]


def ends(index: int) -> tuple[tuple[str, int], tuple[str, int]]:
    """The client's and the server's address of this index."""
    return (CLIENT_HOSTS[index], PORT), (SERVER_HOSTS[index], PORT)


@pytest.mark.parametrize("backup", [False, True])
@pytest.mark.parametrize("index", [1, 2])
def test_a_second_path_is_validated_and_has_its_own_addresses(index: int, backup: bool) -> None:
    pair = MultihomedPair()
    near, far = pair.connected()
    assert near.multipath()
    assert far.multipath()
    path = near.open_path((SERVER_HOSTS[index], PORT), CLIENT_HOSTS[index], backup=backup)
    assert path == 1
    (client, server), (second_client, second_server) = ends(0), ends(index)
    status = "backup" if backup else "available"
    assert described(near)[1] == (1, status, False, second_client, second_server)
    pair.drive(lambda: opened(pair.client, 1) and opened(pair.server, 1))
    assert [event.remote for event in pair.client.seen(Event.PathOpened)] == [second_server]
    assert [event.remote for event in pair.server.seen(Event.PathOpened)] == [second_client]
    assert described(near) == [
        (0, "available", True, client, server),
        (1, status, True, second_client, second_server),
    ]
    # The server does as its client: no data of its own goes over a path that is a backup.
    assert described(far) == [
        (0, "available", True, server, client),
        (1, status, True, second_server, second_client),
    ]


@pytest.mark.parametrize("backup", [False, True])
@pytest.mark.parametrize("cut", [0, 1])
def test_data_moves_on_when_a_path_is_cut_without_a_word(cut: int, backup: bool) -> None:
    pair = MultihomedPair()
    near, far = pair.connected()
    pair.second_path(near, backup=backup)
    flow = Flow(pair, near, far, 48 * MIB)
    cut_at, longest, last = pair.now + 0.1, 0.0, (0, pair.now)

    def done() -> bool:
        nonlocal longest, last
        if pair.now >= cut_at:
            pair.cut.add(link(cut))
        flow.push()
        flow.pull()
        if flow.read != last[0]:
            longest = max(longest, pair.now - last[1])
            last = (flow.read, pair.now)
        return flow.ended

    pair.drive(done, within=30.0)
    flow.check()
    assert pair.now > cut_at + 0.1
    # With both in use, acknowledgements for the one that works are lost on the other. They come late when that is
    # given up, and noq waits by the round-trip times so measured before it sends again what was lost there.
    assert longest < (1.0 if backup else 4.0)
    # A backup is asked for now and then.
    pair.advance(17.0)
    for side in (pair.client, pair.server):
        assert [(event.path, event.reason) for event in side.seen(Event.PathLost)] == [(cut, PathLoss.TimedOut)]
        assert not side.seen(Event.Lost)
    assert [path["id"] for path in near.paths()] == [path["id"] for path in far.paths()] == [1 - cut]
    # And the other way.
    back = Flow(pair, near, far, MIB)
    back.run(within=5.0)
    back.check()


def test_a_change_of_status_moves_the_traffic_and_loses_nothing() -> None:
    pair = MultihomedPair()
    near, far = pair.connected()
    path = pair.second_path(near, backup=True)
    flow = Flow(pair, near, far, 64 * MIB)
    down = far.open(unidirectional=True)
    assert down is not None
    block = bytes(MIB)

    def carried(seconds: float) -> tuple[int, int]:
        """The bytes on each path in so much time, with data in both directions."""
        before = dict(pair.carried)
        end = pair.now + seconds
        while pair.now < end:
            flow.push()
            flow.pull()
            far.write(down, block, 0)
            if pair.client.seen(Event.Opened):
                near.read(down, MIB)
            pair.advance(0.005)
        first, second = (pair.carried.get(link(index), 0) - before.get(link(index), 0) for index in (0, 1))
        return first, second

    first, second = carried(0.3)
    assert second < 0.01 * first
    near.set_path_status(path, backup=False)
    near.set_path_status(0, backup=True)
    carried(0.1)
    assert [(event.path, event.backup) for event in pair.server.seen(Event.PathStatus)][-2:] in (
        [(0, True), (path, False)],
        [(path, False), (0, True)],
    )
    first, second = carried(0.3)
    assert first < 0.01 * second
    near.set_path_status(0, backup=False)
    near.set_path_status(path, backup=True)
    carried(0.1)
    first, second = carried(0.3)
    assert second < 0.01 * first
    flow.run(within=60.0)
    flow.check()
    assert not pair.client.seen(Event.PathLost)
    # All that was written once arrived once, on whatever path.
    assert near.stats()["lost_packets"] == far.stats()["lost_packets"] == 0


def test_a_status_that_a_newer_one_has_overtaken_is_not_followed() -> None:
    pair = MultihomedPair()
    near, far = pair.connected()
    path = pair.second_path(near, backup=True)
    pair.delays[link(0)] = 0.1
    near.set_path_status(path, backup=False)
    pair.advance(0.01)
    near.set_path_status(path, backup=True)
    pair.advance(0.01)
    # From here on over the faster path.
    near.close_path(0)
    near.set_path_status(path, backup=False)
    pair.advance(1.0)
    assert pair.server.seen(Event.PathStatus)[-1].backup is False
    assert [path["status"] for path in far.paths()] == ["available"]


def test_a_server_may_have_a_status_of_its_own() -> None:
    pair = MultihomedPair()
    near, far = pair.connected()
    path = pair.second_path(near, backup=True)
    far.set_path_status(path, backup=False)
    far.set_path_status(0, backup=True)
    pair.advance(0.1)
    assert [status for _, status, *_ in described(far)] == ["backup", "available"]
    assert [status for _, status, *_ in described(near)] == ["available", "backup"]
    told = {event.path: event.backup for event in pair.client.seen(Event.PathStatus)}
    assert told == {0: True, path: False}


@pytest.mark.parametrize("closed", [0, 1])
def test_a_closed_path_is_gone_on_both_sides_and_the_other_carries_on(closed: int) -> None:
    pair = MultihomedPair()
    near, far = pair.connected()
    pair.second_path(near)
    flow = Flow(pair, near, far, 16 * MIB)
    for _ in range(10):
        flow.push()
        flow.pull()
        pair.advance(0.01)
    near.close_path(closed)
    with pytest.raises(_native.PathRefused, match="last open path"):
        near.close_path(1 - closed)
    for refused in (near.close_path, near.ping_path):
        with pytest.raises(_native.PathRefused, match="closed path"):
            refused(closed)
    with pytest.raises(_native.PathRefused, match="closed path"):
        near.set_path_status(closed, backup=True)
    flow.run(within=10.0)
    flow.check()
    (event,) = pair.client.seen(Event.PathLost)
    assert (event.path, event.reason) == (closed, PathLoss.Closed)
    (event,) = pair.server.seen(Event.PathLost)
    assert (event.path, event.reason) == (closed, PathLoss.ClosedByPeer)
    pair.advance(5.0)
    assert [path["id"] for path in near.paths()] == [path["id"] for path in far.paths()] == [1 - closed]
    assert not pair.client.seen(Event.Lost)


def test_a_server_may_close_a_path_but_not_open_one() -> None:
    pair = MultihomedPair()
    near, far = pair.connected()
    path = pair.second_path(near)
    with pytest.raises(_native.PathRefused, match="server"):
        far.open_path((CLIENT_HOSTS[2], PORT), backup=True)
    far.close_path(path)
    pair.drive(lambda: bool(pair.client.seen(Event.PathLost)))
    (event,) = pair.client.seen(Event.PathLost)
    assert (event.path, event.reason) == (path, PathLoss.ClosedByPeer)


def test_ids_are_never_used_again() -> None:
    pair = MultihomedPair()
    near, _far = pair.connected()
    ids = []
    for _ in range(30):
        ids.append(pair.second_path(near))
        near.close_path(ids[-1])
        pair.advance(1.0)
    assert ids == list(range(1, 31))
    assert [path["id"] for path in near.paths()] == [0]


def test_as_many_paths_as_the_peer_allows_and_more_when_one_is_gone() -> None:
    pair = MultihomedPair()
    near, _far = pair.connected()
    # noq tells paths of the same addresses apart.
    paths = [pair.second_path(near, index=1 + number % 2) for number in range(7)]
    assert near.open_path((SERVER_HOSTS[2], PORT), CLIENT_HOSTS[2], backup=True) is None
    near.close_path(paths[0])
    pair.advance(1.0)
    pair.second_path(near, index=1)
    assert len(near.paths()) == 8


def test_a_path_that_leads_nowhere_is_given_up_and_harms_no_other() -> None:
    pair = MultihomedPair()
    near, far = pair.connected()
    pair.cut.add(link(1))
    path = near.open_path((SERVER_HOSTS[1], PORT), CLIENT_HOSTS[1], backup=False)
    flow = Flow(pair, near, far, 8 * MIB)
    flow.run(within=5.0)
    flow.check()
    pair.drive(lambda: bool(pair.client.seen(Event.PathLost)), within=10.0)
    (event,) = pair.client.seen(Event.PathLost)
    assert (event.path, event.reason) == (path, PathLoss.TimedOut)
    assert not pair.client.seen(Event.PathOpened)
    pair.advance(10.0)
    assert [path["id"] for path in near.paths()] == [0]


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_idle_paths_stay_alive_on_both_sides(loss: float) -> None:
    pair = MultihomedPair(delay=0.04)
    near, far = pair.connected()
    pair.second_path(near, backup=True)
    pair.second_path(near, index=2, backup=True)
    pair.loses = losing(loss, seed=4)
    pair.advance(120.0)
    for side, connection in ((pair.client, near), (pair.server, far)):
        assert not side.seen(Event.PathLost)
        assert [path["id"] for path in connection.paths()] == [0, 1, 2]


def test_both_paths_cut_for_a_while_leave_one_to_go_on_with() -> None:
    pair = MultihomedPair(TransportConfig(idle_timeout=10.0))
    near, far = pair.connected()
    pair.second_path(near, backup=True)
    pair.advance(0.5)
    pair.cut.update((link(0), link(1)))
    pair.advance(4.0)
    pair.cut.clear()
    flow = Flow(pair, near, far, MIB)
    flow.run(within=10.0)
    flow.check()
    assert not pair.client.seen(Event.Lost)


def test_the_only_path_is_not_pinged() -> None:
    pair = MultihomedPair()
    near, far = pair.connected()
    pair.advance(2.0)
    before = [connection.stats()["sent_packets"] for connection in (near, far)]
    pair.advance(7.5)
    assert [connection.stats()["sent_packets"] for connection in (near, far)] == before


def test_before_the_handshake_is_over_there_is_no_second_path() -> None:
    pair = Pair()
    near = pair.connect()
    assert not near.multipath()
    with pytest.raises(_native.PathRefused, match="not negotiated"):
        near.open_path(("192.0.2.3", PORT), backup=True)
    assert [path["validated"] for path in near.paths()] == [False]


@pytest.mark.parametrize(
    ("remote", "local"),
    [(("192.0.2.9", 0), None), (("0.0.0.0", 1), None), (("::", 1), None), (("2001:db8::2", 1), "192.0.2.1")],
)
def test_addresses_between_which_there_can_be_no_path_are_refused(remote: tuple[str, int], local: str | None) -> None:
    pair = MultihomedPair()
    near, _far = pair.connected()
    with pytest.raises(ValueError, match="a path"):
        near.open_path(remote, local, backup=True)


def test_times_that_would_have_paths_pinged_without_end_are_refused() -> None:
    for seconds in (0.0, 1e-9, 0.05, -1.0, float("nan")):
        with pytest.raises(ValueError, match="path_idle_timeout is out of range"):
            Pair(TransportConfig(path_idle_timeout=seconds))
        with pytest.raises(ValueError, match="path_keep_alive is out of range"):
            Pair(TransportConfig(path_keep_alive=seconds))


def test_on_sockets_a_path_leaves_through_the_one_at_its_local_address() -> None:
    raw_key = _native.Credentials.raw_key
    server = _native.Engine(raw_key(SERVER_SEED), [ALPN], TransportConfig(), sockets=True)
    client = _native.Engine(raw_key(CLIENT_SEED), [], TransportConfig(), sockets=True)
    # One socket at the server takes what comes to any address; the client has one for each.
    watched, (_, port) = server.bind("0.0.0.0", 0)
    bound = [client.bind(host, 0) for host in ("127.0.0.1", "127.0.0.2")]
    sockets = [watched, *(descriptor for descriptor, _ in bound)]
    seen: list[tuple[_native.Engine, Event]] = []

    def run(done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10.0
        while not done():
            assert time.monotonic() < deadline
            for engine in (client, server):
                seen.extend((engine, event) for event in engine.pump()[0])
            select.select(sockets, [], [], 0.01)

    def accepted() -> list[int]:
        return [event.connection for engine, event in seen if engine is server and isinstance(event, Event.Connected)]

    near = client.connect(("127.0.0.3", port), [ALPN], peer=public_key(SERVER_SEED), local="127.0.0.1")
    run(lambda: bool(accepted()))
    far = server.connection(accepted()[0])
    run(lambda: near.open_path(("127.0.0.4", port), "127.0.0.2", backup=True) is not None)
    run(lambda: sum(isinstance(event, Event.PathOpened) for _, event in seen) == 2)
    (_, (_, first)), (_, (_, second)) = bound
    for connection, addresses in (
        (near, [(("127.0.0.1", first), ("127.0.0.3", port)), (("127.0.0.2", second), ("127.0.0.4", port))]),
        (far, [(("127.0.0.3", port), ("127.0.0.1", first)), (("127.0.0.4", port), ("127.0.0.2", second))]),
    ):
        assert [(path["local"], path["remote"]) for path in connection.paths()] == addresses
