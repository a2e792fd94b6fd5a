"""How every command runs: its options, its event loop, its signals and its exit status."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from quice.cli.output import Output
from quice.errors import (
    DescriptionError,
    Error,
    InvalidCodeError,
    InvalidPeerIdError,
    PeerNameError,
    ServerUriError,
    TicketError,
    UnknownPeerError,
)
from quice.identity import Identity
from quice.peers import PeerBook

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]
Server = Annotated[
    list[str] | None,
    typer.Option(
        "--server",
        metavar="URL",
        help="The rendezvous server (ws:// or wss://); else that of the ticket or of the named peer, or "
        "the environment variable QUICE_SERVER. Given several times: the first that answers.",
    ),
]
IdentityFile = Annotated[
    Path | None,
    typer.Option("--identity", envvar="QUICE_IDENTITY", metavar="FILE", help="Where the secret key is kept."),
]


class UsageError(Error):
    """The command was called in a way that makes no sense."""


_WRONG_USE = (
    UsageError,
    DescriptionError,
    TicketError,
    InvalidCodeError,
    InvalidPeerIdError,
    PeerNameError,
    ServerUriError,
    UnknownPeerError,
)


def run(output: Output, main: Coroutine[Any, Any, None], *, interrupted: int = 1) -> None:
    """Run a command to its end and exit: 0 when it did its work, 1 when it failed, 2 when it was called wrongly,
    `interrupted` for Ctrl-C."""
    try:
        asyncio.run(_until_signal(main))
    except (asyncio.CancelledError, KeyboardInterrupt):
        raise typer.Exit(interrupted) from None
    except Error as error:
        output.error(error)
        raise typer.Exit(2 if isinstance(error, _WRONG_USE) else 1) from None


async def _until_signal(main: Coroutine[Any, Any, None]) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(main)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    await task


def server_urls(given: list[str] | None, known: Sequence[str] = ()) -> list[str]:
    """The servers to use: those given, else those at which the peer is known to be found, else those of QUICE_SERVER,
    with spaces between.

    Raises `UsageError` when there is none, or what is named is none.
    """
    named = given or known or os.environ.get("QUICE_SERVER", "").split()
    if not named:
        raise UsageError("no rendezvous server is named: use --server URL or QUICE_SERVER (`quice serve` runs one)")
    return [_server_url(server) for server in named]


def _server_url(server: str) -> str:
    scheme, _, rest = server.strip().partition("://")
    url = f"{scheme.lower()}://{rest}"
    try:
        parts = urlsplit(url)
        # Reading the port checks it.
        known = parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0 and url.isprintable()
    except ValueError:
        known = False
    if not known:
        raise UsageError(
            f"not the URL of a rendezvous server: {server!r}. `quice serve` prints its own: ws://HOST:PORT"
        )
    return url


def own_identity(path: Path | None) -> Identity:
    """The user's identity, made on first use. Raises `IdentityError`."""
    return Identity.load_or_generate(_identity_path(path))


def peer_book(path: Path | None) -> PeerBook:
    """The peers that the user has names for; they are kept beside the identity, which `path` names."""
    return PeerBook(_identity_path(path).parent / "peers.json")


def _identity_path(path: Path | None) -> Path:
    if path is not None:
        return path
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "quice" / "identity"
