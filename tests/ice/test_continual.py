"""After the selection: later candidates, better pairs, lost ones (RFC 8445 §8, draft-thatcher-ice-renomination-01)."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from quice.ice import Candidate, CandidateKind, CandidatePair, Failed, Lost, Nominating, PairState, Role, Selected
from quice.ice.agent import PATIENCE
from quice.ice.candidate import MAX_LOCAL_PREFERENCE, foundation, priority
from quice.ice.checklist import CheckListState
from quice.ice.consent import FALLBACK_LIFETIME
from quice.ice.controlling import NOMINATION_LIMIT
from quice.ice.preference import RTT_HOLD, SETTLE
from quice.stun.attributes import Nomination
from quice.stun.message import Kind
from quice.wire import Address
from tests.ice.network import Host, Network, assert_agreed, host_candidate
from tests.ice.scripted import BASE, Scripted, Sent, remote

LATENCY = 0.05
RELAY = Address("192.0.2.200", 49152)


def relayed(base: Address = RELAY) -> Candidate:
    """A relayed candidate of ours."""
    return Candidate(
        kind=CandidateKind.RELAYED,
        address=base,
        priority=priority(CandidateKind.RELAYED, MAX_LOCAL_PREFERENCE),
        foundation=foundation(CandidateKind.RELAYED, base.host, "192.0.2.199"),
        related_address=BASE,
        base=base,
    )


def respond(peer: Scripted, check: Sent) -> None:
    """The peer answers over the pair that the check went out on."""
    assert check.transmit.source is not None
    assert peer.answer(check, destination=check.transmit.source, mapped=check.transmit.source)


def play(
    peer: Scripted, seconds: float, *, rtt: dict[Address, float] | None = None, deaf: Collection[Address] = ()
) -> None:
    """Let time pass; the peer answers each request after its address's round trip, or never where it is deaf."""
    end = peer.now + seconds
    pending: list[tuple[float, Sent]] = []
    while True:
        due = peer.agent.timeout()
        times = [time for time, _ in pending] + ([due] if due is not None else [])
        if not times or min(times) > end:
            break
        peer.now = max(peer.now, min(times))
        for each in [each for each in pending if each[0] <= peer.now]:
            pending.remove(each)
            respond(peer, each[1])
        peer.agent.handle_timeout(peer.now)
        pending += [
            (peer.now + (rtt or {}).get(sent.to, 0.0), sent)
            for sent in peer.sent()
            if sent.message.kind is Kind.REQUEST and sent.to not in deaf and sent.transmit.source not in deaf
        ]
    peer.now = end


def selected(peer: Scripted) -> CandidatePair:
    assert peer.agent.selected is not None
    return peer.agent.selected


def connected(*, remotes: int = 1, role: Role = Role.CONTROLLING, renomination: bool = True) -> Scripted:
    """An agent that has selected the pair with the peer's first candidate."""
    peer = Scripted(role, remotes=1, renomination=renomination)
    peer.answer(peer.first_check())
    if role is Role.CONTROLLING:
        respond(peer, peer.first_check())
    else:
        peer.check(remote(1).address, nominate=True)
    for number in range(2, remotes + 1):
        peer.agent.add_remote_candidate(remote(number), peer.now)
    peer.events()
    return peer


def reflexive(number: int, priority: int = 1_700_000_000) -> Candidate:
    """A server-reflexive candidate of the peer's."""
    return Candidate(
        kind=CandidateKind.SERVER_REFLEXIVE,
        address=Address("198.51.100.1", 7000 + number),
        priority=priority,
        foundation=f"r{number}",
    )


def several(role: Role = Role.CONTROLLING) -> Scripted:
    """An agent with three valid pairs, the best of them selected."""
    peer = Scripted(role, remotes=3, renomination=True)
    for check in reversed([peer.first_check() for _ in range(3)]):
        peer.answer(check)
    if role is Role.CONTROLLING:
        respond(peer, peer.first_check())
    else:
        peer.check(remote(1).address, nominate=True)
    peer.events()
    return peer


def test_a_direct_pair_that_works_while_a_relayed_one_is_nominated_replaces_it_at_once() -> None:
    peer = Scripted(Role.CONTROLLING, remotes=1, renomination=True)
    theirs = Candidate(
        kind=CandidateKind.RELAYED,
        address=Address("192.0.2.201", 50000),
        priority=priority(CandidateKind.RELAYED, MAX_LOCAL_PREFERENCE),
        foundation="relay",
    )
    peer.agent.add_remote_candidate(theirs, peer.now)
    # The direct answer comes between the nomination and its own answer.
    play(peer, 1.0, rtt={theirs.address: 0.1, remote(1).address: 0.2})
    assert selected(peer).remote == remote(1)


