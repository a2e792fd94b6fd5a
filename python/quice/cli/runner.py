"""How every command runs: its options, its event loop, its signals and its exit status."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from quice.cli.output import Output
from quice.errors import Error
from quice.identity import Identity

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]
Server = Annotated[
    str | None,
    typer.Option("--server", envvar="QUICE_SERVER", metavar="URL", help="The rendezvous server (ws:// or wss://)."),
]
IdentityFile = Annotated[
    Path | None,
    typer.Option("--identity", envvar="QUICE_IDENTITY", metavar="FILE", help="Where the secret key is kept."),
]


def run(output: Output, main: Coroutine[Any, Any, None], *, interrupted: int = 1) -> None:
    """Run a command to its end and exit: 0 when it did its work, 1 when it failed, `interrupted` for Ctrl-C."""
    try:
        asyncio.run(_until_signal(main))
    except (asyncio.CancelledError, KeyboardInterrupt):
        raise typer.Exit(interrupted) from None
    except Error as error:
        output.error(error)
        raise typer.Exit(1) from None


async def _until_signal(main: Coroutine[Any, Any, None]) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(main)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    await task


def need_server(server: str | None) -> str:
    """The server's URL; wrong use without one, or with one of another kind."""
    if server is None:
        raise typer.BadParameter("name a rendezvous server: --server URL or QUICE_SERVER (`quice serve` runs one)")
    return server


def own_identity(path: Path | None) -> Identity:
    """The user's identity, made on first use. Raises `IdentityError`."""
    if path is None:
        base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
        path = Path(base) / "quice" / "identity"
    return Identity.load_or_generate(path)
