"""`quice receive`: fetch what a ticket offers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from quice.cli.output import Output, in_words
from quice.cli.runner import Json, Server, run, server_urls
from quice.cli.watch import path_changes
from quice.cli.ways import PolicyOption, RelayPassword, RelayUri, RelayUser, Ways
from quice.policy import Policy


def receive(
    ticket: Annotated[str, typer.Argument(metavar="TICKET", help="What `quice send` printed.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to store in.")] = Path(),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are different.")] = False,
    server: Server = None,
    relay: RelayUri = None,
    relay_user: RelayUser = None,
    relay_password: RelayPassword = None,
    policy: PolicyOption = Policy.AUTO,
    json: Json = False,
) -> None:
    """Receive files and folders. Run it again after an interruption: it goes on where it was."""
    output = Output(json)
    ways = Ways.of(policy, relay, relay_user, relay_password)
    run(output, _receive(output, ticket, out, overwrite, server, ways))


async def _receive(output: Output, text: str, out: Path, overwrite: bool, server: list[str] | None, ways: Ways) -> None:
    from quice.endpoint import Endpoint
    from quice.ticket import Ticket
    from quice.transfer.messages import ALPN
    from quice.transfer.receiver import fetch

    ticket = Ticket.parse(text)
    async with Endpoint.bind(server=server_urls(server, ticket), relays=ways.relays) as endpoint:
        connection = await endpoint.connect(ticket.peer, alpn=ALPN, policy=ways.policy)
        started = time.monotonic()
        async with path_changes(output, connection):
            stream = await connection.open_stream()
            with output.progress("receiving") as progress:
                received = await fetch(stream, out, progress, secret=ticket.secret, overwrite=overwrite)
        seconds = time.monotonic() - started
        connection.close()
        output.event(
            "done",
            in_words("received", received.bytes, seconds),
            bytes=received.bytes,
            seconds=round(seconds, 6),
            connect_seconds=round(connection.connect_seconds, 6),
        )
