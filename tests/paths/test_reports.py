"""What the checks are told of paths."""

from __future__ import annotations

from tests.paths.kept import Kept, pair


def test_in_a_silence_without_another_pair_the_checks_are_told_that_theirs_is_lost(kept: Kept) -> None:
    (known,) = kept.checks.pairs
    kept.keeper.select(pair("lan"), urgent=False)
    kept.hearing.silence = 1.0
    kept.wait(1.0)
    assert kept.checks.lost == [(known, None)]


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


def test_of_what_is_left_a_path_that_works_is_used(kept: Kept) -> None:
    kept.find("mapped")
    kept.hearing.silence = 1.0
    kept.wait(1.0)
    reserve = kept.find("our relay")
    kept.keeper.on_tick()
    kept.keeper.on_opened(2)
    assert kept.paths == {0: "lan, available", 1: "mapped, backup", 2: "our relay, backup"}
    kept.lose(0)
    assert kept.selected == "our relay"
    assert [instead for _, instead in kept.checks.lost] == [reserve]


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
