"""`quice send`: offer files to whoever has the ticket."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quice.cli.output import Output, in_words
from quice.cli.runner import Json, Server, run, server_urls
from quice.cli.watch import path_changes
from quice.cli.ways import PolicyOption, RelayPassword, RelayUri, RelayUser, Ways
from quice.policy import Policy

if TYPE_CHECKING:
    from quice.connection import Connection
    from quice.endpoint import Endpoint
    from quice.transfer.sources import Source

_GOODBYE = 5.0
"""Seconds for the receiver to close the connection after it has everything."""


@dataclass(frozen=True)
class _Result:
    bytes: int
    seconds: float
    connect_seconds: float


def send(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Files and folders to send.")],
    server: Server = None,
    relay: RelayUri = None,
    relay_user: RelayUser = None,
    relay_password: RelayPassword = None,
    policy: PolicyOption = Policy.AUTO,
    json: Json = False,
) -> None:
    """Send files and folders: prints a ticket, and stays until the transfer is over."""
    output = Output(json)
    run(output, _send(output, paths, server, Ways.of(policy, relay, relay_user, relay_password)))


async def _send(output: Output, paths: list[Path], server: list[str] | None, ways: Ways) -> None:
    from quice.endpoint import Endpoint
    from quice.ticket import SECRET_LENGTH, Ticket
    from quice.transfer.disk import in_thread
    from quice.transfer.messages import ALPN
    from quice.transfer.sources import collect

    servers, relays = server_urls(server), ways.relays

    def skipped(path: Path, why: str) -> None:
        output.event("skipped", f"not sent: {str(path)!r} is {why}", path=str(path), reason=why)

    sources = await in_thread(lambda stop: collect(paths, skipped, stop))
    async with Endpoint.bind(server=servers, alpns=[ALPN], relays=relays, policy=ways.policy) as endpoint:
        ticket = Ticket(endpoint.peer, endpoint.server, secrets.token_bytes(SECRET_LENGTH))
        output.event("ticket", f"On the other machine:\n\n    quice receive {ticket}\n", ticket=str(ticket))
        result = await _offer(output, endpoint, sources, ticket.secret)
    output.event(
        "done",
        in_words("sent", result.bytes, result.seconds),
        bytes=result.bytes,
        seconds=round(result.seconds, 6),
        connect_seconds=round(result.connect_seconds, 6),
    )


async def _offer(output: Output, endpoint: Endpoint, sources: list[Source], secret: bytes) -> _Result:
    """Serve receivers, several at once, until one of them has everything."""
    finished: asyncio.Future[_Result] = asyncio.get_running_loop().create_future()

    def ended(task: asyncio.Task[_Result | None]) -> None:
        tasks.discard(task)
        if finished.done() or task.cancelled():
            return
        if (error := task.exception()) is not None:
            finished.set_exception(error)
        elif (result := task.result()) is not None:
            finished.set_result(result)

    async def accept() -> None:
        async for connection in endpoint:
            task = asyncio.create_task(_serve(output, connection, sources, secret))
            tasks.add(task)
            task.add_done_callback(ended)

    tasks: set[asyncio.Task[_Result | None]] = set()
    accepting = asyncio.create_task(accept())
    try:
        return await finished
    finally:
        everything = [accepting, *tasks]
        for task in everything:
            task.cancel()
        await asyncio.gather(*everything, return_exceptions=True)


async def _serve(output: Output, connection: Connection, sources: list[Source], secret: bytes) -> _Result | None:
    """Serve one receiver; None when it does not come to an end."""
    from quice.errors import ConnectionClosedError, Error
    from quice.transfer.sender import serve_stream

    started = time.monotonic()
    async with connection, path_changes(output, connection):
        try:
            stream = await connection.accept_stream()
            with output.progress("sending") as progress:
                sent = await serve_stream(stream, sources, progress, secret=secret)
        except Error as error:
            if not isinstance(error, ConnectionClosedError):
                output.error(error)
            output.event("interrupted", "the receiver is gone; it can go on with the same ticket")
            return None
        seconds = time.monotonic() - started
        # The receiver closes once it knows that we know.
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(connection.wait_closed(), _GOODBYE)
    return _Result(sent, seconds, connection.connect_seconds)
