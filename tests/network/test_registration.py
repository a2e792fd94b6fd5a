"""A peer in the lab changes its address, and is registered again before anybody could tell it to."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from lab.ground import available
from lab.link import Conditions
from lab.network import Lab
from lab.story import serving
from quice.sim.kinds import Nat

UNAVAILABLE = available()
pytestmark = [pytest.mark.lab, pytest.mark.skipif(UNAVAILABLE is not None, reason=str(UNAVAILABLE))]

DELAY = 0.025
# Prints when it is registered, each time, on the clock that all processes share.
PEER = """
import asyncio, sys, time
from quice import Endpoint

async def main():
    async with Endpoint.bind(server=sys.argv[1]) as endpoint:
        client, known = endpoint._surroundings.rendezvous, None
        while True:
            while client.registrar.registration in (known, None):
                await asyncio.sleep(0.001)
            known = client.registrar.registration
            print(time.monotonic(), flush=True)

asyncio.run(main())
"""


def test_a_peer_whose_address_changes_is_registered_again_within_a_few_round_trips() -> None:
    with Lab() as lab:
        server = lab.server()
        host = lab.site(Nat.PORT_RESTRICTED, conditions=Conditions(delay=DELAY)).host()
        prefix = host.address.rpartition(".")[0]
        with serving(server, server.address) as url:
            peer = host.popen(sys.executable, "-c", PEER, url, stdout=subprocess.PIPE)
            assert peer.stdout is not None
            try:
                peer.stdout.readline()
                moves = (
                    f"addr del {host.address}/24 dev eth0",
                    f"addr add {prefix}.200/24 dev eth0",
                    f"route replace default via {prefix}.1",
                )
                host.run("sh", "-c", " && ".join(f"ip {move}" for move in moves))
                moved = time.monotonic()
                seconds = float(peer.stdout.readline()) - moved
                print(f"registered again after {seconds * 1000:.0f} ms")
                # Three round trips, the notice, and what a busy machine adds.
                assert 2 * DELAY < seconds < 6 * DELAY + 0.35
            finally:
                peer.kill()
                peer.wait()
                peer.stdout.close()
