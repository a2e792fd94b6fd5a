"""`quice send --to NAME`: bring files to a peer that waits for them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from quice.cli.output import Output
from quice.cli.runner import own_identity, peer_book, server_urls
from quice.cli.sending import collected, serve, tell_sent
from quice.cli.ways import Ways

if TYPE_CHECKING:
    from quice.connection import Connection
    from quice.endpoint import Endpoint
    from quice.peers import KnownPeer
    from quice.policy import Policy

_LOOK_AGAIN = 2.0
"""Seconds between two looks whether the peer is there."""


async def push(
    output: Output, paths: list[Path], name: str, server: list[str] | None, ways: Ways, identity: Path | None
) -> None:
    """Send these to the peer of this name, as soon as it is there, and again until it has everything."""
    from quice.endpoint import Endpoint

    known = peer_book(identity).find(name)
    servers, relays = server_urls(server, known.servers), ways.relays
    sources = await collected(output, paths)
    async with Endpoint.bind(own_identity(identity), server=servers, relays=relays) as endpoint:
        while True:
            connection = await _reach(output, endpoint, known, ways.policy)
            gone = f"{known.name} is gone; it can go on when it is back"
            if (result := await serve(output, connection, sources, b"", gone)) is not None:
                break
    tell_sent(output, result)


async def _reach(output: Output, endpoint: Endpoint, known: KnownPeer, policy: Policy) -> Connection:
    """Connect, as soon as the peer is there."""
    from quice.errors import ConnectTimeoutError, PeerUnreachableError
    from quice.transfer.messages import PUSH_ALPN

    is_told = False
    while True:
        try:
            return await endpoint.connect(known.peer, alpn=PUSH_ALPN, policy=policy)
        except (PeerUnreachableError, ConnectTimeoutError):
            # The server takes a while to notice that a peer is gone, which does not answer then.
            if not is_told:
                text = f"{known.name} is not there yet. On that machine:\n\n    quice receive\n"
                output.event("waiting", text, name=known.name, peer=str(known.peer))
            is_told = True
            await asyncio.sleep(_LOOK_AGAIN)
