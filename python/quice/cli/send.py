"""`quice send`: offer files to whoever has the ticket."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from quice.cli.output import Output
from quice.cli.runner import Json, Server, need_server, run


def send(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files and folders to send.")],
    server: Server = None,
    json: Json = False,
) -> None:
    """Send files and folders: prints a ticket, and stays until the transfer is over."""
    output = Output(json)
    run(output, _send(output, paths, need_server(server)))


async def _send(output: Output, paths: list[Path], server: str) -> None:
    from quice.connection import Connection
    from quice.endpoint import Endpoint
    from quice.errors import ConnectionClosedError, Error
    from quice.ticket import Ticket
    from quice.transfer.messages import ALPN
    from quice.transfer.sender import collect, serve_stream

    def skipped(path: Path, why: str) -> None:
        print(f"not sent: {path} is {why}", file=sys.stderr)

    sources = await asyncio.to_thread(collect, paths, skipped)
    finished: asyncio.Queue[tuple[int, float]] = asyncio.Queue()

    async def serve(connection: Connection) -> None:
        started = time.monotonic()
        output.connected(connection)
        try:
            async with connection:
                stream = await connection.accept_stream()
                with output.progress("sending") as progress:
                    sent = await serve_stream(stream, sources, progress)
                # The receiver closes once it knows that we know.
                await asyncio.wait_for(connection.wait_closed(), 5)
        except (Error, asyncio.IncompleteReadError, asyncio.TimeoutError) as error:
            if not isinstance(error, ConnectionClosedError):
                output.error(error)
            output.event("interrupted", "the receiver is gone; it can go on with the same ticket")
            return
        finished.put_nowait((sent, time.monotonic() - started))

    async with Endpoint.bind(server=server, alpns=[ALPN]) as endpoint:
        ticket = str(Ticket(endpoint.peer, server))
        output.event("ticket", f"On the other machine:\n\n    quice receive {ticket}\n", ticket=ticket)
        tasks: set[asyncio.Task[None]] = set()

        async def accept() -> None:
            async for connection in endpoint:
                task = asyncio.create_task(serve(connection))
                tasks.add(task)
                task.add_done_callback(tasks.discard)

        accepting = asyncio.create_task(accept())
        try:
            sent, seconds = await finished.get()
        finally:
            for task in (accepting, *tasks):
                task.cancel()
            await asyncio.gather(accepting, *tasks, return_exceptions=True)
        rate = sent * 8 / seconds / 1e6
        text = f"sent {sent:,} bytes in {seconds:.1f} s, {rate:,.0f} Mbit/s"
        output.event("done", text, bytes=sent, seconds=round(seconds, 6), connect_seconds=None)