def test_a_relayed_candidate_is_paired_checked_and_selected_with_itself_as_base() -> None:
    peer = Scripted(remotes=0)
    peer.agent.add_local_candidate(relayed(), peer.now)
    peer.agent.add_remote_candidate(reflexive(1), peer.now)
    assert [peer.first_check().transmit.source for _ in range(2)] == [BASE, RELAY]
    play(peer, 1.0, deaf={BASE})
    assert selected(peer).base == RELAY
    assert selected(peer).local == relayed()
    assert selected(peer).detour == 2


def test_rfc8445_5_1_1_2_a_relayed_candidate_that_is_a_host_candidate_is_discarded() -> None:
    peer = Scripted()
    peer.agent.add_local_candidate(relayed(BASE), peer.now)
    assert peer.agent.report.local_candidates == (peer.local,)


def test_rfc8445_7_3_1_4_a_check_that_came_through_the_relay_makes_a_pair_of_the_relayed_candidate() -> None:
    peer = Scripted(remotes=0)
    peer.agent.add_local_candidate(relayed(), peer.now)
    source = Address("198.51.100.9", 999)
    assert peer.receive(peer.request(), source, RELAY)
    sent = peer.sent()
    assert [(each.transmit.source, each.to) for each in sent] == [(RELAY, source)] * 2
    assert [each.message.kind for each in sent] == [Kind.SUCCESS, Kind.REQUEST]


def test_a_direct_pair_replaces_a_relayed_one_at_once() -> None:
    network = Network(LATENCY, renomination=True)
    one = network.host(Role.CONTROLLING, ("192.0.2.1", "192.0.2.200"))
    two = network.host(Role.CONTROLLED, "192.0.2.2")
    one.agent.remove_local_base(one.addresses[0], 0.0)
    one.agent.remove_local_base(one.addresses[1], 0.0)
    relay = relayed(one.addresses[1])
    one.candidates = [relay]
    one.agent.add_local_candidate(relay, 0.0)
    network.introduce(one, two)
    network.drive()
    assert_agreed(one, two)
    assert one.selected.base == relay.address
    direct = host_candidate(one.addresses[0])
    started = network.now
    one.agent.add_local_candidate(direct, network.now)
    two.agent.add_remote_candidate(direct, network.now)
    network.advance(1.0)
    assert_agreed(one, two)
    assert one.selected.base == direct.address
    times = [time for time, event in one.events if isinstance(event, Selected)]
    assert times[-1] - started <= 4 * LATENCY + 0.02
    assert len(two.said(Selected)) == 2


@pytest.mark.parametrize("renomination", [True, False])
def test_a_candidate_that_comes_after_the_selection_is_checked_if_another_pair_may_be_chosen(
    renomination: bool,
) -> None:
    peer = connected(renomination=renomination)
    better = remote(0)
    peer.agent.add_remote_candidate(better, peer.now)
    sent = [each.to for each in peer.until(peer.now + 1.0)]
    assert (better.address in sent) is renomination


def test_a_worse_candidate_that_comes_after_the_selection_is_not_checked_by_itself() -> None:
    peer = connected(remotes=2)
    assert remote(2).address not in [each.to for each in peer.until(3.0)]


def test_a_check_of_the_peers_on_a_worse_pair_is_taken_up_after_the_selection() -> None:
    peer = connected(remotes=2)
    peer.check(remote(2).address)
    respond(peer, peer.first_check())
    assert peer.state(2) is PairState.SUCCEEDED
    assert selected(peer).remote == remote(1)


def test_a_pair_with_fewer_nats_replaces_the_selected_one_when_that_has_settled() -> None:
    peer = Scripted(remotes=0, renomination=True)
    peer.agent.add_remote_candidate(reflexive(1), peer.now)
    play(peer, 1.0)
    assert selected(peer).detour == 1
    peer.agent.add_remote_candidate(remote(1), peer.now)
    play(peer, SETTLE - 1.5)
    assert selected(peer).remote == reflexive(1)
    play(peer, 20.0)
    assert selected(peer).remote == remote(1)


def test_a_pair_of_the_same_sort_replaces_the_selected_one_only_when_it_is_faster_for_a_while() -> None:
    peer = connected(remotes=1)
    peer.agent.add_remote_candidate(remote(0), peer.now)
    rtt = {remote(0).address: 0.05, remote(1).address: 0.1}
    play(peer, RTT_HOLD - 1, rtt=rtt)
    assert selected(peer).remote == remote(1)
    play(peer, 60.0, rtt=rtt)
    assert selected(peer).remote == remote(0)
    assert sum(isinstance(event, Selected) for event in peer.events()) == 1


