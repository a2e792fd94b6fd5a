"""What has a state is fuzzed under hypothesis, too, which draws all that is random, and makes what it finds small."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.target import Target
from fuzz.targets import mailbox, messages, rendezvous, session

TARGETS = (*messages.TARGETS[:1], *session.TARGETS, *mailbox.TARGETS, *rendezvous.TARGETS)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
@given(rng=st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_no_state_machine_fails_whatever_is_said_to_it(target: Target, rng: random.Random) -> None:
    target.play(rng)
