"""`quice send`: offer files to whoever has the code or the ticket, or bring them to a peer by its name."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quice.cli.output import Output
from quice.cli.push import push
from quice.cli.runner import IdentityFile, Json, Server, run, server_urls
from quice.cli.sending import Sent, collected, serve, tell_sent
from quice.cli.ways import PolicyOption, RelayPassword, RelayUri, RelayUser, Ways
from quice.policy import Policy

if TYPE_CHECKING:
    from quice.endpoint import Endpoint
    from quice.signal.codes import Code
    from quice.transfer.sources import Source

_GONE = "the receiver is gone; it can go on by the same command"


def send(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Files and folders to send.")],
    to: Annotated[
        str | None, typer.Option(metavar="NAME", help="Send to this peer, paired with before, without a code.")
    ] = None,
    ticket: Annotated[
        bool, typer.Option("--ticket", help="Print a ticket instead of a code: long, but it names the server.")
    ] = False,
    identity: IdentityFile = None,
    server: Server = None,
    relay: RelayUri = None,
    relay_user: RelayUser = None,
    relay_password: RelayPassword = None,
    policy: PolicyOption = Policy.AUTO,
    json: Json = False,
) -> None:
    """Send files and folders: prints a code to tell the other side, and stays until somebody has everything."""
    output = Output(json)
    ways = Ways.of(policy, relay, relay_user, relay_password)
    if to is not None and ticket:
        raise typer.BadParameter("it goes with no --to, which needs neither code nor ticket", param_hint="--ticket")
    if to is not None:
        run(output, push(output, paths, to, server, ways, identity))
    else:
        run(output, _send(output, paths, server, ways, by_code=not ticket))


async def _send(output: Output, paths: list[Path], server: list[str] | None, ways: Ways, *, by_code: bool) -> None:
    from quice.cli.codes import Fetch, Files, offer
    from quice.endpoint import Endpoint
    from quice.ticket import SECRET_LENGTH, Ticket
    from quice.transfer.messages import ALPN

    servers, relays = server_urls(server), ways.relays
    sources = await collected(output, paths)
    async with Endpoint.bind(server=servers, alpns=[ALPN], relays=relays, policy=ways.policy) as endpoint:
        ticket = Ticket(endpoint.peer, endpoint.server, secrets.token_bytes(SECRET_LENGTH))
        command = f"On the other machine:\n\n    quice receive {ticket}\n"
        output.event("ticket", None if by_code else command, ticket=str(ticket))

        def words(code: Code) -> str:
            return f"On the other machine:\n\n    quice receive {code}{server_option(server)}\n"

        async def offer_codes() -> None:
            if by_code:
                await offer(output, endpoint, Files(secret=ticket.secret), Fetch, words)

        result = await _offer(output, endpoint, sources, ticket.secret, asyncio.create_task(offer_codes()))
    tell_sent(output, result)


def server_option(server: list[str] | None) -> str:
    """What the other side has to add to a command, for it does not know what was given on this command line."""
    return "".join(f" --server {url}" for url in server or ())


async def _offer(
    output: Output, endpoint: Endpoint, sources: list[Source], secret: bytes, codes: asyncio.Task[None]
) -> Sent:
    """Serve receivers, several at once, until one of them has everything."""
    finished: asyncio.Future[Sent] = asyncio.get_running_loop().create_future()

    def ended(task: asyncio.Task[Sent | None]) -> None:
        tasks.discard(task)
        if finished.done() or task.cancelled():
            return
        if (error := task.exception()) is not None:
            finished.set_exception(error)
        elif (result := task.result()) is not None:
            finished.set_result(result)

    def no_more_codes(task: asyncio.Task[None]) -> None:
        if not (finished.done() or task.cancelled()) and (error := task.exception()) is not None:
            finished.set_exception(error)

    async def accept() -> None:
        async for connection in endpoint:
            task = asyncio.create_task(serve(output, connection, sources, secret, _GONE))
            tasks.add(task)
            task.add_done_callback(ended)

    tasks: set[asyncio.Task[Sent | None]] = set()
    codes.add_done_callback(no_more_codes)
    accepting = asyncio.create_task(accept())
    try:
        return await finished
    finally:
        everything = [accepting, codes, *tasks]
        for task in everything:
            task.cancel()
        await asyncio.gather(*everything, return_exceptions=True)
