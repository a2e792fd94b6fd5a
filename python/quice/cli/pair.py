"""`quice pair`: two machines get to know each other by name."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quice.cli.output import Output
from quice.cli.runner import IdentityFile, Json, Server, own_identity, peer_book, run, server_urls
from quice.cli.send import server_option

if TYPE_CHECKING:
    from quice.signal.codes import Code


def pair(
    code: Annotated[
        list[str] | None, typer.Argument(metavar="CODE", help="What `quice pair` printed on the other machine.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What to call the other machine; else it is called as it calls itself."),
    ] = None,
    identity: IdentityFile = None,
    server: Server = None,
    json: Json = False,
) -> None:
    """Pair with another machine: each stores the other under a name, for `quice send --to` and `quice receive`.

    Without CODE: prints a code, for this command on the other machine.
    """
    output = Output(json)
    run(output, _pair(output, " ".join(code or ()), name, server, identity))


async def _pair(
    output: Output, text: str, name: str | None, server: list[str] | None, identity_file: Path | None
) -> None:
    from quice.cli.codes import Name, enter, offer
    from quice.endpoint import Endpoint
    from quice.peers import MAX_NAME, checked_name
    from quice.signal.codes import Code

    def words(code: Code) -> str:
        return f"On the other machine:\n\n    quice pair {code}{server_option(server)}\n"

    if name is not None:
        checked_name(name)
    book, servers = peer_book(identity_file), server_urls(server)
    entered = Code.parse(text) if text else None
    # A file that can't be used is to be known before the code is used up.
    list(book)
    own = Name(name=socket.gethostname().partition(".")[0][:MAX_NAME])
    async with Endpoint.bind(own_identity(identity_file), server=servers) as endpoint:
        if entered is None:
            peer, other = await offer(output, endpoint, own, Name, words)
        else:
            peer, other = await enter(endpoint, entered, own, Name)
    name = name or book.name_of(peer) or book.free_name(other.name)
    known = book.add(name, peer, tuple(servers))
    output.event(
        "paired",
        f"paired with {known.name}. Now `quice send PATH --to {known.name}` works, while `quice receive` waits there",
        name=known.name,
        peer=str(peer),
        servers=list(known.servers),
    )
