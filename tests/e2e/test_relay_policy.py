"""Who asks for it stays hidden behind the relay: nothing at the peer's side has an address of theirs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.capture import capturing, frames, mentions
from lab.ground import available
from lab.network import Lab
from lab.servers import rendezvous
from lab.story import Program
from quice.sim.kinds import Nat

UNAVAILABLE = available()
pytestmark = [pytest.mark.lab, pytest.mark.skipif(UNAVAILABLE is not None, reason=str(UNAVAILABLE))]

STREAMING = (sys.executable, "-m", "lab.streaming")
RATE = 4_000_000


@dataclass(frozen=True)
class Seen:
    """At the peer's side: how often each address of the hidden one is seen, and how often the relay's."""

    private: int
    public: int
    ipv6: int
    relay: int
    kind: str


def _connect(tmp_path: Path, one: str, *policy: str) -> Seen:
    """Have two connect, `one` of whom ("connecting" or "accepting") has a policy, and look at the other's packets, and
    at what it is told through the server.
    """
    file, told = tmp_path / "frames", tmp_path / "told"
    with Lab() as lab:
        server = lab.server(ipv6=True)
        sites = [lab.site(Nat.FULL_CONE, ipv6=True) for _ in range(2)]
        hosts = [site.host() for site in sites]
        hidden = ["connecting", "accepting"].index(one)
        options = [policy if one == role else ("--told", str(told)) for role in ("connecting", "accepting")]
        url = f"ws://{server.address}:4780"
        amounts = ("--size", "0", "--rate", str(RATE))
        with (
            rendezvous(server, "--port", "4780"),
            capturing(hosts[1 - hidden], file),
            Program(hosts[1], "accepting", *STREAMING, "accept", url, *amounts, *options[1]) as accepting,
        ):
            peer = accepting.wait_for("ready")["peer"]
            with Program(hosts[0], "connecting", *STREAMING, "connect", url, "--peer", peer, *options[0]) as connecting:
                kind = connecting.wait_for("path")["kind"]
                accepting.tell("finish")
                received = connecting.wait_for("done")
                connecting.expect_success()
            assert accepting.wait_for("done")["digest"] == received["digest"]
        site, host = sites[hidden], hosts[hidden]
        assert host.ipv6 is not None
        assert told.stat().st_size > 0
        private, public, ipv6, relay = (
            mentions(frames(file), address) + told.read_bytes().count(address.encode())
            for address in (host.address, site.address, host.ipv6, server.address)
        )
        return Seen(private, public, ipv6, relay, kind)


@pytest.mark.parametrize("one", ["connecting", "accepting"])
def test_with_the_policy_relay_nothing_at_the_peers_side_has_an_address_but_the_relays(
    one: str, tmp_path: Path
) -> None:
    """Its packets are all there, and what the hidden one says through the server, unsealed."""
    seen = _connect(tmp_path, one, "--policy", "relay")
    assert (seen.private, seen.public, seen.ipv6) == (0, 0, 0)
    assert seen.relay > 0
    assert seen.kind == "relay"


@pytest.mark.parametrize("one", ["connecting", "accepting"])
def test_with_the_policy_auto_they_are_seen(one: str, tmp_path: Path) -> None:
    """Else the test above would pass for want of looking."""
    seen = _connect(tmp_path, one)
    assert seen.private > 0
    assert seen.public > 0
    assert seen.ipv6 > 0
