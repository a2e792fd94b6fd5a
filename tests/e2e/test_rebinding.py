"""A connection goes on when the NAT before it forgets its mappings."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.ground import available
from lab.network import Lab
from lab.story import Command, serving
from quice.sim.kinds import Nat

UNAVAILABLE = available()
pytestmark = [pytest.mark.lab, pytest.mark.skipif(UNAVAILABLE is not None, reason=str(UNAVAILABLE))]


@pytest.mark.parametrize("new_address", [False, True], ids=["new port", "new address"])
def test_a_connection_survives_that_the_connecting_side_is_mapped_anew(new_address: bool, tmp_path: Path) -> None:
    with Lab() as lab:
        server = lab.server()
        site = lab.site(Nat.PORT_RESTRICTED)
        connecting, answering = site.host(), lab.site(Nat.FULL_CONE).host()
        identity = ("--identity", str(tmp_path / "identity"))
        with (
            serving(server, server.address) as url,
            Command(answering, "ping", "--server", url, *identity) as answer,
            Command(connecting, "ping", answer.wait_for("ticket")["ticket"], "--count", "5") as ping,
        ):
            pongs = []
            for event in ping.events():
                if event["event"] == "pong":
                    pongs.append(event["number"])
                    if event["number"] == 2:
                        site.rebind(new_address=new_address)
            ping.expect_success()
    assert pongs == [1, 2, 3, 4, 5]
