"""Our ICE agent finds a pair with those of aioice and pion, behind kernel NATs and in either role."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from interop.play import Meeting, Side, ground, meet, staged
from interop.programs import AIOICE, QUICE, QUICE_LITE, Program, pion, pion_unavailable
from lab.ground import available
from lab.link import Conditions
from lab.network import Lab
from lab.site import Host
from quice.sim.kinds import Nat

UNAVAILABLE = available()
pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(UNAVAILABLE is not None, reason=str(UNAVAILABLE)),
    # The first test with pion builds its program, with all that it stands on.
    pytest.mark.timeout(300),
]

NATS = [
    (Nat.PUBLIC, Nat.PUBLIC),
    (Nat.PORT_RESTRICTED, Nat.PORT_RESTRICTED),
    (Nat.SYMMETRIC, Nat.ADDRESS_RESTRICTED),
    (Nat.ADDRESS_RESTRICTED, Nat.SYMMETRIC),
]
NAT_IDS = ["-".join(nat.value for nat in nats) for nats in NATS]
ROLES = [("controlling", "controlled"), ("controlled", "controlling")]
ROLE_IDS = ["we control", "they control"]
PROGRAMS: dict[str, Callable[[], Program]] = {
    "quice": lambda: QUICE,
    "aioice": lambda: AIOICE,
    "pion": pion,
    "pion lite": lambda: pion(lite=True),
}


def program(name: str) -> Program:
    if name.startswith("pion") and (why_not := pion_unavailable()) is not None:
        pytest.skip(why_not)
    return PROGRAMS[name]()


@pytest.fixture(params=["aioice", "pion"])
def peer(request: pytest.FixtureRequest) -> Program:
    return program(request.param)


def play(
    peer: Program, roles: tuple[str, str], first: Nat, second: Nat, *, ipv6: bool = False, trickle: bool = True
) -> tuple[Meeting, Host]:
    """We meet this peer, which is on the host that is returned."""
    with ground(first, second, ipv6=ipv6) as (stun, here, there):
        return meet(Side(QUICE, here, roles[0]), Side(peer, there, roles[1]), stun, trickle=trickle), there


def assert_agreed(meeting: Meeting) -> None:
    """What each sent has arrived; what the peer sent came over our pair, so that it has selected the same."""
    ours, theirs = meeting.selected
    assert meeting.received[0]["over_pair"]
    # Pion does not tell in which role it is.
    assert {ours["role"], theirs.get("role")} in ({"controlling", "controlled"}, {ours["role"], None})


@pytest.mark.parametrize(("first", "second"), NATS, ids=NAT_IDS)
@pytest.mark.parametrize("roles", ROLES, ids=ROLE_IDS)
def test_both_select_one_pair_and_speak_over_it(peer: Program, roles: tuple[str, str], first: Nat, second: Nat) -> None:
    meeting, _ = play(peer, roles, first, second)
    assert_agreed(meeting)
    assert meeting.selected[0]["role"] == roles[0]
    # Whatever the NAT, it is a public address at which we have found the peer.
    assert " 203.0.113." in meeting.selected[0]["remote"]


@pytest.mark.parametrize("roles", ROLES, ids=ROLE_IDS)
def test_two_symmetric_sites_meet_by_ipv6_around_their_nats(peer: Program, roles: tuple[str, str]) -> None:
    meeting, there = play(peer, roles, Nat.SYMMETRIC, Nat.SYMMETRIC, ipv6=True)
    assert_agreed(meeting)
    assert f" [{there.ipv6}]:" in meeting.selected[0]["remote"]


@pytest.mark.parametrize("roles", ROLES, ids=ROLE_IDS)
def test_of_two_families_that_both_work_they_agree_on_one(peer: Program, roles: tuple[str, str]) -> None:
    # With a delay there is time to check both; aioice, when it controls, nominates both.
    with ground(Nat.PUBLIC, Nat.PUBLIC, ipv6=True, conditions=Conditions(delay=0.025)) as (stun, here, there):
        assert_agreed(meet(Side(QUICE, here, roles[0]), Side(peer, there, roles[1]), stun))


@pytest.mark.parametrize("role", ["controlling", "controlled"])
def test_rfc8445_7_3_1_1_two_that_begin_in_one_role_end_in_both(peer: Program, role: str) -> None:
    meeting, _ = play(peer, (role, role), Nat.PORT_RESTRICTED, Nat.PORT_RESTRICTED)
    assert_agreed(meeting)


@pytest.mark.parametrize("roles", ROLES, ids=ROLE_IDS)
def test_candidates_may_come_all_at_once(peer: Program, roles: tuple[str, str]) -> None:
    meeting, _ = play(peer, roles, Nat.PORT_RESTRICTED, Nat.PORT_RESTRICTED, trickle=False)
    assert_agreed(meeting)
    assert meeting.gathered == (True, True)


@pytest.mark.parametrize("roles", ROLES, ids=ROLE_IDS)
def test_rfc8838_with_pion_a_pair_is_selected_while_both_still_gather(roles: tuple[str, str]) -> None:
    peer = program("pion")
    with Lab() as lab:
        # Nobody answers at this address, so that gathering takes seconds.
        silent = f"{lab.server().address}:3478"
        here, there = (lab.site(Nat.PUBLIC).host() for _ in range(2))
        meeting = meet(Side(QUICE, here, roles[0]), Side(peer, there, roles[1]), silent)
    assert_agreed(meeting)
    assert meeting.gathered == (False, False)


@pytest.mark.parametrize("ours", [Nat.PUBLIC, Nat.PORT_RESTRICTED, Nat.SYMMETRIC], ids=lambda nat: nat.value)
def test_a_lite_pion_on_a_public_host_is_checked_by_us_alone(ours: Nat) -> None:
    meeting, there = play(program("pion lite"), ("controlling", "controlled"), ours, Nat.PUBLIC)
    assert_agreed(meeting)
    assert meeting.selected[0]["remote"].startswith(f"host {there.address}:")


@pytest.mark.parametrize("theirs", [Nat.PUBLIC, Nat.PORT_RESTRICTED, Nat.SYMMETRIC], ids=lambda nat: nat.value)
def test_as_a_lite_agent_on_a_public_host_we_are_checked_by_the_peer_alone(peer: Program, theirs: Nat) -> None:
    with ground(Nat.PUBLIC, theirs) as (stun, here, there):
        meeting = meet(Side(QUICE_LITE, here, "controlled"), Side(peer, there, "controlling"), stun)
    assert_agreed(meeting)
    assert " 203.0.113." in meeting.selected[0]["remote"]


@pytest.mark.parametrize("roles", ROLES, ids=ROLE_IDS)
def test_two_lite_agents_take_the_pair_that_needs_no_check(roles: tuple[str, str]) -> None:
    peer = program("pion lite")
    with ground(Nat.PUBLIC, Nat.PUBLIC) as (stun, here, there):
        assert_agreed(meet(Side(QUICE_LITE, here, roles[0]), Side(peer, there, roles[1]), stun))


@pytest.mark.parametrize("restarting", [0, 1], ids=["we restart", "they restart"])
@pytest.mark.parametrize("roles", ROLES, ids=ROLE_IDS)
def test_rfc8445_9_after_a_restart_there_is_another_pair(roles: tuple[str, str], restarting: int) -> None:
    peer = program("pion")
    with (
        ground(Nat.PORT_RESTRICTED, Nat.PORT_RESTRICTED) as (stun, here, there),
        staged(Side(QUICE, here, roles[0]), Side(peer, there, roles[1]), stun) as stage,
    ):
        before, _ = stage.start()
        stage.speak()
        after, _ = stage.restart(restarting)
        # Pion gathers anew, on other ports.
        assert after.line["remote"] != before.line["remote"]
        assert stage.speak()[0]["over_pair"]


@pytest.mark.slow
def test_rfc7675_our_requests_for_consent_keep_a_lite_pion_from_taking_us_for_gone() -> None:
    program("pion lite")
    # Requests come every 6 s at the latest (§5.1); without them, nothing would come.
    peer = pion(lite=True, silence=9)
    with (
        ground(Nat.PORT_RESTRICTED, Nat.PUBLIC) as (stun, here, there),
        staged(Side(QUICE, here, "controlling"), Side(peer, there, "controlled"), stun) as stage,
    ):
        stage.start()
        stage.listen(13)
        assert not stage.said("disconnected")[1]
        assert stage.speak()[0]["over_pair"]
