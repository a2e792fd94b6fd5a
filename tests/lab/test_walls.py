"""What a site lets through: nothing but a proxy's address."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lab.ground import available
from lab.network import Lab
from lab.site import Host
from quice.sim.kinds import Nat

UNAVAILABLE = available()
pytestmark = [pytest.mark.lab, pytest.mark.skipif(UNAVAILABLE is not None, reason=str(UNAVAILABLE))]

LISTEN = """
import socket, sys
listener = socket.create_server((sys.argv[1], 80))
print("ready", flush=True)
while True:
    listener.accept()
"""
REACH = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 80), 0.3).close()
except TimeoutError:
    print("silence")
else:
    print("reached")
"""


@contextmanager
def _listening(host: Host) -> Iterator[None]:
    with host.popen(sys.executable, "-c", LISTEN, host.address, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()


def test_a_confined_site_reaches_one_address_by_tcp_and_nothing_else() -> None:
    with Lab() as lab:
        proxy, other = lab.server(), lab.server()
        site = lab.site(Nat.PORT_RESTRICTED)
        host = site.host()
        with _listening(proxy), _listening(other):
            assert host.run(sys.executable, "-c", REACH, other.address) == "reached\n"
            site.confine(proxy.address)
            assert host.run(sys.executable, "-c", REACH, proxy.address) == "reached\n"
            assert host.run(sys.executable, "-c", REACH, other.address) == "silence\n"
