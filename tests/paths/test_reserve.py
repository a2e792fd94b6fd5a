"""A relay beside a direct pair, and when it takes over."""

from __future__ import annotations

from quice.ice import Base, PairState
from tests.paths.kept import MOBILE, Kept, pair


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
