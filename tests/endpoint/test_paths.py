"""Which QUIC paths a connection has, as its checks select pairs, its peer falls silent and its paths come and go."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from quice.ice import Base, PairState
from quice.sim.simulation import Simulation
from tests.endpoint.kept import MOBILE, PEER_MAPPED, RELAY_HOST, Kept, pair


@pytest.fixture
async def kept(simulation: Simulation) -> Kept:
    """A connection that was made on a direct pair."""
    return Kept(simulation, "lan")


@pytest.fixture
async def relayed(simulation: Simulation) -> Kept:
    """A connection that was made over our relay."""
    return Kept(simulation, "our relay")


# One pair, and another.


def test_the_first_pair_is_kept_and_nothing_is_opened(kept: Kept) -> None:
    kept.select("lan")
    kept.keeper.on_tick()
    assert kept.paths == {0: "lan, available"}


def test_another_selected_pair_is_opened_as_a_backup_until_it_is_validated(kept: Kept) -> None:
    kept.select("mapped")
    kept.wait(1.0)
    assert kept.paths == {0: "lan, available", 1: "mapped, backup"}


def test_a_validated_pair_becomes_available_and_the_former_is_closed(kept: Kept) -> None:
    kept.select("mapped")
    kept.keeper.on_opened(1)
    assert kept.paths == {1: "mapped, available"}


def test_what_can_not_be_opened_yet_is_opened_at_a_later_tick(kept: Kept) -> None:
    kept.engine.most = 1
    kept.select("mapped")
    kept.keeper.on_tick()
    assert kept.paths == {0: "lan, available"}
    kept.engine.most = 4
    kept.keeper.on_tick()
    assert kept.paths == {0: "lan, available", 1: "mapped, backup"}


def test_a_path_from_a_relayed_address_leaves_from_what_the_engine_calls_the_relay(kept: Kept) -> None:
    kept.select("our relay", urgent=True)
    assert kept.engine.open[1].ends == (PEER_MAPPED.address, RELAY_HOST)


def test_the_engine_is_pumped_when_paths_were_opened_or_moved(kept: Kept) -> None:
    kept.select("mapped")
    opened = kept.around.pump.wakes
    assert opened
    kept.engine.has_multipath = False
    kept.hearing.silence = 0.5
    kept.select("mobile")
    assert kept.around.pump.wakes > opened


def test_who_wants_to_know_is_told_of_another_ranking_once_a_path_is_validated(kept: Kept) -> None:
    told: list[dict[int, str]] = []
    kept.keeper.on_ranked = lambda: told.append(kept.paths)
    kept.select("mapped")
    assert not told
    kept.keeper.on_opened(1)
    assert told == [{1: "mapped, available"}]


def test_without_multipath_nothing_is_opened(kept: Kept) -> None:
    kept.engine.has_multipath = False
    kept.select("mapped")
    kept.keeper.on_tick()
    assert kept.paths == {0: "lan, available"}


def test_without_multipath_the_path_moves_in_a_silence(kept: Kept) -> None:
    kept.engine.has_multipath = False
    kept.hearing.silence = 0.5
    kept.select("mapped")
    assert kept.paths == {0: "mapped, available"}


# A relay in reserve.


def test_a_relay_stays_in_reserve_beside_a_direct_pair(relayed: Kept) -> None:
    relayed.select("lan")
    relayed.keeper.on_opened(1)
    assert relayed.paths == {0: "our relay, backup", 1: "lan, available"}


def test_a_reserve_is_opened_beside_a_direct_pair_and_stays_a_backup(kept: Kept) -> None:
    kept.find("our relay")
    kept.keeper.on_tick()
    kept.keeper.on_opened(1)
    assert kept.paths == {0: "lan, available", 1: "our relay, backup"}


def test_the_status_of_a_path_is_not_set_again(kept: Kept) -> None:
    kept.find("our relay")
    kept.keeper.on_tick()
    kept.keeper.on_opened(1)
    kept.wait(1.0)
    assert kept.engine.statuses == 0


def test_a_relay_that_does_not_work_is_no_reserve(kept: Kept) -> None:
    kept.find("our relay").state = PairState.IN_PROGRESS
    kept.keeper.on_tick()
    assert kept.paths == {0: "lan, available"}


def test_a_direct_pair_is_no_reserve(kept: Kept) -> None:
    kept.find("mapped")
    kept.keeper.on_tick()
    assert kept.paths == {0: "lan, available"}


def test_a_reserve_that_still_works_is_preferred_to_another_relay(kept: Kept) -> None:
    kept.find("our relay")
    kept.keeper.on_tick()
    kept.checks.pairs.insert(0, pair("their relay"))
    kept.keeper.on_tick()
    assert kept.paths == {0: "lan, available", 1: "our relay, backup"}


def test_a_reserve_that_works_no_more_gives_way_to_another_relay(kept: Kept) -> None:
    reserve = kept.find("our relay")
    kept.keeper.on_tick()
    reserve.state = PairState.FAILED
    kept.find("their relay")
    kept.keeper.on_tick()
    assert kept.paths == {0: "lan, available", 2: "their relay, backup"}


def test_a_reserve_stays_when_no_relay_is_known_to_work(kept: Kept) -> None:
    reserve = kept.find("our relay")
    kept.keeper.on_tick()
    reserve.state = PairState.FAILED
    kept.keeper.on_tick()
    assert kept.paths == {0: "lan, available", 1: "our relay, backup"}


def test_a_relay_has_no_reserve(relayed: Kept) -> None:
    relayed.find("their relay")
    relayed.keeper.on_tick()
    assert relayed.paths == {0: "our relay, available"}


def test_where_the_engine_takes_a_moved_path_to_be_there_is_no_reserve(relayed: Kept) -> None:
    relayed.hearing.silence = 0.5
    relayed.select("lan")
    relayed.hearing.silence = 0.0
    relayed.keeper.on_tick()
    assert relayed.paths == {0: "lan, available"}


def test_a_reserve_that_is_lost_is_opened_again(kept: Kept) -> None:
    kept.find("our relay")
    kept.keeper.on_tick()
    kept.lose(1)
    assert kept.paths == {0: "lan, available", 2: "our relay, backup"}


# From a direct pair to a relay.


def test_a_direct_path_that_works_is_not_left_for_a_relay(kept: Kept) -> None:
    kept.select("our relay")
    assert kept.selected == "lan"
    assert kept.paths == {0: "lan, available", 1: "our relay, backup"}


def test_a_direct_path_is_left_for_a_relay_when_that_is_urgent(kept: Kept) -> None:
    kept.select("our relay", urgent=True)
    kept.keeper.on_opened(1)
    assert kept.paths == {1: "our relay, available"}


def test_a_direct_path_is_left_for_a_relay_in_a_silence(kept: Kept) -> None:
    kept.hearing.silence = 0.5
    kept.select("our relay")
    assert kept.paths == {0: "our relay, available"}


def test_a_direct_path_is_left_for_a_relay_when_its_base_is_gone(kept: Kept) -> None:
    kept.around.bases = [Base(MOBILE.address)]
    kept.select("our relay")
    assert kept.paths == {0: "our relay, available"}


def test_a_direct_path_is_left_for_a_relay_when_the_checks_know_no_direct_pair(kept: Kept) -> None:
    kept.checks.pairs.clear()
    kept.select("our relay")
    kept.keeper.on_opened(1)
    assert kept.paths == {1: "our relay, available"}


def test_a_direct_path_that_is_not_validated_is_left_for_a_relay(relayed: Kept) -> None:
    relayed.select("lan")
    relayed.select("their relay")
    assert relayed.selected == "their relay"


def test_a_relay_is_left_for_another_while_a_direct_pair_is_being_checked(relayed: Kept) -> None:
    relayed.find("lan").state = PairState.IN_PROGRESS
    relayed.select("their relay")
    relayed.keeper.on_opened(1)
    assert relayed.paths == {1: "their relay, available"}


# In a silence.


def test_in_a_silence_the_path_moves_to_the_selected_pair(kept: Kept) -> None:
    kept.hearing.silence = 0.5
    kept.select("mapped")
    assert kept.paths == {0: "mapped, available"}


def test_in_a_shorter_silence_nothing_moves(kept: Kept) -> None:
    kept.hearing.silence = 0.49
    kept.select("mapped")
    assert kept.paths == {0: "lan, available", 1: "mapped, backup"}


def test_the_path_moves_when_its_base_is_gone(kept: Kept) -> None:
    kept.around.bases = [Base(MOBILE.address)]
    kept.select("mobile")
    assert kept.paths == {0: "mobile, available"}


def test_nothing_moves_while_the_base_of_another_path_is_there(kept: Kept) -> None:
    kept.select("mobile")
    kept.around.bases = [Base(MOBILE.address)]
    kept.select("mapped")
    assert "mapped, backup" in kept.paths.values()


def test_a_relayed_address_is_a_base_that_is_there(relayed: Kept) -> None:
    relayed.around.bases = [Base(MOBILE.address)]
    relayed.select("mobile")
    assert relayed.paths == {0: "our relay, available", 1: "mobile, backup"}


def test_the_path_moves_when_that_is_urgent_and_nothing_has_come_for_a_while(kept: Kept) -> None:
    kept.hearing.pause = 0.5
    kept.select("mapped", urgent=True)
    assert kept.paths == {0: "mapped, available"}


def test_nothing_moves_for_urgency_alone(kept: Kept) -> None:
    kept.hearing.pause = 0.49
    kept.select("mapped", urgent=True)
    assert kept.paths == {0: "lan, available", 1: "mapped, backup"}


def test_nothing_moves_when_nothing_has_come_because_nothing_was_asked(kept: Kept) -> None:
    kept.hearing.pause = 10.0
    kept.select("mapped")
    assert kept.paths == {0: "lan, available", 1: "mapped, backup"}


def test_it_is_a_validated_path_that_moves(kept: Kept) -> None:
    kept.select("mapped")
    kept.hearing.silence = 0.5
    kept.select("mobile")
    assert kept.paths == {0: "mobile, available"}


def test_of_validated_paths_the_one_in_use_moves(relayed: Kept) -> None:
    relayed.select("lan")
    relayed.keeper.on_opened(1)
    relayed.hearing.silence = 0.5
    relayed.select("mapped")
    assert relayed.paths[1] == "mapped, available"


def test_a_reserve_that_a_move_has_closed_is_opened_again(relayed: Kept) -> None:
    relayed.select("lan")
    relayed.keeper.on_opened(1)
    relayed.hearing.silence = 0.5
    relayed.select("mapped")
    assert relayed.paths == {1: "mapped, available", 2: "our relay, backup"}


def test_a_path_that_has_moved_is_as_good_as_validated(kept: Kept) -> None:
    kept.select("mapped")
    kept.lose(0)
    kept.hearing.silence = 0.5
    kept.select("mobile")
    assert kept.paths == {1: "mobile, available"}


def test_that_a_move_closes_other_paths_is_no_loss(relayed: Kept) -> None:
    relayed.select("lan")
    relayed.keeper.on_opened(1)
    relayed.hearing.silence = 0.5
    relayed.select("mapped")
    relayed.hear_of_closed()
    assert relayed.selected == "mapped"
    assert not relayed.checks.lost


def test_a_move_ends_comparisons(kept: Kept) -> None:
    kept.compare("mapped")
    kept.hearing.silence = 0.5
    kept.select("mobile")
    assert not kept.keeper.compared


def test_in_a_silence_a_selected_pair_that_has_a_path_is_asked_for_an_answer(kept: Kept) -> None:
    kept.hearing.silence = 0.5
    kept.select("lan")
    assert kept.engine.nudges == 1
    assert kept.paths == {0: "lan, available"}


def test_where_the_peer_answers_nothing_is_asked(kept: Kept) -> None:
    kept.select("lan")
    assert kept.engine.nudges == 0


def test_a_path_moves_back_to_where_the_engine_takes_it_to_be(kept: Kept) -> None:
    kept.hearing.silence = 0.5
    kept.select("mapped")
    kept.hearing.silence = 0.0
    kept.select("lan")
    assert kept.paths == {0: "lan, available"}


def test_where_a_path_was_before_it_moved_none_is_opened_until_that_has_settled(relayed: Kept) -> None:
    relayed.hearing.silence = 0.5
    relayed.select("lan")
    relayed.select("mapped")
    relayed.hearing.silence = 0.0
    relayed.select("lan")
    relayed.wait(0.75)
    assert relayed.paths == {0: "mapped, available"}
    relayed.wait(0.25)
    assert relayed.paths == {0: "mapped, available", 1: "lan, backup"}


def test_elsewhere_a_path_is_opened_right_after_a_move(kept: Kept) -> None:
    kept.hearing.silence = 0.5
    kept.select("mapped")
    kept.hearing.silence = 0.0
    kept.select("mobile")
    assert kept.paths == {0: "mapped, available", 1: "mobile, backup"}


# Another path on trial.


def test_after_a_second_of_silence_another_pair_that_works_is_tried(kept: Kept) -> None:
    kept.find("mapped")
    kept.hearing.silence = 1.0
    kept.keeper.on_tick()
    assert kept.paths == {0: "lan, available", 1: "mapped, backup"}
    assert kept.selected == "lan"


def test_in_a_shorter_silence_none_is_tried(kept: Kept) -> None:
    kept.find("mapped")
    kept.hearing.silence = 0.99
    kept.keeper.on_tick()
    assert kept.paths == {0: "lan, available"}


def test_a_pair_that_does_not_work_is_not_tried(kept: Kept) -> None:
    kept.find("mapped").state = PairState.IN_PROGRESS
    kept.hearing.silence = 1.0
    kept.keeper.on_tick()
    assert kept.paths == {0: "lan, available"}


def test_where_the_engine_takes_a_moved_path_to_be_none_is_tried(kept: Kept) -> None:
    kept.hearing.silence = 1.0
    kept.select("mapped")
    kept.wait(1.0)
    assert kept.paths == {0: "mapped, available"}


def test_a_selected_pair_has_a_second_before_another_is_tried(kept: Kept) -> None:
    kept.hearing.silence = 1.0
    kept.select("mapped")
    kept.find("mobile")
    kept.wait(0.75)
    assert kept.paths == {0: "mapped, available"}
    kept.wait(0.25)
    assert kept.paths == {0: "mapped, available", 1: "mobile, backup"}


def test_a_trial_ends_after_two_and_a_half_seconds(kept: Kept) -> None:
    kept.find("mapped")
    kept.hearing.silence = 1.0
    kept.keeper.on_tick()
    kept.wait(2.25)
    assert kept.paths == {0: "lan, available", 1: "mapped, backup"}
    kept.wait(0.25)
    assert kept.paths == {0: "lan, available"}


def test_when_a_trial_has_ended_another_pair_is_tried(kept: Kept) -> None:
    kept.find("mapped")
    kept.find("mobile")
    kept.hearing.silence = 1.0
    kept.keeper.on_tick()
    kept.wait(2.5)
    assert kept.paths == {0: "lan, available", 2: "mobile, backup"}


def test_a_trial_ends_in_time_when_no_other_pair_may_be_tried(kept: Kept) -> None:
    kept.find("mapped")
    kept.hearing.silence = 20.0
    kept.keeper.on_tick()
    kept.hearing.silence = 22.5
    kept.wait(2.5)
    assert kept.paths == {0: "lan, available"}


def test_a_trial_ends_when_the_peer_answers(kept: Kept) -> None:
    kept.find("mapped")
    kept.hearing.silence = 1.0
    kept.keeper.on_tick()
    kept.hearing.silence = 0.0
    kept.keeper.on_tick()
    assert kept.paths == {0: "lan, available"}


def test_a_trial_ends_when_a_pair_is_selected(kept: Kept) -> None:
    kept.find("mapped")
    kept.hearing.silence = 1.0
    kept.keeper.on_tick()
    kept.select("lan")
    assert kept.paths == {0: "lan, available"}


@pytest.mark.parametrize(("silence", "tried"), [(20.0, True), (20.25, False)])
def test_after_twenty_seconds_of_silence_none_is_tried(kept: Kept, silence: float, tried: bool) -> None:
    kept.find("mapped")
    kept.hearing.silence = silence
    kept.keeper.on_tick()
    assert (1 in kept.paths) is tried


def test_a_tried_pair_that_works_takes_over(kept: Kept) -> None:
    kept.find("mapped")
    kept.hearing.silence = 1.0
    kept.keeper.on_tick()
    kept.keeper.on_opened(1)
    assert kept.selected == "mapped"
    assert kept.paths == {1: "mapped, available"}


def test_the_silent_path_moves_to_a_tried_pair_that_works_if_both_lead_to_one_address(kept: Kept) -> None:
    kept.checks.pairs.clear()
    kept.select("mapped")
    kept.keeper.on_opened(1)
    kept.hear_of_closed()
    kept.find("mobile")
    kept.hearing.silence = 1.0
    kept.wait(1.0)
    assert kept.paths == {1: "mapped, available", 2: "mobile, backup"}
    kept.keeper.on_opened(2)
    assert kept.selected == "mobile"
    assert kept.paths == {1: "mobile, available"}


def test_a_trial_goes_on_when_a_path_over_another_pair_is_validated(kept: Kept) -> None:
    kept.find("mapped")
    kept.find("our relay")
    kept.hearing.silence = 1.0
    kept.keeper.on_tick()
    kept.keeper.on_opened(2)
    assert kept.selected == "lan"
    assert kept.paths == {0: "lan, available", 1: "mapped, backup", 2: "our relay, backup"}


# What the checks are told.


def test_in_a_silence_without_another_pair_the_checks_are_told_that_theirs_is_lost(kept: Kept) -> None:
    (known,) = kept.checks.pairs
    kept.keeper.select(pair("lan"), urgent=False)
    kept.hearing.silence = 1.0
    kept.wait(1.0)
    assert [lost for lost, _ in kept.checks.lost] == [known]


def test_they_are_told_again_for_as_long_as_the_silence_lasts(kept: Kept) -> None:
    kept.select("lan")
    kept.hearing.silence = 1.0
    kept.wait(1.0 + 2.5)
    assert len(kept.checks.lost) == 2


def test_they_are_told_nothing_before_they_have_selected_a_pair(kept: Kept) -> None:
    kept.hearing.silence = 1.0
    kept.keeper.on_tick()
    assert not kept.checks.lost


def test_they_are_told_nothing_while_another_pair_is_tried(kept: Kept) -> None:
    kept.select("lan")
    kept.find("mapped")
    kept.hearing.silence = 1.0
    kept.wait(1.0)
    assert not kept.checks.lost


def test_they_are_told_nothing_of_a_pair_that_they_do_not_know(kept: Kept) -> None:
    kept.select("lan")
    kept.checks.pairs.clear()
    kept.hearing.silence = 1.0
    kept.wait(1.0)
    assert not kept.checks.lost


def test_when_the_path_in_use_is_lost_what_is_left_is_used_and_the_checks_are_told(kept: Kept) -> None:
    kept.find("our relay")
    kept.keeper.on_tick()
    kept.keeper.on_opened(1)
    known, reserve = kept.follow("lan", "our relay")
    kept.lose(0)
    assert kept.selected == "our relay"
    assert kept.paths == {1: "our relay, available"}
    assert kept.checks.lost == [(known, reserve)]


def test_when_another_path_is_lost_they_are_told_nothing(kept: Kept) -> None:
    kept.select("mapped")
    kept.lose(0)
    assert kept.selected == "mapped"
    assert not kept.checks.lost


def test_when_one_of_two_paths_over_the_pair_in_use_is_lost_they_are_told_nothing(kept: Kept) -> None:
    kept.compare("lan")
    kept.lose(0)
    assert kept.selected == "lan"
    assert not kept.checks.lost


def test_when_an_unknown_path_is_lost_nothing_happens(kept: Kept) -> None:
    kept.keeper.on_lost(7)
    assert kept.paths == {0: "lan, available"}
    assert not kept.checks.lost


def test_a_trial_ends_when_the_path_in_use_is_lost(kept: Kept) -> None:
    kept.find("our relay")
    kept.keeper.on_tick()
    kept.keeper.on_opened(1)
    kept.find("mapped")
    kept.hearing.silence = 1.0
    kept.keeper.on_tick()
    kept.lose(0)
    assert kept.paths == {1: "our relay, available"}


def test_other_checks_are_asked_once_they_are_followed(kept: Kept) -> None:
    kept.follow("their relay")
    kept.keeper.on_tick()
    assert kept.paths == {0: "lan, available", 1: "their relay, backup"}


# Paths that are compared.


def test_a_compared_path_is_kept_until_the_comparison_ends(kept: Kept) -> None:
    mapped = kept.compare("mapped")
    kept.keeper.on_tick()
    assert kept.paths == {0: "lan, available", 1: "mapped, backup"}
    assert kept.keeper.compared == {1: mapped}
    kept.keeper.end_comparison(1)
    assert kept.paths == {0: "lan, available"}


def test_a_pair_replaces_the_one_that_it_is_compared_with_which_is_compared_with_it(kept: Kept) -> None:
    mapped = kept.compare("mapped")
    first = kept.keeper.selected
    kept.keeper.replace(mapped)
    assert kept.paths == {0: "lan, backup", 1: "mapped, available"}
    assert kept.keeper.compared == {0: first}


def test_a_replaced_pairs_path_is_closed_when_the_comparison_ends(kept: Kept) -> None:
    kept.keeper.replace(kept.compare("mapped"))
    kept.keeper.end_comparison(0)
    assert kept.paths == {1: "mapped, available"}


def test_a_compared_path_that_is_lost_is_compared_no_more(kept: Kept) -> None:
    kept.compare("mapped")
    kept.lose(1)
    assert not kept.keeper.compared


def test_the_pair_of_a_path_is_known_until_it_is_lost(kept: Kept) -> None:
    mapped = kept.compare("mapped")
    assert kept.keeper.pair_of(1) is mapped
    kept.lose(1)
    assert kept.keeper.pair_of(1) is None


# Relays, and an engine that does not do as it is told.


def test_our_relay_lets_the_peer_in_for_as_long_as_a_path_leads_through_it(kept: Kept) -> None:
    reserve = kept.find("our relay")
    kept.keeper.on_tick()
    reserve.state = PairState.FAILED
    kept.find("their relay")
    kept.keeper.on_tick()
    assert kept.around.relays.let_in == {kept.keeper: {PEER_MAPPED.address}}
    kept.hear_of_closed()
    assert kept.around.relays.let_in == {kept.keeper: set()}


def test_our_relay_lets_the_peer_in_before_a_path_can_be_opened(kept: Kept) -> None:
    kept.engine.most = 1
    kept.find("our relay")
    kept.keeper.on_tick()
    assert kept.around.relays.let_in == {kept.keeper: {PEER_MAPPED.address}}


def test_our_relay_lets_the_peer_in_when_a_path_moves_there(kept: Kept) -> None:
    kept.hearing.silence = 0.5
    kept.select("our relay")
    assert kept.around.relays.let_in == {kept.keeper: {PEER_MAPPED.address}}


def test_a_closed_keeper_lets_nobody_in(kept: Kept) -> None:
    kept.find("our relay")
    kept.keeper.on_tick()
    kept.keeper.close()
    assert kept.around.relays.let_in == {kept.keeper: set()}


def test_a_closed_keeper_opens_nothing(kept: Kept) -> None:
    kept.keeper.close()
    kept.find("our relay")
    kept.keeper.on_tick()
    assert kept.paths == {0: "lan, available"}


def test_a_refused_path_is_opened_when_it_is_refused_no_more(kept: Kept) -> None:
    kept.engine.refuses = True
    kept.select("mapped")
    kept.keeper.on_tick()
    assert kept.paths == {0: "lan, available"}
    kept.engine.refuses = False
    kept.keeper.on_tick()
    assert kept.paths == {0: "lan, available", 1: "mapped, backup"}


EVENTS: dict[str, Callable[[Kept], object]] = {
    "a pair is selected": lambda kept: kept.select("their relay"),
    "a pair with a path is selected": lambda kept: kept.select("mapped"),
    "time passes": lambda kept: kept.keeper.on_tick(),
    "a trial succeeds": lambda kept: kept.keeper.on_opened(3),
    "a path is lost": lambda kept: kept.keeper.on_lost(1),
    "a comparison ends": lambda kept: kept.keeper.end_comparison(4),
    "a pair replaces another": lambda kept: kept.keeper.replace(kept.checks.pairs[-1]),
}


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
@pytest.mark.parametrize("trouble", ["is_gone", "refuses"])
def test_what_the_engine_does_not_do_is_no_error(kept: Kept, event: Callable[[Kept], object], trouble: str) -> None:
    kept.checks.pairs.clear()
    kept.select("mapped")
    kept.keeper.on_opened(1)
    kept.hear_of_closed()
    kept.find("mobile")
    kept.find("our relay")
    kept.hearing.silence = 1.0
    kept.wait(1.0)
    kept.compare("lan")
    assert set(kept.paths) == {1, 2, 3, 4}
    setattr(kept.engine, trouble, True)
    event(kept)
