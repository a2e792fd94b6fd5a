"""How fast the two implementations of the checks find the direct path, behind kernel NATs: `python -m lab.checks`.

The same story as `scenarios/checks.py`: two port-restricted NATs, and a VPN as the long way round.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
from typing import Any

from lab.link import Conditions
from lab.network import Lab
from lab.story import StoryError, exit_on_sigterm, serving
from quice import Checks, Connection, Endpoint, PeerId
from quice.sim.kinds import Nat
from quice.wire import Address

ALPN = "checks/1"
NEAR = Conditions(delay=0.025)
LONG_WAY = Conditions(delay=0.075)
_VPN = "10.8.0"
_PATIENCE = 10.0
_GATHERING = 3.0
"""Seconds until an endpoint knows its public address, with time to spare."""


def measure(checks: Checks) -> tuple[float, float]:
    """Seconds from `connect` to the connection, and to the direct path. Raises `StoryError`."""
    with Lab() as lab:
        server = lab.server()
        one, two = (lab.site(Nat.PORT_RESTRICTED, conditions=NEAR).host() for _ in range(2))
        vpn = lab.network("vpn", _VPN)
        one.join(vpn, "tun0", LONG_WAY)
        there = two.join(vpn, "tun0", LONG_WAY)
        program = (sys.executable, "-m", "lab.checks")
        with (
            serving(server, server.address) as url,
            two.popen(*program, "accept", url, checks.value, stdout=subprocess.PIPE) as far,
        ):
            try:
                ready = _read(far)
                # Whoever has signalling needs no address.
                to = {Checks.STUN: (), Checks.QUIC: (there, str(ready["port"]))}[checks]
                command = (*program, "connect", url, checks.value, ready["peer"], *to)
                with one.popen(*command, stdout=subprocess.PIPE) as near:
                    times = _read(near)
            finally:
                far.kill()
    return times["connected"], times["direct"]


def _read(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise StoryError("a peer ended without a word")
    read: dict[str, Any] = json.loads(line)
    return read


async def accept(url: str, checks: Checks) -> None:
    """Be connected to, until killed."""
    async with Endpoint.bind(server=url, alpns=[ALPN], checks=checks) as endpoint:
        await asyncio.sleep(_GATHERING)
        print(json.dumps({"peer": str(endpoint.peer), "port": endpoint.port}), flush=True)
        async for connection in endpoint:
            await connection.wait_closed()


async def connect(url: str, checks: Checks, peer: PeerId, to: Address | None) -> None:
    """Connect, and tell how long everything took."""
    loop = asyncio.get_running_loop()
    async with Endpoint.bind(server=url, checks=checks) as endpoint:
        await asyncio.sleep(_GATHERING)
        started = loop.time()
        connection = await endpoint.connect(peer, alpn=ALPN, address=to)
        connected = loop.time() - started
        await asyncio.wait_for(_direct(connection), _PATIENCE)
        print(json.dumps({"connected": connected, "direct": loop.time() - started}), flush=True)


async def _direct(connection: Connection) -> None:
    while all(path.remote.host.startswith(_VPN) for path in connection.paths if path.status == "available"):
        await asyncio.sleep(0.001)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m lab.checks", description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    for checks in Checks:
        times = [measure(checks) for _ in range(options.runs)]
        connected, direct = (1000 * statistics.median(each) for each in zip(*times, strict=True))
        worst = 1000 * max(direct for _, direct in times)
        print(f"{checks.value}: connected after {connected:.0f} ms, direct after {direct:.0f} ms (worst {worst:.0f})")
    return 0


if __name__ == "__main__":
    exit_on_sigterm()
    match sys.argv[1:]:
        case ["accept", url, checks]:
            asyncio.run(accept(url, Checks(checks)))
        case ["connect", url, checks, peer, *to]:
            address = Address(to[0], int(to[1])) if to else None
            asyncio.run(connect(url, Checks(checks), PeerId.parse(peer), address))
        case _:
            sys.exit(main())
