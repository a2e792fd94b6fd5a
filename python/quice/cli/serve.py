"""`quice serve`: be the server that peers find each other by."""

from __future__ import annotations

import asyncio
import enum
import gc
import ipaddress
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quice.cli.output import Output
from quice.cli.runner import Json, UsageError, run

if TYPE_CHECKING:
    from quice.server import Server
    from quice.server.entrance import Access
    from quice.server.redis_store import RedisStore
    from quice.server.relay import RelaySettings
    from quice.turn.policy import IpNetwork

_DESCRIPTORS = 65_536
_COLLECT_AFTER = 50_000
_DRAIN = 10.0

_OWN, _ELSEWHERE, _MANY = "This server's relay", "A relay elsewhere", "Several servers as one"
_ACCESS, _WATCHING = "How it is reached", "Watching it"


class LogFormat(str, enum.Enum):
    """How a log is written."""

    TEXT = "text"
    JSON = "json"


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
    drain: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="After SIGTERM, how long peers have to go elsewhere: 10 with --redis, 0 without.",
            rich_help_panel=_MANY,
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Certificate with its chain (PEM): wss://.", rich_help_panel=_ACCESS),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Its key (PEM). Both are loaded anew when they change, and on SIGHUP.",
            rich_help_panel=_ACCESS,
        ),
    ] = None,
    behind_proxy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CIDR",
            help="Network of proxies whose X-Forwarded-For is believed.",
            rich_help_panel=_ACCESS,
        ),
    ] = None,
    max_per_address: Annotated[
        int,
        typer.Option(min=0, help="Connections of one address at the same time; 0 for any.", rich_help_panel=_ACCESS),
    ] = 1000,
    rate_per_address: Annotated[
        float, typer.Option(min=0.01, help="New ones a second in the long run.", rich_help_panel=_ACCESS)
    ] = 20,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Local address for Prometheus: /metrics, /healthz.",
            rich_help_panel=_WATCHING,
        ),
    ] = None,
    log: Annotated[
        LogFormat | None,
        typer.Option(help="What happens, on standard error; else warnings only.", rich_help_panel=_WATCHING),
    ] = None,
    log_visits: Annotated[
        bool, typer.Option("--log-visits", help="Also who comes, leaves and is refused.", rich_help_panel=_WATCHING)
    ] = False,
    log_addresses: Annotated[
        bool, typer.Option("--log-addresses", help="With their addresses and PeerIds.", rich_help_panel=_WATCHING)
    ] = False,
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
    access = partial(
        _access,
        certificate=(tls_cert, tls_key),
        proxies=behind_proxy or [],
        at_once=max_per_address,
        rate=rate_per_address,
        metrics=metrics,
    )
    if log is None and (log_visits or log_addresses):
        log = LogFormat.TEXT
    if log is not None:
        from quice.server.logs import log_to

        log_to(sys.stderr, as_json=log is LogFormat.JSON, visits=log_visits, addresses=log_addresses)
    if drain is None:
        drain = 0.0 if redis is None else _DRAIN
    run(output, _serve(output, host, port, stun_port, settings, access, redis, drain), interrupted=0)


async def _serve(
    output: Output,
    host: str | None,
    port: int,
    stun_port: int,
    settings: Callable[[], RelaySettings],
    access: Callable[[], Access],
    redis: str | None,
    drain: float,
) -> None:
    from quice.server import Server

    if host is not None and not _is_address(host):
        raise UsageError(f"--host takes an IP address of this machine, not {host!r}")
    _allow_descriptors()
    # What thousands of peers are made of stays: it need not be looked through again and again. A message leaves nothing
    # behind that only a collection would free.
    gc.set_threshold(_COLLECT_AFTER, 10, 100)
    store = None if redis is None else _redis_store(redis)
    async with Server(host, port, stun_port, relay=settings(), store=store, access=access()) as server:
        lines = [f"rendezvous {server.url}", f"STUN       {server.stun}"]
        lines += [f"TURN       {url}" for url in server.turn]
        about: dict[str, object] = {"url": server.url, "stun": str(server.stun), "turn": list(server.turn)}
        if server.metrics is not None:
            lines.append(f"metrics    http://{server.metrics}/metrics")
            about["metrics"] = str(server.metrics)
        output.event("ready", "\n".join(lines), **about)
        await _told_to_end(server, drain)
        if drain:
            output.event("draining", f"sending {len(server.rendezvous)} peers elsewhere, for {drain:g} s at most")
            await server.drain(drain)


async def _told_to_end(server: Server, drain: float) -> None:
    """Wait for SIGTERM, and load certificates anew on SIGHUP. Ctrl-C, and a second SIGTERM, cancel this task."""
    loop = asyncio.get_running_loop()
    if hasattr(signal, "SIGHUP"):
        loop.add_signal_handler(signal.SIGHUP, server.reload)
    if not drain:
        await loop.create_future()
    told = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, told.set)
    task = asyncio.current_task()
    assert task is not None
    try:
        await told.wait()
    finally:
        loop.add_signal_handler(signal.SIGTERM, task.cancel)


def _access(
    *,
    certificate: tuple[Path | None, Path | None],
    proxies: list[str],
    at_once: int,
    rate: float,
    metrics: str | None,
) -> Access:
    from quice.server.entrance import Access
    from quice.server.sources import SourceLimits

    chain, key = certificate
    if (chain is None) != (key is None):
        raise UsageError("--tls-cert and --tls-key belong together")
    return Access(
        limits=SourceLimits(at_once or None, rate),
        proxies=tuple(_network("--behind-proxy", text) for text in proxies),
        certificate=None if chain is None else (str(chain), str(key)),
        metrics=None if metrics is None else _metrics_address(metrics),
    )


def _metrics_address(text: str) -> tuple[str, int]:
    from importlib.util import find_spec

    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (_is_address(host) and port.isdecimal() and int(port) < 1 << 16):
        raise UsageError(f"--metrics takes a local address and a port like 127.0.0.1:9478, not {text!r}")
    if find_spec("prometheus_client") is None:
        raise UsageError("--metrics needs the package prometheus-client: install quice[server]")
    return host, int(port)


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

    if not serve:
        for option, given in (("--relay-address", addresses), ("--relay-allow", allow), ("--turn", urls)):
            if given:
                raise UsageError(f"--no-relay and {option} exclude each other: leave one of them out")
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
        allow=tuple(_network("--relay-allow", text) for text in allow),
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


def _network(option: str, text: str) -> IpNetwork:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise UsageError(f"{option} takes a network like 10.0.0.0/8, not {text!r}") from None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
