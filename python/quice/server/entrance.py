"""Who may come in: requests to a server, before they are WebSockets."""

from __future__ import annotations

import ipaddress
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

from websockets.http11 import Request

from quice.server.logs import Event, about
from quice.server.sources import SourceLimits, Sources, source_of
from quice.server.websocket import Guest, Reply, WebSocket
from quice.turn.policy import IpNetwork

logger = logging.getLogger(__name__)

HEALTH = "/healthz"
METRICS = "/metrics"
_FORWARDED_FOR = "X-Forwarded-For"


@dataclass(frozen=True)
class Access:
    """How a server is reached."""

    limits: SourceLimits = field(default_factory=SourceLimits)
    proxies: tuple[IpNetwork, ...] = ()
    """The networks of proxies that are believed where a request comes from."""
    certificate: tuple[str, str] | None = None
    """Files: the certificate with its chain, and its key. With them the rendezvous is `wss://`."""
    metrics: tuple[str, int] | None = None
    """The local address and port of a second service, for those who watch this one."""


def client_of(host: str, forwarded: Sequence[str], proxies: Sequence[IpNetwork]) -> str:
    """Where a request comes from, of which proxies say where they had it from. Only those are believed that are named:
    the last address that is no proxy's is the client's, and what stands before it is its own word.
    """
    addresses = [part.strip() for value in forwarded for part in value.split(",")]
    while addresses and _is_among(host, proxies):
        try:
            host = str(ipaddress.ip_address(addresses.pop()))
        except ValueError:
            break
    return host


def _is_among(host: str, networks: Sequence[IpNetwork]) -> bool:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return any(address in network for network in networks)


class Entrance:
    """The public port: WebSockets within limits, and a word on how the server is."""

    def __init__(
        self,
        welcome: Callable[[WebSocket], Guest],
        health: Callable[[], Mapping[str, object]],
        clock: Callable[[], float],
        limits: SourceLimits,
        proxies: Sequence[IpNetwork],
    ) -> None:
        self.welcome = welcome
        self.turned_away = 0
        self._health = health
        self._clock = clock
        self._sources = Sources(limits)
        self._proxies = proxies

    def turn_away(self, websocket: WebSocket, request: Request) -> Reply | None:
        """See `House`."""
        if self._proxies:
            websocket.host = client_of(websocket.host, request.headers.get_all(_FORWARDED_FOR), self._proxies)
        if request.path == HEALTH:
            return health_reply(self._health())
        if self._sources.enter(source_of(websocket.host), self._clock()):
            return None
        self.turned_away += 1
        logger.debug(
            "turned away: too many connections from one address", extra=about(Event.TURNED_AWAY, address=websocket.host)
        )
        return Reply(HTTPStatus.TOO_MANY_REQUESTS, "too many connections from this address\n")

    def gone(self, websocket: WebSocket) -> None:
        """See `House`."""
        self._sources.leave(source_of(websocket.host))


def health_reply(health: Mapping[str, object]) -> Reply:
    """How the server is, for whoever sends peers to it: not to one that ends."""
    ends = health["status"] == "draining"
    status = HTTPStatus.SERVICE_UNAVAILABLE if ends else HTTPStatus.OK
    return Reply(status, json.dumps(health) + "\n", "application/json")
