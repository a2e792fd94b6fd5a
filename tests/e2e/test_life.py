"""One connection through everything that happens to a network: its application sees nothing of that."""

from __future__ import annotations

import pytest

from lab.ground import available
from lab.life import CHAPTERS, Outcome, playing, show, tell

UNAVAILABLE = available()
pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.skipif(UNAVAILABLE is not None, reason=str(UNAVAILABLE))]

RATE = 2_000_000


def _check(outcome: Outcome) -> None:
    show(outcome)
    assert outcome.good


def test_a_stream_goes_on_through_all_that_happens_to_the_network() -> None:
    """Its blocks are numbered, no read fails, and no pause is longer than it may be."""
    with playing(relay="quice", size=0, rate=RATE, stop=3.0) as play:
        tell(list(CHAPTERS), play, 1.0, _check)
        received, same = play.finish(5.0)
    assert same
    assert received > RATE
