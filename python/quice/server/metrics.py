"""What a server tells Prometheus: on a port of its own, which need not be public."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from websockets.http11 import Request

from quice.server.entrance import HEALTH, METRICS, health_reply
from quice.server.websocket import Guest, Reply, WebSocket

if TYPE_CHECKING:
    from quice.server.app import Server


class ServerCollector(Collector):
    """Reads the server's own counts when they are asked for, so that counting costs nothing else."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client."""
        yield from self._rendezvous()
        yield from self._service()
        yield from self._relay()

    def _rendezvous(self) -> Iterator[Metric]:
        server = self._server
        counts = server.rendezvous.counts
        yield _gauge("quice_peers", "Peers that are registered here.", len(server.rendezvous))
        yield _gauge("quice_connections", "Connections, registered or not yet.", server.connections)
        yield _counter("quice_registrations", "Registrations.", counts.registered)
        yield _counter("quice_refused", "Connections refused for what was sent on them.", counts.refused)
        yield _counter("quice_turned_away", "Connections turned away, one address having too many.", server.turned_away)
        messages = CounterMetricFamily("quice_messages", "Messages between peers.", labels=["outcome"])
        messages.add_metric(["delivered"], counts.delivered)
        messages.add_metric(["forwarded"], counts.forwarded)
        messages.add_metric(["undeliverable"], counts.undeliverable)
        yield messages
        yield _counter("quice_message_bytes", "Bytes of messages that peers here have sent.", counts.bytes)

    def _service(self) -> Iterator[Metric]:
        server = self._server
        yield _gauge("quice_draining", "1 while this process ends.", int(server.rendezvous.is_leaving))
        yield _gauge("quice_store_up", "1 unless Redis, if there is one, is not reached.", int(not server.trouble))

    def _relay(self) -> Iterator[Metric]:
        relay = self._server.relay
        yield _gauge("quice_relay_allocations", "Relayed addresses.", len(relay.turn))
        counts = relay.counts
        packets = CounterMetricFamily("quice_relay_packets", "Packets relayed.", labels=["to"])
        packets.add_metric(["peers"], counts.packets_to_peers)
        packets.add_metric(["clients"], counts.packets_to_clients)
        yield packets
        carried = CounterMetricFamily("quice_relay_bytes", "Bytes relayed.", labels=["to"])
        carried.add_metric(["peers"], counts.bytes_to_peers)
        carried.add_metric(["clients"], counts.bytes_to_clients)
        yield carried
        drops = CounterMetricFamily("quice_relay_drops", "Packets not relayed.", labels=["reason"])
        for reason, number in counts.drops.items():
            drops.add_metric([reason], number)
        yield drops


def registry_of(server: Server) -> CollectorRegistry:
    """A registry of this server's own: there may be several in one process, as in tests."""
    registry = CollectorRegistry()
    registry.register(ServerCollector(server))
    ProcessCollector(registry=registry)
    return registry


class MetricsHouse:
    """The port of `--metrics`: no WebSockets, `/metrics` and `/healthz`."""

    def __init__(self, registry: CollectorRegistry, health: Callable[[], Mapping[str, object]]) -> None:
        self._registry = registry
        self._health = health

    def turn_away(self, websocket: WebSocket, request: Request) -> Reply:
        """See `House`."""
        if request.path == METRICS:
            return Reply(HTTPStatus.OK, generate_latest(self._registry).decode(), CONTENT_TYPE_LATEST)
        if request.path == HEALTH:
            return health_reply(self._health())
        return Reply(HTTPStatus.NOT_FOUND, f"here are {METRICS} and {HEALTH}\n")

    def welcome(self, websocket: WebSocket) -> Guest:
        """See `House`."""
        raise NotImplementedError("nobody is let in")

    def gone(self, websocket: WebSocket) -> None:
        """See `House`."""


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value)
