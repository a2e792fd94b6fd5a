"""`quice ping`: is the peer there, by which path, and how far away?"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from quice.cli.output import Output
from quice.cli.runner import IdentityFile, Json, Server, own_identity, peer_book, run, server_urls
from quice.cli.watch import live_paths, path_changes
from quice.cli.ways import PolicyOption, RelayPassword, RelayUri, RelayUser, Ways
from quice.policy import Policy

if TYPE_CHECKING:
    from quice.connection import Connection
    from quice.identity import PeerId
    from quice.peers import PeerBook

_ALPN = "quice-ping/1"
_PAYLOAD = 32
_COUNT = 4
_LIKE_AN_ID = 40
"""So many characters are rather a peer id, of 52, with a mistake in it than a name."""


def ping(
    peer: Annotated[
        str | None, typer.Argument(metavar="PEER", help="The name of a paired peer, a peer id or a ticket.")
    ] = None,
    count: Annotated[
        int | None, typer.Option("--count", "-c", min=1, help="How many pings: 4, or with --watch no end of them.")
    ] = None,
    interval: Annotated[float, typer.Option(min=0.0, help="Seconds between two.")] = 1.0,
    watch: Annotated[bool, typer.Option("--watch", help="Show the paths and what happens to them.")] = False,
    identity: IdentityFile = None,
    server: Server = None,
    relay: RelayUri = None,
    relay_user: RelayUser = None,
    relay_password: RelayPassword = None,
    policy: PolicyOption = Policy.AUTO,
    json: Json = False,
) -> None:
    """Connect to a peer and measure the path. Without PEER: answer pings, until Ctrl-C."""
    output = Output(json)
    ways = Ways.of(policy, relay, relay_user, relay_password)
    if peer is None:
        run(output, _answer(output, server, ways, identity), interrupted=0)
    else:
        if count is None and not watch:
            count = _COUNT
        run(
            output,
            _ping(output, peer, server, ways, identity, _Pings(count, interval), watch),
            interrupted=0 if watch else 1,
        )


async def _answer(output: Output, server: list[str] | None, ways: Ways, identity: IdentityFile) -> None:
    from quice.endpoint import Endpoint
    from quice.errors import Error
    from quice.ticket import Ticket

    servers, relays, policy = server_urls(server), ways.relays, ways.policy

    async def answer(connection: Connection) -> None:
        try:
            async for stream in connection:
                await stream.write(await stream.readexactly(_PAYLOAD))
                stream.finish()
        except (Error, asyncio.IncompleteReadError) as error:
            output.event("lost", f"lost {connection.peer}", peer=str(connection.peer), message=str(error))

    async with Endpoint.bind(
        own_identity(identity), server=servers, alpns=[_ALPN], relays=relays, policy=policy
    ) as endpoint:
        ticket = str(Ticket(endpoint.peer, endpoint.server))
        output.event("ticket", f"quice ping {ticket}", ticket=ticket)
        tasks = set()
        async for connection in endpoint:
            output.connected(connection)
            task = asyncio.create_task(answer(connection))
            tasks.add(task)
            task.add_done_callback(tasks.discard)


async def _ping(
    output: Output,
    text: str,
    server: list[str] | None,
    ways: Ways,
    identity: IdentityFile,
    pings: _Pings,
    watch: bool,
) -> None:
    from quice.endpoint import Endpoint

    peer, known_servers = _whom(text, peer_book(identity))
    servers = server_urls(server, known_servers)
    async with Endpoint.bind(server=servers, relays=ways.relays) as endpoint:
        started = time.monotonic()
        connection = await endpoint.connect(peer, alpn=_ALPN, policy=ways.policy)
        async with (live_paths if watch else path_changes)(output, connection) as lines:
            sent = await pings.send(output, connection, lines)
        # By now more is known of it than when the connection was made.
        output.relayed(connection)
        connection.close()
        output.event(
            "done",
            bytes=sent * _PAYLOAD,
            seconds=round(time.monotonic() - started, 6),
            connect_seconds=round(connection.connect_seconds, 6),
        )


def _whom(text: str, book: PeerBook) -> tuple[PeerId, Sequence[str]]:
    """The peer that is meant, and the servers at which it is known to be found.

    Raises `UnknownPeerError` for a name that nobody has, `InvalidPeerIdError` and `TicketError`.
    """
    from quice.errors import UnknownPeerError
    from quice.identity import PeerId
    from quice.ticket import Ticket

    try:
        known = book.find(text)
    except UnknownPeerError:
        if text.strip().lower().startswith("quice1"):
            ticket = Ticket.parse(text)
            return ticket.peer, [ticket.server]
        if len(text.strip()) < _LIKE_AN_ID:
            raise
        return PeerId.parse(text), ()
    return known.peer, known.servers


@dataclass(frozen=True)
class _Pings:
    count: int | None
    """None for no end of them."""
    interval: float

    async def send(self, output: Output, connection: Connection, lines: deque[str] | None) -> int:
        """Returns how many it were. `lines`: where a live display shows the answers."""
        for number in itertools.count(1):
            rtt = await _round_trip(connection) * 1000
            text = f"answer {number} after {rtt:.2f} ms"
            if output.is_live and lines is not None:
                lines.append(text)
            else:
                output.event("pong", text, number=number, rtt_ms=round(rtt, 3))
            if number == self.count:
                return number
            await asyncio.sleep(self.interval)
        raise AssertionError("numbers have no end")


async def _round_trip(connection: Connection) -> float:
    """Seconds for a ping and its answer. Raises `PingError`, `StreamError`, `ConnectionClosedError`."""
    from quice.errors import PingError

    sent = time.perf_counter()
    stream = await connection.open_stream()
    await stream.write(bytes(_PAYLOAD))
    stream.finish()
    try:
        await stream.readexactly(_PAYLOAD)
    except asyncio.IncompleteReadError:
        raise PingError from None
    return time.perf_counter() - sent