@pytest.mark.parametrize("faster", [0.095, 0.092, 0.1, 0.12])
def test_a_pair_that_is_hardly_faster_replaces_nothing(faster: float) -> None:
    peer = connected(remotes=1)
    peer.agent.add_remote_candidate(remote(0), peer.now)
    play(peer, FALLBACK_LIFETIME, rtt={remote(0).address: faster, remote(1).address: 0.1})
    assert selected(peer).remote == remote(1)
    assert not any(isinstance(event, Selected) for event in peer.events())


def test_a_later_nomination_has_a_greater_number() -> None:
    peer = connected()
    peer.agent.add_remote_candidate(remote(0), peer.now)
    respond(peer, peer.first_check())
    pair = next(pair for pair in peer.agent.pairs if pair.remote == remote(0))
    peer.agent.nominate(pair, peer.now)
    nomination = next(each for each in iter(peer.first_check, None) if each.nominates)
    assert nomination.message.get(Nomination) == Nomination(1)
    respond(peer, nomination)
    assert selected(peer) is pair


def test_the_first_nomination_has_no_number() -> None:
    peer = Scripted(renomination=True)
    peer.answer(peer.first_check())
    nomination = peer.first_check()
    assert nomination.nominates
    assert nomination.message.get(Nomination) is None


@pytest.mark.parametrize("renomination", [True, False])
def test_a_controlled_agent_takes_a_later_nomination_if_that_was_agreed(renomination: bool) -> None:
    peer = Scripted(Role.CONTROLLED, remotes=2, renomination=renomination)
    for check in [peer.first_check(), peer.first_check()]:
        peer.answer(check)
    peer.check(remote(1).address, nominate=True)
    peer.check(remote(2).address, nominate=True, extra=(Nomination(1),))
    assert selected(peer).remote == remote(2 if renomination else 1)
    assert sum(pair.nominated for pair in peer.agent.report.pairs) == 1


def test_an_older_nomination_that_arrives_late_changes_nothing() -> None:
    peer = Scripted(Role.CONTROLLED, remotes=3, renomination=True)
    for check in [peer.first_check() for _ in range(3)]:
        peer.answer(check)
    peer.check(remote(1).address, nominate=True, extra=(Nomination(5),))
    peer.check(remote(2).address, nominate=True, extra=(Nomination(4),))
    peer.check(remote(3).address, nominate=True)
    assert selected(peer).remote == remote(1)


def test_a_controlling_agent_whose_pair_is_lost_nominates_the_next_at_once() -> None:
    peer = several()
    lost = selected(peer)
    peer.agent.pair_lost(lost, peer.now)
    first, second = peer.events()
    assert isinstance(first, Lost)
    assert isinstance(second, Nominating)
    assert first == Lost(lost, second.pair)
    assert second.pair.remote == remote(2)
    assert peer.agent.selected is None
    nomination = peer.first_check()
    assert (nomination.nominates, nomination.to) == (True, remote(2).address)
    respond(peer, nomination)
    assert selected(peer).remote == remote(2)
    assert peer.agent.report.state is CheckListState.COMPLETED


def test_a_pair_that_has_taken_the_lost_ones_place_is_nominated_though_another_is_better() -> None:
    peer = several()
    _, _, third = peer.agent.pairs
    peer.agent.pair_lost(selected(peer), peer.now, third)
    nomination = peer.first_check()
    assert (nomination.nominates, nomination.to) == (True, third.remote.address)


def test_a_controlled_agent_whose_pair_is_lost_says_which_other_works_and_waits() -> None:
    peer = several(Role.CONTROLLED)
    lost = selected(peer)
    peer.agent.pair_lost(lost, peer.now)
    (event,) = peer.events()
    assert isinstance(event, Lost)
    assert event.fallback is not None
    assert event.fallback.remote == remote(2)
    peer.check(remote(2).address, nominate=True, extra=(Nomination(1),))
    assert selected(peer).remote == remote(2)


def test_a_controlled_agent_that_was_told_too_early_that_its_pair_is_lost_takes_it_again() -> None:
    peer = several(Role.CONTROLLED)
    pair = selected(peer)
    peer.agent.pair_lost(pair, peer.now)
    play(peer, 1.0)
    assert selected(peer) is pair
    assert isinstance(peer.events()[-1], Selected)


def test_a_controlled_agent_does_not_go_back_to_a_lost_pair_when_the_peer_has_chosen_another() -> None:
    peer = several(Role.CONTROLLED)
    pair = selected(peer)
    peer.agent.pair_lost(pair, peer.now)
    peer.check(remote(2).address, nominate=True, extra=(Nomination(1),))
    play(peer, 1.0)
    assert pair.is_valid
    assert selected(peer).remote == remote(2)


def test_without_another_valid_pair_all_are_checked_anew() -> None:
    peer = connected(remotes=3)
    peer.agent.pair_lost(selected(peer), peer.now)
    assert [type(event) for event in peer.events()] == [Lost]
    assert peer.agent.report.state is CheckListState.RUNNING
    play(peer, 1.0, deaf={remote(1).address})
    assert selected(peer).remote == remote(2)


