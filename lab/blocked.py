"""Connecting where UDP is blocked: `python -m lab.blocked` compares that with what TCP and TLS alone take.

Two hosts behind NATs, 25 ms from the internet each, and there a rendezvous server, and coturn with TLS on port 443. UDP
is blocked on one side, or on both; or all is blocked on both but an HTTP proxy.
"""

from __future__ import annotations

import argparse
import asyncio
import enum
import json
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interop.certificates import certify
from lab.ground import ENVIRONMENT, LabError, available
from lab.link import Conditions
from lab.network import Lab
from lab.servers import SECRET, Server, coturn, rendezvous
from lab.site import Host
from lab.story import Program, StoryError, exit_on_sigterm
from quice import Candidate, CandidateKind, Connection, Endpoint, PeerId
from quice.relaying import RelayServer
from quice.sim.kinds import Nat
from quice.turn import time_limited

ALPN = "blocked/1"
NEAR = Conditions(delay=0.025)
TO_SERVER = 2 * NEAR.delay
"""Seconds to a server and back."""
TO_PEER = 4 * NEAR.delay
"""Seconds from one peer to the other and back, over a server."""
_NAME = "relay.example"
_TLS = 443
_PORT = 4780
_PROXY_PORT = 3128
_URIS = (f"turn:{_NAME}", f"turns:{_NAME}:{_TLS}?transport=tcp")
_LIFETIME = 3600
_PATIENCE = 10.0
_PROGRAM = (sys.executable, "-m", "lab.blocked")


class Wall(str, enum.Enum):
    """What is blocked."""

    ONE = "UDP on one side"
    BOTH = "UDP on both sides"
    PROXY = "all but a proxy"


@dataclass(frozen=True)
class Times:
    """How long things took, in seconds, behind a wall.

    bare: TCP and TLS with the relay, from the side that connects. allocated: from `bind` until there was a relayed
    address. connected: from `connect` of an endpoint that had one; again: the same, once more. cold: from `bind` until
    there was an answer from the peer. kind: the path's.
    """

    bare: float
    allocated: float
    connected: float
    again: float
    cold: float
    kind: str


class Walled:
    """The two hosts behind a wall, and the servers before it."""

    def __init__(self, lab: Lab, wall: Wall, exits: ExitStack) -> None:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="quice-lab-")))
        server, relay, proxy = (lab.server() for _ in range(3))
        sites = [lab.site(Nat.PORT_RESTRICTED, conditions=NEAR) for _ in range(2)]
        hosts = [site.host() for site in sites]
        names = folder / "hosts"
        names.write_text(f"{relay.address} {_NAME}\n")
        for host in (*hosts, proxy):
            host.know(names)
        certify(folder, _NAME)
        certificate, key = folder / "cert.pem", folder / "key.pem"
        tls = ("--tls-listening-port", str(_TLS), "--cert", str(certificate), "--pkey", str(key), "--no-dtls")
        exits.enter_context(rendezvous(server, "--host", server.address, "--port", str(_PORT), "--no-relay"))
        exits.enter_context(coturn(relay, folder, *tls, "--listening-ip", relay.address))
        proxying = (sys.executable, "-m", "lab.proxy", proxy.address, str(_PROXY_PORT))
        exits.enter_context(Server(proxy, '"ready"', *proxying))
        environment = ENVIRONMENT | {"SSL_CERT_FILE": str(certificate)}
        if wall is Wall.PROXY:
            environment["HTTPS_PROXY"] = f"http://{proxy.address}:{_PROXY_PORT}"
        for site in sites[: 1 if wall is Wall.ONE else 2]:
            if wall is Wall.PROXY:
                site.confine(proxy.address)
            else:
                site.block_udp()
        self.url = f"ws://{server.address}:{_PORT}"
        self.near, self.far = (_With(host, environment) for host in hosts)
        self._proxy = (proxy.address,) if wall is Wall.PROXY else ()

    def bare(self) -> float:
        """Seconds that TCP and TLS take from one of the two to the relay."""
        with Program(self.near, "bare", *_PROGRAM, "bare", *self._proxy) as program:
            return float(program.wait_for("done")["seconds"])


@contextmanager
def walled(wall: Wall) -> Iterator[Walled]:
    """The two hosts behind a wall."""
    with Lab() as lab, ExitStack() as exits:
        yield Walled(lab, wall, exits)


def measure(wall: Wall) -> Times:
    """Have two connect behind a wall. Raises `StoryError`."""
    with (
        walled(wall) as stage,
        Program(stage.far, "accept", *_PROGRAM, "accept", stage.url) as accepting,
        _connecting(stage, accepting.wait_for("ready")["peer"]) as connecting,
    ):
        told = connecting.wait_for("done")
        times = (float(told[each]) for each in ("allocated", "connected", "again", "cold"))
        return Times(stage.bare(), *times, kind=told["kind"])


