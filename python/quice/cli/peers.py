"""`quice peers`: the peers that have names here."""

from __future__ import annotations

from typing import Annotated

import typer

from quice.cli.output import Output
from quice.cli.runner import IdentityFile, Json, peer_book, run


def peers(
    remove: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Forget this one. May be given again.")
    ] = None,
    identity: IdentityFile = None,
    json: Json = False,
) -> None:
    """List the peers that this machine is paired with."""
    output = Output(json)
    run(output, _peers(output, remove or [], identity))


async def _peers(output: Output, remove: list[str], identity: IdentityFile) -> None:
    book = peer_book(identity)
    for name in remove:
        removed = book.remove(name)
        output.event("removed", f"forgot {removed.name}", name=removed.name, peer=str(removed.peer))
    if not remove:
        for known in book:
            output.event(
                "peer",
                f"{known.name}  {known.peer}",
                name=known.name,
                peer=str(known.peer),
                servers=list(known.servers),
            )
