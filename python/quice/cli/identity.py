"""`quice id`: who am I?"""

from __future__ import annotations

import typer

from quice.cli.output import Output
from quice.cli.runner import IdentityFile, Json, own_identity
from quice.errors import Error


def identity(
    identity: IdentityFile = None,
    json: Json = False,
) -> None:
    """Print this user's peer id; the secret key is made on first use."""
    output = Output(json)
    try:
        peer = str(own_identity(identity).peer)
    except Error as error:
        output.error(error)
        raise typer.Exit(1) from None
    output.event("id", peer, peer=peer)
