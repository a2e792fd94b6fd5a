"""Two whole agents on a link, behind NATs, in bad weather, under virtual time."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quice.ice import CandidateKind, Failed, Nominating, PairValid, Role, RoleChanged, Selected
from quice.ice.agent import PATIENCE
from quice.ice.checklist import CheckListState
from quice.ice.pacing import DEFAULT_TA, MIN_RTO
from tests.ice.network import (
    Filter,
    Host,
    Nat,
    Network,
    Packet,
    Weather,
    address_restricted,
    assert_agreed,
    full_cone,
    port_restricted,
)

LATENCY = 0.05
RTT = 2 * LATENCY


@dataclass(frozen=True)
class Kind:
    """A kind of NAT, or none."""

    name: str
    lets_in: Filter | None
    symmetric: bool = False

    def at(self, host: str) -> Nat | None:
        return None if self.lets_in is None else Nat(host, self.lets_in, symmetric=self.symmetric)


PUBLIC = Kind("public", None)
FULL_CONE = Kind("full_cone", full_cone)
ADDRESS_RESTRICTED = Kind("address_restricted", address_restricted)
PORT_RESTRICTED = Kind("port_restricted", port_restricted)
SYMMETRIC = Kind("symmetric", port_restricted, symmetric=True)
KINDS = [PUBLIC, FULL_CONE, ADDRESS_RESTRICTED, PORT_RESTRICTED, SYMMETRIC]
# What hole punching can't serve: neither side can know the port that the other will come from.
HOPELESS = [{"symmetric"}, {"symmetric", "port_restricted"}]
PAIRS = [(one, two) for one in KINDS for two in KINDS]
SERVED = [pair for pair in PAIRS if {kind.name for kind in pair} not in HOPELESS]
UNSERVED = [pair for pair in PAIRS if pair not in SERVED]


def sites(
    one: Kind = PUBLIC, two: Kind = PUBLIC, *, seed: int = 1, renomination: bool = False, **options: Any
) -> tuple[Network, Host, Host]:
    """A controlling and a controlled agent, each at its own site."""
    network = Network(LATENCY, seed, renomination=renomination)
    here = network.host(Role.CONTROLLING, "10.1.0.1", one.at("198.51.100.1"), **options)
    there = network.host(Role.CONTROLLED, "10.2.0.1", two.at("203.0.113.1"), **options)
    return network, here, there


def test_two_agents_in_the_open_select_the_one_pair() -> None:
    network, one, two = sites()
    network.introduce(one, two)
    network.drive()
    assert_agreed(one, two)
    assert [type(event) for _, event in one.events] == [PairValid, Nominating, Selected]
    assert [type(event) for _, event in two.events] == [PairValid, Selected]
    assert one.time_of(Nominating) == pytest.approx(RTT)
    assert two.time_of(Selected) == pytest.approx(RTT + LATENCY)
    assert one.time_of(Selected) == pytest.approx(2 * RTT)


@pytest.mark.parametrize(("one", "two"), SERVED, ids=lambda kind: kind.name)
def test_every_pair_of_nats_that_hole_punching_can_serve_agrees(one: Kind, two: Kind) -> None:
    network, here, there = sites(one, two)
    network.introduce(here, there)
    network.drive(limit=5.0)
    assert_agreed(here, there)
    assert here.time_of(Nominating) < 0.5
    assert there.time_of(Selected) < 0.6


@pytest.mark.parametrize(("one", "two"), UNSERVED, ids=lambda kind: kind.name)
def test_a_pair_of_nats_that_needs_a_relay_fails_on_both_sides_in_bounded_time(one: Kind, two: Kind) -> None:
    network, here, there = sites(one, two)
    network.introduce(here, there)
    network.drive(limit=PATIENCE)
    for host in (here, there):
        assert host.agent.report.state is CheckListState.FAILED
        ((time, event),) = host.events
        assert isinstance(event, Failed)
        assert event.reason == "none of 2 candidate pairs let a check through and its answer back"
        assert time == pytest.approx(PATIENCE)


@pytest.mark.parametrize("first", list(Role))
@pytest.mark.parametrize("delay", [0.01, 0.2, 2.0])
def test_two_port_restricted_nats_open_one_round_trip_after_the_later_side_begins(first: Role, delay: float) -> None:
    network, controlling, controlled = sites(PORT_RESTRICTED, PORT_RESTRICTED)
    early, late = (controlling, controlled) if first is Role.CONTROLLING else (controlled, controlling)
    network.tell(early, late)
    network.advance(delay)
    network.tell(late, early)
    network.drive()
    assert_agreed(controlling, controlled)
    # The later side's second check, the one to the reflexive address, opens its NAT: it passes the early side's,
    # which is open already, and triggers there the check that is answered.
    opened = delay + DEFAULT_TA
    assert late.time_of(PairValid) <= opened + RTT + 0.001
    assert early.time_of(PairValid) == pytest.approx(opened + LATENCY + RTT, abs=2 * LATENCY + 0.001)
    # The pair of the private addresses is better, and may be on its way: nomination waits for it a moment.
    assert controlling.time_of(Nominating) <= opened + LATENCY + RTT + 0.05 + 0.001


def test_two_port_restricted_nats_are_open_after_one_round_trip_when_both_begin_at_once() -> None:
    network, one, two = sites(PORT_RESTRICTED, PORT_RESTRICTED)
    network.introduce(one, two)
    network.drive()
    for host in (one, two):
        assert host.time_of(PairValid) == pytest.approx(DEFAULT_TA + RTT)
    assert one.time_of(Nominating) == pytest.approx(DEFAULT_TA + RTT + 0.05)
    assert two.time_of(Selected) == pytest.approx(DEFAULT_TA + RTT + 0.05 + LATENCY)


@pytest.mark.parametrize("controlling", [SYMMETRIC, ADDRESS_RESTRICTED], ids=lambda kind: kind.name)
def test_rfc8445_7_3_1_3_the_port_of_a_symmetric_nat_is_revealed_to_a_cone(controlling: Kind) -> None:
    controlled = ADDRESS_RESTRICTED if controlling is SYMMETRIC else SYMMETRIC
    network, here, there = sites(controlling, controlled)
    network.introduce(here, there)
    network.drive()
    assert_agreed(here, there)
    symmetric, cone = (here, there) if controlling is SYMMETRIC else (there, here)
    assert cone.selected.remote.kind is CandidateKind.PEER_REFLEXIVE
    assert symmetric.selected.remote.kind is CandidateKind.SERVER_REFLEXIVE
    revealed = [each for each in symmetric.agent.report.local_candidates if each.kind is CandidateKind.PEER_REFLEXIVE]
    assert cone.selected.remote.address in [each.address for each in revealed]


def test_checks_before_the_credentials_save_the_later_side_its_first_check() -> None:
    network, one, two = sites()
    network.tell(one, two)
    network.advance(0.3)
    assert two.sent
    assert not two.checks()
    network.tell(two, one)
    network.drive()
    assert_agreed(one, two)
    assert two.time_of(PairValid) == pytest.approx(0.3 + RTT)


def test_a_peer_whose_candidates_come_one_by_one_is_found_by_the_one_that_works() -> None:
    network, one, two = sites(PORT_RESTRICTED, PORT_RESTRICTED)
    for host in (one, two):
        other = two if host is one else one
        credentials = other.agent.credentials
        host.agent.set_remote_credentials(credentials.ufrag, credentials.pwd, network.now)
    for index in range(2):
        network.advance(0.4)
        one.agent.add_remote_candidate(two.candidates[index], network.now)
        two.agent.add_remote_candidate(one.candidates[index], network.now)
    network.drive()
    assert_agreed(one, two)
    assert one.time_of(PairValid) == pytest.approx(0.8 + RTT)


def test_of_several_interfaces_the_best_pair_is_selected() -> None:
    network = Network(LATENCY)
    one = network.host(Role.CONTROLLING, ("2001:db8::1", "192.0.2.10", "192.0.2.11"))
    two = network.host(Role.CONTROLLED, ("2001:db8::2", "192.0.2.20", "192.0.2.21"))
    network.introduce(one, two)
    network.drive()
    assert_agreed(one, two)
    assert one.selected.base.host == "2001:db8::1"
    assert one.selected.remote.address.host == "2001:db8::2"


def test_rfc8421_a_family_that_goes_nowhere_costs_no_more_than_the_moment_of_choice() -> None:
    network = Network(LATENCY)
    network.weather = lambda packet: () if ":" in packet.source.host else (0.0,)
    one = network.host(Role.CONTROLLING, ("2001:db8::1", "192.0.2.10"))
    two = network.host(Role.CONTROLLED, ("2001:db8::2", "192.0.2.20"))
    network.introduce(one, two)
    network.drive()
    assert_agreed(one, two)
    assert one.selected.base.host == "192.0.2.10"
    assert one.time_of(Nominating) <= DEFAULT_TA + RTT + 0.05 + 0.001


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("seed", range(4))
def test_rfc8445_7_3_1_1_two_agents_of_one_role_settle_who_controls(role: Role, seed: int) -> None:
    network = Network(LATENCY, seed)
    one, two = network.host(role, "192.0.2.1"), network.host(role, "192.0.2.2")
    network.introduce(one, two)
    network.drive()
    assert_agreed(one, two)
    assert {one.agent.role, two.agent.role} == set(Role)
    assert len(one.said(RoleChanged)) + len(two.said(RoleChanged)) == 1
    assert len(one.said(Nominating)) + len(two.said(Nominating)) == 1


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("first", [0, 1])
def test_rfc8445_7_3_1_1_a_conflict_is_settled_whoever_begins(role: Role, first: int) -> None:
    network = Network(LATENCY, seed=3)
    hosts = [network.host(role, "192.0.2.1"), network.host(role, "192.0.2.2")]
    early, late = hosts[first], hosts[1 - first]
    network.tell(early, late)
    network.advance(0.5)
    network.tell(late, early)
    network.drive()
    assert_agreed(early, late)
    assert {early.agent.role, late.agent.role} == set(Role)


def test_a_check_that_is_lost_is_repeated() -> None:
    network, one, two = sites()
    network.weather = lambda packet: () if packet.number < 2 else (0.0,)
    network.introduce(one, two)
    network.drive()
    assert_agreed(one, two)
    assert one.time_of(PairValid) == pytest.approx(MIN_RTO + RTT)


def test_a_lost_answer_to_the_nomination_is_given_again() -> None:
    network, one, two = sites()
    answers: list[Packet] = []

    def lose_first_answer(packet: Packet) -> tuple[float, ...]:
        nominations = {each.message.transaction_id for _, each in network.packets if each.nominates}
        if not packet.nominates and packet.message.transaction_id in nominations:
            answers.append(packet)
            return () if len(answers) == 1 else (0.0,)
        return (0.0,)

    network.weather = lose_first_answer
    network.introduce(one, two)
    network.drive()
    assert_agreed(one, two)
    assert len(answers) == 2
    assert one.time_of(Selected) == pytest.approx(RTT + MIN_RTO + RTT)


def test_every_packet_twice_makes_no_difference() -> None:
    network, one, two = sites(PORT_RESTRICTED, PORT_RESTRICTED)
    network.weather = lambda packet: (0.0, 0.03)
    network.introduce(one, two)
    network.drive()
    assert_agreed(one, two)
    assert [type(event) for _, event in two.events] == [PairValid, Selected]


SERVED_INDEX = st.integers(0, len(SERVED) - 1)
DELAYS = st.lists(st.sampled_from([0.0, 0.0, 0.003, 0.12, 0.7]), max_size=2).map(tuple)


@settings(deadline=None)
@given(which=SERVED_INDEX, seed=st.integers(0, 1000), fates=st.lists(DELAYS, max_size=40), renomination=st.booleans())
def test_any_weather_for_forty_packets_leaves_both_with_the_same_pair(
    which: int, seed: int, fates: list[tuple[float, ...]], renomination: bool
) -> None:
    # §14.3 allows seven checks of a pair in 40 s, no more.
    network, one, two = sites(*SERVED[which], seed=seed, renomination=renomination, patience=100.0)
    network.weather = lambda packet: fates[packet.number] if packet.number < len(fates) else (0.0,)
    network.introduce(one, two)
    network.drive()
    assert_agreed(one, two)
    assert len(one.said(Selected)) == len(two.said(Selected)) == 1


def lossy(loss: float, seed: int) -> Weather:
    """Weather that loses this share of the packets."""
    dice = random.Random(seed)
    return lambda packet: () if dice.random() < loss else (0.0,)


@pytest.mark.parametrize("loss", [0.05, 0.2])
def test_random_loss_still_ends_in_one_pair(loss: float) -> None:
    for seed in range(40):
        network, one, two = sites(PORT_RESTRICTED, PORT_RESTRICTED, seed=seed)
        network.weather = lossy(loss, seed)
        network.introduce(one, two)
        network.drive()
        assert_agreed(one, two)


def test_a_peer_that_is_gone_is_given_up_with_the_reason() -> None:
    network, one, two = sites()
    network.weather = lambda packet: ()
    network.introduce(one, two)
    network.drive(limit=PATIENCE)
    for host in (one, two):
        (failed,) = host.said(Failed)
        assert failed.reason == "none of 1 candidate pairs let a check through and its answer back"
    assert [time for time, _, _ in one.checks()] == [0.0, 0.5, 1.5, 3.5, 7.5]


def test_a_link_that_dies_before_the_nomination_arrives_ends_in_failure_on_both_sides() -> None:
    network, one, two = sites()
    network.weather = lambda packet: () if packet.nominates else (0.0,)
    network.introduce(one, two)
    network.drive(limit=2 * PATIENCE)
    assert one.agent.report.state is CheckListState.FAILED
    assert two.agent.report.state is CheckListState.FAILED
    assert two.said(Failed)[0].reason.endswith("never chose one")


def test_closing_in_the_middle_sends_nothing_more() -> None:
    network, one, two = sites(PORT_RESTRICTED, PORT_RESTRICTED)
    network.introduce(one, two)
    network.advance(0.08)
    one.agent.close()
    sent, said = len(one.sent), len(one.events)
    network.drive(limit=2 * PATIENCE)
    assert (len(one.sent), len(one.events)) == (sent, said)
    assert two.agent.report.state is CheckListState.FAILED


def transcript(seed: int) -> list[tuple[float, bytes]]:
    network, one, two = sites(PORT_RESTRICTED, SYMMETRIC, seed=seed)
    dice = random.Random(seed)
    network.weather = lambda packet: () if dice.random() < 0.2 else (dice.random() / 10,)
    network.introduce(one, two)
    network.drive()
    return [(time, packet.data) for time, packet in network.packets]


def test_the_same_seed_gives_the_same_bytes_at_the_same_times() -> None:
    assert transcript(5) == transcript(5)
    assert transcript(5) != transcript(6)


def test_no_agent_sends_checks_faster_than_it_may() -> None:
    network = Network(LATENCY)
    hosts = [f"192.0.2.{n}" for n in range(1, 11)]
    one = network.host(Role.CONTROLLING, tuple(hosts[:5]), ta=0.02)
    two = network.host(Role.CONTROLLED, tuple(hosts[5:]), ta=0.02)
    network.weather = lossy(0.7, seed=7)
    network.introduce(one, two)
    network.drive()
    for host in (one, two):
        checks = [time for time, message, _ in host.checks()]
        nominations = sum(packet.nominates for _, packet in network.packets)
        close = sum(after - before < 0.0199 for before, after in itertools.pairwise(checks))
        # A nomination does not wait for its turn; what follows it does.
        assert close <= nominations
