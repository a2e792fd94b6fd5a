"""What can be fuzzed, and what counts as a failure."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from fuzz.mutation import mutate

ValueT = TypeVar("ValueT")
_SHOWN = 2048


class Misbehaviour(Exception):  # noqa: N818  a finding, not an error of the fuzzer
    """The code under test broke a promise; the text says which, and on what input."""


@dataclass(frozen=True)
class Target:
    """A name, and a function that plays one case of it.

    The case follows from the generator alone. Whatever exception leaves the function is a finding.
    """

    name: str
    play: Callable[[random.Random], None]


def require(promise: bool, what: str) -> None:
    """Raise `Misbehaviour` unless the promise holds."""
    if not promise:
        raise Misbehaviour(what)


def parser(
    name: str,
    samples: Sequence[bytes],
    parse: Callable[[bytes], ValueT],
    refusals: type[Exception] | tuple[type[Exception], ...],
    check: Callable[[ValueT, bytes], None] | None = None,
    repair: Callable[[random.Random, bytes], bytes] | None = None,
) -> Target:
    """A target that mutates `samples` and reads the result.

    refusals: the exceptions by which `parse` may refuse. `check` looks at what was read, and from what, and raises
    when it should not have been. `repair` makes half of the mutated inputs consistent again (lengths, checksums), so
    that they get past the first gate.
    """

    def play(rng: random.Random) -> None:
        data = mutate(rng, samples)
        if repair is not None and rng.random() < 0.5:
            data = repair(rng, data)
        try:
            value = parse(data)
        except refusals:
            return
        except Exception as error:
            raise Misbehaviour(f"{error!r} on {show(data)}") from error
        if check is not None:
            try:
                check(value, data)
            except Exception as error:
                raise Misbehaviour(f"{error!r} after reading {show(data)}") from error

    return Target(name, play)


def show(data: bytes) -> str:
    """Input as a finding shows it."""
    rest = f"… ({len(data)} bytes)" if len(data) > _SHOWN else ""
    return f"bytes.fromhex({data[:_SHOWN].hex()!r}){rest}"
