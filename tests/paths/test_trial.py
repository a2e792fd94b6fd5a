"""Another path beside one that is silent, to see whether it works."""

from __future__ import annotations

import pytest

from quice.ice import PairState
from tests.paths.kept import Kept


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
