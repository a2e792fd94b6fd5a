"""Options for the ways that a command's connections may take: relays and a policy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import typer

from quice.cli.runner import UsageError
from quice.policy import Policy
from quice.relaying import RelayServer
from quice.turn.uri import ServerUri

_PANEL = "Which ways to take"

RelayUri = Annotated[
    list[str] | None,
    typer.Option(
        "--relay",
        metavar="URI",
        help="A relay beside the rendezvous server's own: turn:HOST or turns:HOST (TURN). May be given again.",
        rich_help_panel=_PANEL,
    ),
]
RelayUser = Annotated[
    str | None,
    typer.Option(
        "--relay-user", envvar="QUICE_RELAY_USER", metavar="NAME", help="User name there.", rich_help_panel=_PANEL
    ),
]
RelayPassword = Annotated[
    str | None,
    typer.Option(
        "--relay-password",
        envvar="QUICE_RELAY_PASSWORD",
        metavar="TEXT",
        help="Password there; better in the environment, where others don't see it.",
        rich_help_panel=_PANEL,
    ),
]
PolicyOption = Annotated[
    Policy,
    typer.Option(
        "--policy",
        help="auto: the best; direct: through no relay; relay: through relays alone, so that the "
        "peer learns no address of this machine; lan: within a private network.",
        rich_help_panel=_PANEL,
    ),
]


@dataclass(frozen=True)
class Ways:
    """What was given on the command line."""

    policy: Policy = Policy.AUTO
    uris: tuple[str, ...] = ()
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, policy: Policy, uris: list[str] | None, username: str | None, password: str | None) -> Ways:
        """From the options' values."""
        return cls(policy, tuple(uris or ()), username, password)

    @property
    def relays(self) -> tuple[RelayServer, ...]:
        """The relays. Raises `UsageError`, and `ServerUriError` for what is no URI of one."""
        # URIs of one host are ways to one server.
        servers: dict[str, list[str]] = {}
        for text in self.uris:
            servers.setdefault(ServerUri.parse(text).host, []).append(text)
        if not servers:
            return ()
        if not self.username or not self.password:
            raise UsageError(
                "--relay needs the user name and password that the relay knows: --relay-user and --relay-password, or "
                "the environment variables QUICE_RELAY_USER and QUICE_RELAY_PASSWORD"
            )
        return tuple(RelayServer.parse(uris, self.username, self.password) for uris in servers.values())
