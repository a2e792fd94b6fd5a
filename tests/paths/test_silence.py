"""A path that the peer does not answer on moves to another pair."""

from __future__ import annotations

from quice.ice import Base
from tests.paths.kept import MOBILE, Kept


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