def test_a_pair_that_works_again_after_it_was_lost_is_selected_again() -> None:
    peer = connected()
    pair = selected(peer)
    peer.agent.pair_lost(pair, peer.now)
    play(peer, 1.0)
    assert selected(peer) is pair


def test_when_nothing_works_any_more_the_agent_fails_with_a_reason() -> None:
    peer = connected(remotes=3)
    peer.agent.pair_lost(selected(peer), peer.now)
    peer.events()
    play(peer, PATIENCE, deaf={remote(n).address for n in range(1, 4)})
    (failed,) = peer.events()
    assert isinstance(failed, Failed)


def test_a_lost_pair_with_a_standard_peer_takes_a_restart() -> None:
    peer = connected(renomination=False)
    peer.agent.pair_lost(selected(peer), peer.now)
    lost, failed = peer.events()
    assert isinstance(lost, Lost)
    assert isinstance(failed, Failed)
    assert "restart" in failed.reason


def test_a_nomination_of_a_pair_that_has_died_meanwhile_gives_way_to_the_next() -> None:
    peer = several()
    peer.agent.pair_lost(selected(peer), peer.now)
    play(peer, NOMINATION_LIMIT + 0.1, deaf={remote(2).address, remote(1).address})
    assert selected(peer).remote == remote(3)


def test_a_later_nomination_that_is_not_answered_is_taken_back() -> None:
    peer = connected()
    peer.agent.add_remote_candidate(remote(0), peer.now)
    respond(peer, peer.first_check())
    pair = next(pair for pair in peer.agent.pairs if pair.remote == remote(0))
    peer.agent.nominate(pair, peer.now)
    play(peer, NOMINATION_LIMIT + 0.1, deaf={remote(0).address})
    assert selected(peer).remote == remote(1)
    nominated = [event.pair.remote for event in peer.events() if isinstance(event, Nominating)]
    assert nominated == [remote(0), remote(1)]


def test_losing_a_pair_that_is_not_selected_disturbs_nothing() -> None:
    peer = several()
    other = next(pair for pair in peer.agent.pairs if pair.remote == remote(2))
    peer.agent.pair_lost(other, peer.now)
    assert peer.events() == []
    assert selected(peer).remote == remote(1)
    assert peer.state(2) is PairState.FAILED


def test_a_pair_is_lost_once() -> None:
    peer = connected()
    pair = selected(peer)
    peer.agent.pair_lost(pair, peer.now)
    peer.events()
    peer.agent.pair_lost(pair, peer.now)
    assert peer.events() == []


def two(seed: int = 1) -> tuple[Network, Host, Host]:
    network = Network(LATENCY, seed, renomination=True)
    one = network.host(Role.CONTROLLING, ("192.0.2.1", "2001:db8::1"))
    other = network.host(Role.CONTROLLED, ("192.0.2.2", "2001:db8::2"))
    network.introduce(one, other)
    network.drive()
    assert_agreed(one, other)
    return network, one, other


def test_two_agents_whose_path_breaks_agree_on_the_other() -> None:
    network, one, other = two()
    broken = one.selected.base.host
    version = ":" in broken
    network.weather = lambda packet: () if (":" in packet.source.host) is version else (0.0,)
    network.advance(40.0)
    assert_agreed(one, other)
    assert (":" in one.selected.base.host) is not version
    assert len(one.said(Lost)) == 1


@pytest.mark.parametrize("first", [0, 1])
def test_two_agents_agree_whoever_is_told_first_that_the_pair_is_lost(first: int) -> None:
    network, one, other = two()
    early, late = ((one, other), (other, one))[first]
    was = one.selected.base.host
    network.weather = lambda packet: () if (":" in packet.source.host) is (":" in was) else (0.0,)
    early.agent.pair_lost(early.selected, network.now)
    network.advance(1.0)
    if late.agent.selected is not None and late.selected.base.host.count(":") == was.count(":"):
        late.agent.pair_lost(late.selected, network.now)
    network.advance(1.0)
    assert_agreed(one, other)
    assert (":" in one.selected.base.host) is not (":" in was)


def test_a_quiet_hour_costs_two_agents_little_and_changes_nothing() -> None:
    network, one, other = two()
    pairs = one.selected, other.selected
    sent = len(network.packets)
    one.agent.entrust(one.selected, network.now)
    other.agent.entrust(other.selected, network.now)
    network.advance(3600.0)
    assert (one.selected, other.selected) == pairs
    # Keepalives of the one pair, and for two minutes those of the other that is kept ready.
    assert len(network.packets) - sent <= 2 * 240 + 2 * 2 * 12
    for host in (one, other):
        assert len(host.said(Selected)) == 1
