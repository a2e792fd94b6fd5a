"""Python's own sources of randomness, by seed: libraries that programs use draw from them."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def seeded(rng: random.Random) -> Iterator[None]:
    """Have `random`, `secrets`, `uuid` and `os.urandom` draw from `rng` meanwhile."""
    state, urandom = random.getstate(), os.urandom
    random.seed(rng.getrandbits(64))
    _replace_urandom(rng.randbytes)
    try:
        yield
    finally:
        _replace_urandom(urandom)
        random.setstate(state)


def _replace_urandom(urandom: Callable[[int], bytes]) -> None:
    os.urandom = urandom
    # `random.SystemRandom`, and with it `secrets`, has it by a name of its own.
    random._urandom = urandom  # type: ignore[attr-defined]
