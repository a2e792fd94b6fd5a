"""A NAT never claims to be what it isn't: each kind is measured by a STUN probe."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from lab.nat import CLAIMS, Nat, Verdict
from lab.network import Lab, available

UNAVAILABLE = available()
pytestmark = [pytest.mark.lab, pytest.mark.skipif(UNAVAILABLE is not None, reason=str(UNAVAILABLE))]


@pytest.mark.parametrize("nat", Nat)
def test_a_nat_behaves_as_its_name_says(nat: Nat) -> None:
    with Lab() as lab:
        server = lab.server()
        serve = [sys.executable, "-m", "lab.probe", "serve", server.address, server.second_address]
        process = server.popen(*serve, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "ready"
        host = lab.site(nat).host()
        measured = json.loads(host.run(sys.executable, "-m", "lab.probe", "measure", server.address).stdout)
        process.kill()
        process.communicate()
        assert Verdict(**measured) == CLAIMS[nat]


def test_two_hosts_behind_one_nat_share_its_address_and_reach_each_other() -> None:
    with Lab() as lab:
        site = lab.site(Nat.PORT_RESTRICTED)
        one, two = site.host(), site.host()
        assert one.address != two.address
        serve = [sys.executable, "-m", "lab.probe", "serve", two.address, "127.0.0.1"]
        process = two.popen(*serve, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "ready"
        measured = one.run(sys.executable, "-m", "lab.probe", "mapped", two.address).stdout.strip()
        process.kill()
        process.communicate()
        assert measured == one.address
