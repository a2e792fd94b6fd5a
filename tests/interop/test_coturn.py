"""STUN between us and coturn, in the lab: its clients with our servers, our clients with its server."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from interop.play import Side, ground, meet
from interop.programs import QUICE
from lab import probe
from lab.ground import ENVIRONMENT, available
from lab.nat import CLAIMS, Behaviour, Nat
from lab.network import Lab
from lab.site import Host

UNAVAILABLE = available() or next(
    (
        "coturn: install the package coturn"
        for tool in ("turnserver", "turnutils_stunclient", "turnutils_natdiscovery")
        if shutil.which(tool, path=ENVIRONMENT["PATH"]) is None
    ),
    None,
)
pytestmark = [pytest.mark.lab, pytest.mark.skipif(UNAVAILABLE is not None, reason=str(UNAVAILABLE))]

# What coturn calls a behaviour, in its sentence on a NAT.
IN_WORDS = {
    Behaviour.ENDPOINT_INDEPENDENT: "Endpoint Independent",
    Behaviour.ADDRESS_DEPENDENT: "Address Dependent",
    Behaviour.ADDRESS_AND_PORT_DEPENDENT: "Address and Port Dependent",
}


@contextmanager
def coturn(host: Host, folder: Path) -> Iterator[None]:
    """Its STUN server, at both addresses of a host, on the two ports that RFC 5780 wants."""
    only_stun = ("--stun-only", "--no-tcp", "--no-tls", "--no-dtls", "--no-cli")
    addresses = ("--listening-ip", host.address, "--listening-ip", host.second_address)
    files = ("--userdb", str(folder / "users"), "--pidfile", str(folder / "pid"), "--log-file", "stdout")
    command = ("turnserver", "-n", *only_stun, *addresses, *files)
    process = host.popen(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            # It says so once its sockets are open.
            if "Total General servers" in line:
                break
        else:
            pytest.fail(f"turnserver ended: {''.join(said)}")
        yield
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("nat", [Nat.PUBLIC, Nat.SYMMETRIC], ids=lambda nat: nat.value)
def test_coturns_client_learns_its_address_from_our_server(nat: Nat) -> None:
    with ground(nat, Nat.PUBLIC) as (stun, host, _):
        address, _, port = stun.rpartition(":")
        said = host.run("turnutils_stunclient", "-p", port, address)
    (seen,) = set(re.findall(r"UDP reflexive addr: (203\.0\.113\.\d+):\d+", said))
    assert (seen == host.address) == (nat is Nat.PUBLIC)


def test_our_agents_learn_their_addresses_from_coturn(tmp_path: Path) -> None:
    with Lab() as lab:
        server = lab.server()
        one, two = (lab.site(Nat.PORT_RESTRICTED).host() for _ in range(2))
        with coturn(server, tmp_path):
            meeting = meet(
                Side(QUICE, one, "controlling"), Side(QUICE, two, "controlled"), f"{server.address}:{probe.PORTS[0]}"
            )
    assert all(" 203.0.113." in each["remote"] for each in meeting.selected)


@pytest.mark.parametrize("nat", Nat)
def test_rfc5780_with_coturns_server_we_measure_every_nat_as_it_is(nat: Nat, tmp_path: Path) -> None:
    with Lab() as lab:
        server = lab.server()
        with coturn(server, tmp_path):
            assert probe.verdict(lab.site(nat).host(), server) == CLAIMS[nat]


@pytest.mark.slow
@pytest.mark.parametrize("nat", Nat)
def test_rfc5780_with_our_server_coturn_measures_every_nat_as_it_is(nat: Nat) -> None:
    with Lab() as lab:
        server = lab.server()
        with probe.serving(server, server.address, server.second_address):
            said = lab.site(nat).host().run("turnutils_natdiscovery", "-m", "-f", server.address)
    assert f"NAT with {IN_WORDS[CLAIMS[nat].mapping]} Mapping!" in said
    assert f"NAT with {IN_WORDS[CLAIMS[nat].filtering]} Filtering!" in said
