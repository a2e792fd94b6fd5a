"""`quice serve`: be the server that peers find each other by."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from quice.cli.output import Output
from quice.cli.runner import Json, UsageError, run

if TYPE_CHECKING:
    from quice.server.redis_store import RedisStore
    from quice.server.relay import RelaySettings
    from quice.turn.policy import IpNetwork

_DESCRIPTORS = 65_536

_OWN, _ELSEWHERE, _MANY = "This server's relay", "A relay elsewhere", "Several servers as one"


def serve(
    host: Annotated[str | None, typer.Option(help="Local address to serve on; all of them by default.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port of the rendezvous (WebSocket).")] = 4780,
    stun_port: Annotated[int, typer.Option(min=0, max=65535, help="UDP and TCP port of STUN and TURN.")] = 3478,
    relay: Annotated[
        bool, typer.Option(help="Relay between peers that can't reach each other (TURN).", rich_help_panel=_OWN)
    ] = True,
    relay_address: Annotated[
        list[str] | None,
        typer.Option(
            metavar="IP",
            help="Public address that this host is behind, if a NAT maps it one to one.",
            rich_help_panel=_OWN,
        ),
    ] = None,
    relay_ports: Annotated[
        str, typer.Option(metavar="LO-HI", help="UDP ports of relayed addresses.", rich_help_panel=_OWN)
    ] = "49152-65535",
    relay_quota: Annotated[
        int, typer.Option(min=1, help="Relayed addresses for each peer at the same time.", rich_help_panel=_OWN)
    ] = 16,
    relay_rate: Annotated[
        float,
        typer.Option(min=0, help="Bytes a second relayed for each peer; 0 for any number.", rich_help_panel=_OWN),
    ] = 12_500_000,
    relay_allow: Annotated[
        list[str] | None,
        typer.Option(metavar="CIDR", help="Private network to relay to, otherwise refused.", rich_help_panel=_OWN),
    ] = None,
    turn: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL", help="TURN server that peers are to use instead of this one.", rich_help_panel=_ELSEWHERE
        ),
    ] = None,
    turn_secret: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            envvar="QUICE_TURN_SECRET",
            help="The secret shared with it (coturn: use-auth-secret, static-auth-secret); better in the "
            "environment, where others don't see it.",
            rich_help_panel=_ELSEWHERE,
        ),
    ] = None,
    redis: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="QUICE_REDIS",
            help="Redis (redis://, rediss:// or unix://), through which several servers are one.",
            rich_help_panel=_MANY,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Run a rendezvous, STUN and TURN server, until Ctrl-C."""
    output = Output(json)
    settings = partial(
        _relay_settings,
        serve=relay,
        addresses=relay_address or [],
        ports=relay_ports,
        quota=relay_quota,
        rate=relay_rate,
        allow=relay_allow or [],
        urls=turn or [],
        secret=turn_secret,
    )
    run(output, _serve(output, host, port, stun_port, settings, redis), interrupted=0)


async def _serve(
    output: Output,
    host: str | None,
    port: int,
    stun_port: int,
    settings: Callable[[], RelaySettings],
    redis: str | None,
) -> None:
    from quice.server import Server

    if host is not None and not _is_address(host):
        raise UsageError(f"--host takes an IP address of this machine, not {host!r}")
    _allow_descriptors()
    store = None if redis is None else _redis_store(redis)
    async with Server(host, port, stun_port, relay=settings(), store=store) as server:
        lines = [f"rendezvous {server.url}", f"STUN       {server.stun}"]
        lines += [f"TURN       {url}" for url in server.turn]
        output.event("ready", "\n".join(lines), url=server.url, stun=str(server.stun), turn=list(server.turn))
        await asyncio.get_running_loop().create_future()


def _redis_store(url: str) -> RedisStore:
    try:
        from quice.server.redis_store import RedisStore
    except ImportError:
        raise UsageError("--redis needs the package redis: install quice[server]") from None
    try:
        return RedisStore(url)
    except ValueError as error:
        raise UsageError(f"--redis takes a URL like redis://127.0.0.1:6379/0: {error}") from None


def _relay_settings(
    *,
    serve: bool,
    addresses: list[str],
    ports: str,
    quota: int,
    rate: float,
    allow: list[str],
    urls: list[str],
    secret: str | None,
) -> RelaySettings:
    from quice.server.relay import RelaySettings
    from quice.signal.protocol import MAX_RELAYS

    if urls and not secret:
        raise UsageError("--turn needs --turn-secret, by which the server there checks credentials")
    if len(urls) > MAX_RELAYS:
        raise UsageError(f"--turn can be given {MAX_RELAYS} times at most")
    for url in urls:
        if not url.startswith(("turn:", "turns:")):
            raise UsageError(f"--turn takes a URL like turn:relay.example.org, not {url!r}")
    for address in addresses:
        if not _is_address(address):
            raise UsageError(f"--relay-address takes an IP address, not {address!r}")
    low, _, high = ports.partition("-")
    if not (low.isdecimal() and high.isdecimal() and 0 < int(low) < int(high) < 1 << 16):
        raise UsageError(f"--relay-ports takes two port numbers like 49152-65535, not {ports!r}")
    return RelaySettings(
        serve=serve,
        urls=tuple(urls),
        secret=secret,
        addresses=tuple(addresses),
        ports=range(int(low), int(high) + 1),
        quota=quota,
        rate=rate or None,
        allow=tuple(_network(text) for text in allow),
    )


def _allow_descriptors() -> None:
    """Each peer and each relayed address takes one; the usual limit is for programs that use `select`."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _network(text: str) -> IpNetwork:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise UsageError(f"--relay-allow takes a network like 10.0.0.0/8, not {text!r}") from None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
