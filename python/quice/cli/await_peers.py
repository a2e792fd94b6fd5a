"""`quice receive` without a code: wait for what paired peers send."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quice.cli.output import Output
from quice.cli.receiving import check_folder, receive_all
from quice.cli.runner import UsageError, own_identity, peer_book, server_urls
from quice.cli.ways import Ways

if TYPE_CHECKING:
    from quice.connection import Connection


@dataclass(frozen=True)
class Wanted:
    """What is taken, and where to."""

    names: tuple[str, ...]
    """The senders; all paired peers if none is named."""
    keep: bool
    """Whether to go on after the first."""
    out: Path
    overwrite: bool


async def await_peers(
    output: Output, wanted: Wanted, server: list[str] | None, ways: Ways, identity: Path | None
) -> None:
    """Receive what paired peers send to this one, first come, first served."""
    from quice.endpoint import Endpoint
    from quice.transfer.messages import NOT_PAIRED, PUSH_ALPN

    book = peer_book(identity)
    known = [book.find(name) for name in wanted.names] or list(book)
    if not known:
        raise UsageError(
            "nobody is paired with this machine, so there is nobody to wait for. Run `quice pair` on both machines, or "
            "give the code that `quice send` printed"
        )
    check_folder(wanted.out)
    names = {each.peer: each.name for each in known}
    servers = server_urls(server, tuple(dict.fromkeys(url for each in known for url in each.servers)))
    async with Endpoint.bind(
        own_identity(identity), server=servers, alpns=[PUSH_ALPN], relays=ways.relays, policy=ways.policy
    ) as endpoint:
        listed = ", ".join(names.values())
        output.event("waiting", f"waiting for {listed}", names=list(names.values()), peer=str(endpoint.peer))
        async for connection in endpoint:
            name = names.get(connection.peer)
            if name is None:
                connection.close(NOT_PAIRED, "not paired")
                output.event("refused", f"refused {connection.peer}, who is none of them", peer=str(connection.peer))
            elif await _receive(output, connection, wanted, name) and not wanted.keep:
                return


async def _receive(output: Output, connection: Connection, wanted: Wanted, name: str) -> bool:
    """Receive from one peer; returns whether it came to its end."""
    from quice.errors import ConnectionClosedError, RemoteFileError, StreamError

    try:
        await receive_all(output, connection, wanted.out, overwrite=wanted.overwrite, sender=name)
    except (ConnectionClosedError, RemoteFileError, StreamError) as error:
        if not isinstance(error, ConnectionClosedError):
            output.error(error)
        output.event("interrupted", f"{name} is gone; it can go on when it is back", name=name)
        return False
    finally:
        connection.close()
    return True
