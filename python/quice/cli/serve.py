"""`quice serve`: be the server that peers find each other by."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Annotated

import typer

from quice.cli.output import Output
from quice.cli.runner import Json, UsageError, run


def serve(
    host: Annotated[str | None, typer.Option(help="Local address to serve on; all of them by default.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port of the rendezvous (WebSocket).")] = 4780,
    stun_port: Annotated[int, typer.Option(min=0, max=65535, help="UDP port of STUN.")] = 3478,
    json: Json = False,
) -> None:
    """Run a rendezvous and STUN server, until Ctrl-C."""
    output = Output(json)
    run(output, _serve(output, host, port, stun_port), interrupted=0)


async def _serve(output: Output, host: str | None, port: int, stun_port: int) -> None:
    from quice.server import Server

    if host is not None and not _is_address(host):
        raise UsageError(f"--host takes an IP address of this machine, not {host!r}")
    async with Server(host, port, stun_port) as server:
        text = f"rendezvous {server.url}\nSTUN       {server.stun}"
        output.event("ready", text, url=server.url, stun=str(server.stun))
        await asyncio.get_running_loop().create_future()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
