"""A share of the lives that `make sim` lets connections live."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import pytest

from scenarios.life import Outcome, Record, draw, run, table

SEEDS = range(1, 31)
FOUND = (
    16,
    88,
    94,
    109,
    123,
    187,
    188,
    190,
    197,
    288,
    354,
    393,
    443,
    457,
    609,
    792,
    813,
    872,
    1129,
    1393,
    1495,
    1596,
    1776,
    2121,
    4856,
)
"""Those in which something was found that is mended."""


def live(chosen: tuple[int, str]) -> Outcome:
    seed, chapter = chosen
    return run(replace(draw(seed), chapters=(chapter,)))


def live_on(seed: int) -> Outcome:
    return run(draw(seed))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("chapter", ["cut", "rebind"])
def test_the_stream_goes_on_whatever_the_nats_are(chapter: str) -> None:
    with ProcessPoolExecutor(os.cpu_count() or 1) as pool:
        outcomes = list(pool.map(live, [(seed, chapter) for seed in SEEDS]))
    broken = [f"seed {outcome.seed}: {outcome.broken}" for outcome in outcomes if outcome.broken]
    assert not broken, "\n".join(broken)
    assert any(record.direct_after is not None for outcome in outcomes for record in outcome.records)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_once_broke_a_connection_does_not_any_more() -> None:
    with ProcessPoolExecutor(os.cpu_count() or 1) as pool:
        outcomes = list(pool.map(live_on, FOUND))
    broken = [f"seed {outcome.seed}: {outcome.broken}" for outcome in outcomes if outcome.broken]
    assert not broken, "\n".join(broken)


def test_the_table_tells_of_each_event_what_it_cost() -> None:
    records = [Record("moved", pause, 3.0, direct) for pause, direct in ((0.1, 0.5), (0.3, None), (0.2, 0.7))]
    assert table(records).splitlines()[1].split() == ["moved", "3", "200", "300", "300", "3000", "2", "500", "700"]
