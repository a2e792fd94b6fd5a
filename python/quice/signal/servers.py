"""Reaching a rendezvous server: the first of several, and the first of each one's addresses, that answers."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.uri import parse_uri

from quice import proxy
from quice.errors import ServerUnreachableError
from quice.machine import System, this_machine
from quice.reasons import reason_of
from quice.signal import protocol
from quice.signal.protocol import Challenge, ProtocolDecodeError

ANSWER_TIMEOUT = 10.0
"""Seconds to open the WebSocket, and for each answer of the server."""
CLOSE_TIMEOUT = 1.0
_KEEPALIVE = 20.0
"""Seconds between two pings to the server, and that it may take to answer one."""
_WRITE_LIMIT = 1 << 20
"""Bytes that may wait to be sent before sending waits. Pings would wait with it, and a dead server not be noticed."""
_ADDRESS_HEAD_START = 0.25
"""Seconds by which one address of a server goes before the next (RFC 8305 §5)."""
_SERVER_HEAD_START = 1.0
"""The same of one server before the next: longer, for peers that choose different ones may not find each other."""


class Greeting(NamedTuple):
    """A server that has answered and waits for a registration."""

    url: str
    websocket: ClientConnection
    challenge: Challenge
    host: str
    """The address that it was reached at."""
    hosts: tuple[str, ...]
    """All that its name has; `host` alone if nobody had to ask."""


Attempt = Callable[[], Awaitable[Greeting]]


async def reach(urls: Iterable[str], known: Mapping[str, Greeting]) -> Greeting:
    """Open a WebSocket to one of these servers, the earlier ones rather than the later.

    known: how they were reached before. That address is tried before the name is asked for again, which takes a round
    trip of its own, and in a new network may not work yet. Raises `ServerUnreachableError` when none can be reached.
    """
    return await _first([_server(url, known.get(url)) for url in urls], _SERVER_HEAD_START)


def _server(url: str, known: Greeting | None) -> Attempt:
    try:
        uri = parse_uri(url)
    except (WebSocketException, ValueError) as error:
        raise ServerUnreachableError(url, str(error)) from error
    # The environment is that of the real machine. A simulated one has none.
    by = proxy.named_url(uri.host, uri.port) if isinstance(this_machine(), System) else None
    if by is not None:
        # It knows names that are none here.
        return _address(url, uri.host, (), by)

    async def ask() -> Greeting:
        hosts = await _resolve(url)
        return await _first([_address(url, host, hosts) for host in hosts], _ADDRESS_HEAD_START)

    async def remember() -> Greeting:
        assert known is not None
        return await _first([_address(url, known.host, known.hosts), ask], _ADDRESS_HEAD_START)

    return ask if known is None else remember


def _address(url: str, host: str, hosts: tuple[str, ...], by: str | None = None) -> Attempt:
    async def attempt() -> Greeting:
        websocket = await _open(url, host, by)
        challenge = await answer_of(url, websocket)
        if not isinstance(challenge, Challenge) or challenge.version != protocol.VERSION:
            websocket.transport.abort()
            raise ServerUnreachableError(url, "it speaks another version of the protocol")
        return Greeting(url, websocket, challenge, host, hosts)

    return attempt


async def _open(url: str, host: str, by: str | None) -> ClientConnection:
    # A proxy looks the name up itself.
    where = {"host": host} if by is None else {}
    try:
        return await connect(
            url,
            compression=None,
            proxy=by,
            max_size=protocol.MAX_FRAME,
            open_timeout=ANSWER_TIMEOUT,
            close_timeout=CLOSE_TIMEOUT,
            ping_interval=_KEEPALIVE,
            ping_timeout=_KEEPALIVE,
            write_limit=_WRITE_LIMIT,
            **where,  # type: ignore[arg-type]
        )
    except (OSError, asyncio.TimeoutError, WebSocketException, ValueError) as error:
        how = "through the proxy that the environment names: " if by is not None else ""
        raise ServerUnreachableError(url, how + reason_of(error)) from error


async def answer_of(url: str, websocket: ClientConnection) -> protocol.ToPeer:
    """The server's next message. Raises `ServerUnreachableError`, and leaves the WebSocket closed then."""
    # Not wait_for, which can lose a cancellation that comes together with the result (before Python 3.12).
    loop = asyncio.get_running_loop()
    deadline = loop.call_later(ANSWER_TIMEOUT, websocket.transport.abort)
    try:
        return protocol.decode_to_peer(await websocket.recv())
    except (OSError, WebSocketException, ProtocolDecodeError) as error:
        websocket.transport.abort()
        why = "no answer in time" if loop.time() >= deadline.when() else f"it is no rendezvous server: {error}"
        raise ServerUnreachableError(url, why) from error
    except BaseException:
        websocket.transport.abort()
        raise
    finally:
        deadline.cancel()


async def _resolve(url: str) -> tuple[str, ...]:
    """The addresses of a URL's host: those of the two families in turn (RFC 8305 §4)."""
    try:
        uri = parse_uri(url)
        found = await asyncio.get_running_loop().getaddrinfo(uri.host, uri.port, type=socket.SOCK_STREAM)
    except (OSError, WebSocketException, ValueError) as error:
        raise ServerUnreachableError(url, str(error)) from error
    families: dict[bool, list[str]] = {}
    for host in dict.fromkeys(_host(sockaddr) for *_, sockaddr in found):
        families.setdefault(":" in host, []).append(host)
    return tuple(host for pair in itertools.zip_longest(*families.values()) for host in pair if host is not None)


def _host(sockaddr: tuple[Any, ...]) -> str:
    # For IPv6 the last part is the zone, by its number; 0 for addresses without one.
    host, *_, zone = sockaddr
    return f"{host}%{socket.if_indextoname(zone)}" if len(sockaddr) == 4 and zone else str(host)


async def _first(attempts: Sequence[Attempt], head_start: float) -> Greeting:
    """The first success. Each attempt begins when those before it have failed or had their head start.

    Raises `ServerUnreachableError` when all have failed.
    """
    waiting = list(attempts)
    running: list[asyncio.Future[Greeting]] = []
    failures: list[ServerUnreachableError] = []
    try:
        while waiting or running:
            if waiting:
                running.append(asyncio.ensure_future(waiting.pop(0)()))
            timeout = head_start if waiting else None
            done, _ = await asyncio.wait(running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            for attempt in [each for each in running if each in done]:
                running.remove(attempt)
                try:
                    return attempt.result()
                except ServerUnreachableError as error:
                    failures.append(error)
    finally:
        for attempt in running:
            attempt.add_done_callback(_discard)
            attempt.cancel()
    raise _together(failures)


def _discard(attempt: asyncio.Future[Greeting]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().websocket.transport.abort()


def _together(failures: Sequence[ServerUnreachableError]) -> ServerUnreachableError:
    urls = dict.fromkeys(failure.url for failure in failures)
    reasons = dict.fromkeys(failure.reason for failure in failures)
    return failures[0] if len(failures) == 1 else ServerUnreachableError(", ".join(urls), "; ".join(reasons))
