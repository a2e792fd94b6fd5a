"""`quice receive`: fetch what a code or a ticket offers, or wait for what paired peers send."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quice.cli.await_peers import Wanted, await_peers
from quice.cli.output import Output
from quice.cli.receiving import check_folder, receive_all
from quice.cli.runner import IdentityFile, Json, Server, UsageError, run, server_urls
from quice.cli.ways import PolicyOption, RelayPassword, RelayUri, RelayUser, Ways
from quice.policy import Policy

if TYPE_CHECKING:
    from quice.endpoint import Endpoint
    from quice.signal.codes import Code
    from quice.ticket import Ticket


def receive(
    code: Annotated[
        list[str] | None, typer.Argument(metavar="CODE", help="What `quice send` printed: a code or a ticket.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to store in.")] = Path(),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are different.")] = False,
    sender: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="NAME", help="Without CODE: from this peer alone. May be given again."),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Without CODE: go on after the first, until Ctrl-C.")] = False,
    identity: IdentityFile = None,
    server: Server = None,
    relay: RelayUri = None,
    relay_user: RelayUser = None,
    relay_password: RelayPassword = None,
    policy: PolicyOption = Policy.AUTO,
    json: Json = False,
) -> None:
    """Receive files and folders. Run it again after an interruption: it goes on where it was.

    If the sender was interrupted, receive by its new code or ticket into the same folder.

    Without CODE: wait for what paired peers send by `quice send --to`.
    """
    output = Output(json)
    ways = Ways.of(policy, relay, relay_user, relay_password)
    if code:
        # The words of a code may be arguments of their own.
        text = " ".join(code)
        run(output, _receive(output, text, out, overwrite, server, ways, is_narrowed=bool(sender or keep)))
    else:
        wanted = Wanted(tuple(sender or ()), keep, out, overwrite)
        run(output, await_peers(output, wanted, server, ways, identity), interrupted=0 if keep else 1)


async def _receive(
    output: Output, text: str, out: Path, overwrite: bool, server: list[str] | None, ways: Ways, *, is_narrowed: bool
) -> None:
    from quice.endpoint import Endpoint
    from quice.signal.codes import Code
    from quice.ticket import Ticket
    from quice.transfer.kept import KeptTicket
    from quice.transfer.messages import ALPN

    if is_narrowed:
        raise UsageError("--from and --keep are for waiting, without a code or ticket")
    check_folder(out)
    code = Code.parse(text) if _is_code(text) else None
    kept = KeptTicket(out, code) if code is not None else None
    ticket = kept.load() if kept is not None else Ticket.parse(text)
    servers = server_urls(server, (ticket.server,) if ticket is not None else ())
    async with Endpoint.bind(server=servers, relays=ways.relays) as endpoint:
        if ticket is None:
            assert code is not None
            assert kept is not None
            ticket = await _ticket_for(endpoint, code)
            # The code is used up: whoever runs the command again goes on by this.
            kept.save(ticket)
        connection = await endpoint.connect(ticket.peer, alpn=ALPN, policy=ways.policy)
        await receive_all(output, connection, out, overwrite=overwrite, secret=ticket.secret, kept=kept)


def _is_code(text: str) -> bool:
    """Whether it is meant to be a code, rather than a ticket: of several words, or begun with its number."""
    text = text.strip()
    return not text.lower().startswith("quice") and (text[:1].isdigit() or not text.isalnum())


async def _ticket_for(endpoint: Endpoint, code: Code) -> Ticket:
    """The ticket that somebody gives for the code."""
    from quice.cli.codes import Fetch, Files, enter
    from quice.errors import TicketError
    from quice.ticket import Ticket

    peer, files = await enter(endpoint, code, Fetch(), Files)
    try:
        return Ticket(peer, endpoint.server, files.secret)
    except ValueError as error:
        raise TicketError(str(error)) from None