def _connecting(stage: Walled, peer: str) -> Program:
    return Program(stage.near, "connect", *_PROGRAM, "connect", stage.url, peer)


class _With:
    """A host whose programs have an environment."""

    def __init__(self, host: Host, environment: dict[str, str]) -> None:
        self._host = host
        self._environment = environment

    def popen(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        return self._host.popen(*command, env=self._environment, **options)


def bare(proxy: str | None) -> float:
    """Seconds that a connection to the relay takes by TCP and TLS, through a proxy if there is one."""
    context = ssl.create_default_context()
    started = time.monotonic()
    with socket.create_connection((proxy or _NAME, _PROXY_PORT if proxy else _TLS), _PATIENCE) as sock:
        if proxy:
            sock.sendall(f"CONNECT {_NAME}:{_TLS} HTTP/1.1\r\nHost: {_NAME}:{_TLS}\r\n\r\n".encode())
            if b" 200 " not in (answer := sock.recv(4096)):
                raise ConnectionError(f"the proxy says {answer!r}")
        with context.wrap_socket(sock, server_hostname=_NAME):
            return time.monotonic() - started


def _relays() -> Sequence[RelayServer]:
    """The relay, with credentials for an hour made of the shared secret."""
    account = time_limited(SECRET, time.time() + _LIFETIME)
    return [RelayServer.parse(_URIS, account.username, account.password)]


async def accept(url: str) -> None:
    """Be connected to, until killed."""
    async with Endpoint.bind(server=url, alpns=[ALPN], relays=_relays()) as endpoint:
        _say("ready", peer=str(endpoint.peer))
        async for connection in endpoint:
            stream = await connection.accept_stream()
            await stream.write(await stream.read())
            stream.finish()


async def connect(url: str, peer: PeerId) -> None:
    """Connect in every way, and tell how long each took."""
    found = asyncio.Event()

    def look(candidate: Candidate) -> bool:
        if candidate.kind is CandidateKind.RELAYED:
            found.set()
        return True

    started = time.monotonic()
    async with Endpoint.bind(relays=_relays(), candidate_filter=look):
        await asyncio.wait_for(found.wait(), _PATIENCE)
        allocated = time.monotonic() - started
    started = time.monotonic()
    async with Endpoint.bind(server=url, relays=_relays()) as endpoint:
        await _used(await endpoint.connect(peer, alpn=ALPN))
        cold = time.monotonic() - started
    found.clear()
    async with Endpoint.bind(server=url, relays=_relays(), candidate_filter=look) as endpoint:
        await asyncio.wait_for(found.wait(), _PATIENCE)
        connection = await endpoint.connect(peer, alpn=ALPN)
        connected, kind = connection.connect_seconds, await _used(connection)
        connection = await endpoint.connect(peer, alpn=ALPN)
        again = connection.connect_seconds
        await _used(connection)
    _say("done", allocated=allocated, cold=cold, connected=connected, again=again, kind=kind)


async def _used(connection: Connection) -> str:
    """Ask and be answered, then close the connection; returns the kind of its path."""
    async with connection:
        stream = await connection.open_stream()
        await stream.write(b"there?")
        stream.finish()
        assert await stream.readexactly(6) == b"there?"
        (carrier,) = (path for path in connection.paths if path.status == "available")
        return carrier.kind.value


def _say(event: str, **told: object) -> None:
    print(json.dumps({"event": event, **told}), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m lab.blocked", description=__doc__)
    parser.parse_args()
    if (why_not := available()) is not None:
        print(why_not, file=sys.stderr)
        return 1
    line = "{:20} {:>11} {:>10} {:>10} {:>10} {:>10}  {}"
    print(line.format("blocked", "TCP and TLS", "allocated", "connected", "again", "cold (ms)", "path"))
    try:
        for wall in Wall:
            times = measure(wall)
            columns = (times.bare, times.allocated, times.connected, times.again, times.cold)
            print(line.format(wall.value, *(f"{1000 * each:.0f}" for each in columns), times.kind), flush=True)
    except (LabError, StoryError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    exit_on_sigterm()
    match sys.argv[1:]:
        case ["bare", *proxies]:
            _say("done", seconds=bare(*proxies or (None,)))
        case ["accept", url]:
            asyncio.run(accept(url))
        case ["connect", url, peer]:
            asyncio.run(connect(url, PeerId.parse(peer)))
        case _:
            sys.exit(main())
