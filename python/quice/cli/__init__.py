"""The `quice` command."""

from __future__ import annotations

import io
import signal
import sys
from typing import Annotated

import typer

from quice.cli.connect import connect
from quice.cli.identity import identity
from quice.cli.pair import pair
from quice.cli.peers import peers
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


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"quice {version('quice')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """What comes before the name of a command."""


app.command()(serve)
app.command("id")(identity)
app.command()(send)
app.command()(receive)
app.command()(pair)
app.command()(peers)
app.command()(ping)
app.command()(connect)


def main() -> None:
    """Run the command line; exits with 0 for done, 1 for failed, 2 for wrong use."""
    for stream in (sys.stdout, sys.stderr):
        # A name with letters that the terminal's encoding lacks is shown with escapes, and ends nothing.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # Ctrl-C before a command runs and after it has ended: nothing is left to be done then, and nothing to be told.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        app(prog_name="quice")
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
