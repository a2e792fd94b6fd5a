"""What Prometheus is told."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from quice.identity import Identity
from quice.server import Server
from quice.server.entrance import Access
from tests.server.peers import raw_peer
from tests.server.test_entrance import get


async def metrics_of(server: Server) -> dict[str, float]:
    status, headers, body = await get(server.metrics.host, server.metrics.port, "/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(body.decode())
    return {
        sample.name + "".join(f" {value}" for value in sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


async def test_peers_and_messages_are_counted() -> None:
    access = Access(metrics=("127.0.0.1", 0))
    async with Server("127.0.0.1", 0, 0, access=access) as server, raw_peer(server) as one, raw_peer(server) as other:
        await one.registered()
        await other.registered()
        await one.deliver(other.peer, b"12345")
        await other.body()
        await one.deliver(Identity.generate().peer, b"678")
        await one.receive()
        found = await metrics_of(server)
        assert found["quice_peers"] == 2
        assert found["quice_connections"] == 2
        assert found["quice_registrations_total"] == 2
        assert found["quice_messages_total delivered"] == 1
        assert found["quice_messages_total undeliverable"] == 1
        assert found["quice_message_bytes_total"] == 8
        assert found["quice_store_up"] == 1
        assert found["quice_draining"] == 0
        assert found["quice_relay_allocations"] == 0
        assert found["process_resident_memory_bytes"] > 0


async def test_the_port_for_those_who_watch_opens_no_websockets_and_tells_nothing_else() -> None:
    async with Server("127.0.0.1", 0, 0, access=Access(metrics=("127.0.0.1", 0))) as server:
        assert (await get(server.metrics.host, server.metrics.port, "/"))[0] == 404
        assert (await get(server.metrics.host, server.metrics.port, "/healthz"))[0] == 200


async def test_two_servers_in_one_process_count_apart() -> None:
    access = Access(metrics=("127.0.0.1", 0))
    async with (
        Server("127.0.0.1", 0, 0, access=access) as one,
        Server("127.0.0.1", 0, 0, access=access) as other,
        raw_peer(one) as peer,
    ):
        await peer.registered()
        assert (await metrics_of(one))["quice_peers"] == 1
        assert (await metrics_of(other))["quice_peers"] == 0
