"""The `quice` command."""

from __future__ import annotations

import typer

from quice.cli.identity import identity
from quice.cli.ping import ping
from quice.cli.receive import receive
from quice.cli.send import send
from quice.cli.serve import serve

app = typer.Typer(
    help="Direct connections between two machines, wherever they are.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(serve)
app.command("id")(identity)
app.command()(send)
app.command()(receive)
app.command()(ping)


def main() -> None:
    """Run the command line; exits with 0 for done, 1 for failed, 2 for wrong use."""
    app()
