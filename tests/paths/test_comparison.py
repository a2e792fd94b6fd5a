"""Paths that are kept while they are compared."""

from __future__ import annotations

from tests.paths.kept import Kept


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
