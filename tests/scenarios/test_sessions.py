"""A share of what `make sim` and `make sim-report` run."""

from __future__ import annotations

import itertools
import os
from dataclasses import replace

import pytest

from quice.signal.messages import Establish
from quice.sim.kinds import Nat
from scenarios.__main__ import attempts
from scenarios.matrix import PAIRS, Row, picture, plans, table
from scenarios.random_session import draw

SESSIONS = 1000
FIRST = 1_000_000
CROSSING = 360


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_thousand_random_sessions_hold_what_they_must() -> None:
    seeds = range(FIRST, FIRST + SESSIONS)
    results = list(attempts(map(draw, seeds), os.cpu_count() or 1))
    broken = [
        f"{result.broken}\n  again: python -m scenarios random --seed {result.seed}"
        for result in results
        if result.broken
    ]
    assert not broken, "\n".join(broken)
    # They are no good if hardly any of them connects, or all do.
    assert 0.5 < sum(result.connect_seconds is not None for result in results) / SESSIONS < 0.95


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("establish", [each for each in Establish if each is not Establish.UNKNOWN])
def test_handshakes_that_cross_in_any_order_leave_one_connection(establish: Establish) -> None:
    seeds = range(2 * FIRST, 2 * FIRST + CROSSING)
    lost = itertools.cycle(itertools.product(range(6), repeat=2))
    crossing = [replace(draw(seed), establish=establish, silenced=next(lost)) for seed in seeds]
    results = list(attempts(crossing, os.cpu_count() or 1))
    assert not [result for result in results if result.broken]
    assert sum(result.connect_seconds is not None for result in results) > CROSSING / 2


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_pair_of_nats_that_hole_punching_can_serve_connects_both_ways() -> None:
    wanted = plans(2, 0.0)
    results = iter(attempts((plan for each in wanted.values() for plan in each), os.cpu_count() or 1))
    for pair, each in wanted.items():
        for plan in each:
            result = next(results)
            assert not result.broken
            assert (result.connect_seconds is not None) == plan.must_work, pair
    assert wanted[Nat.SYMMETRIC, Nat.PORT_RESTRICTED][0].must_work is False
    assert wanted[Nat.SYMMETRIC, Nat.ADDRESS_RESTRICTED][0].must_work is True


def test_two_port_restricted_nats_take_two_round_trips() -> None:
    (plan,) = plans(1, 0.0)[Nat.PORT_RESTRICTED, Nat.PORT_RESTRICTED]
    (result,) = attempts([plan], 1)
    assert result.broken == ""
    assert result.connect_seconds == pytest.approx(0.205, abs=0.01)


def test_the_table_and_the_picture_have_every_pair() -> None:
    rows = [Row(pair, must_work=True, runs=2, times=(0.2, 0.3)) for pair in PAIRS]
    assert len(table(rows).splitlines()) == 1 + len(PAIRS)
    drawn = picture(rows)
    assert drawn.count("<rect") == 1 + len(PAIRS)
    assert drawn.count(">200<") == len(PAIRS)


def test_percentiles_count_those_that_did_not_connect() -> None:
    row = Row((Nat.PUBLIC, Nat.PUBLIC), must_work=True, runs=4, times=(0.1, 0.3, 0.2))
    assert row.percentile(0.5) == 0.2
    assert row.percentile(0.99) == float("inf")
    assert row.share == 0.75
