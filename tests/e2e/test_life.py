"""One connection through everything that happens to a network: its application sees nothing of that."""

from __future__ import annotations

import pytest

from lab.ground import available
from lab.life import CHAPTERS, Outcome, playing, show, tell

UNAVAILABLE = available()
pytestmark = [
    pytest.mark.lab,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(UNAVAILABLE is not None, reason=str(UNAVAILABLE)),
]

RATE = 2_000_000
_GOES_ON = 20.0
"""Seconds after which a stream that has paused does not go on by itself."""


def _check(outcome: Outcome) -> None:
    show(outcome)
    assert outcome.pause < _GOES_ON


def test_a_stream_goes_on_through_all_that_happens_to_the_network() -> None:
    """Its blocks are numbered, and no read fails.

    How long each pause may be, `make life` judges, on a machine that does nothing else.
    """
    with playing(relay="quice", size=0, rate=RATE, stop=3.0) as play:
        tell(list(CHAPTERS), play, 1.0, _check)
        received, same = play.finish(5.0)
    assert same
    assert received > RATE
