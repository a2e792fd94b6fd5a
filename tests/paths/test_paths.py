"""Which QUIC paths a connection has, as its checks select pairs and paths come and go."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from quice.ice import PairState
from tests.paths.kept import PEER_MAPPED, RELAY_HOST, Kept


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
