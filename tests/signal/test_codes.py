"""Codes as they are made, and as people type them."""

from __future__ import annotations

import itertools
import random
import re

import pytest

from quice.errors import InvalidCodeError
from quice.signal.codes import Code, random_words
from quice.signal.words import FIRST, SECOND

CODE = Code(7, ("crossover", "clockwork"))


def distance(one: str, other: str) -> int:
    """In how many letters two words differ (Levenshtein)."""
    before = list(range(len(other) + 1))
    for row, letter in enumerate(one, 1):
        now = [row]
        for column, theirs in enumerate(other, 1):
            now.append(min(before[column] + 1, now[-1] + 1, before[column - 1] + (letter != theirs)))
        before = now
    return before[-1]


def test_there_are_256_words_of_each_kind_and_none_in_both() -> None:
    assert len(FIRST) == len(SECOND) == 256
    assert len({*FIRST, *SECOND}) == 512
    assert all(re.fullmatch("[a-z]{4,11}", word) for word in FIRST + SECOND)


def test_any_two_words_differ_in_three_letters_or_more() -> None:
    assert min(distance(*pair) for pair in itertools.combinations(FIRST + SECOND, 2)) >= 3


@pytest.mark.parametrize("words", [FIRST, SECOND])
def test_four_letters_tell_a_word_from_the_others(words: tuple[str, ...]) -> None:
    assert len({word[:4] for word in words}) == 256


def test_each_pair_of_words_is_as_likely_as_any_other() -> None:
    class Counting:
        """Each number of 16 bits once, eight bits at a time."""

        bits = itertools.chain.from_iterable(itertools.product(range(256), range(256)))

        def getrandbits(self, k: int, /) -> int:
            assert k == 8
            return next(self.bits)

    rng = Counting()
    assert len({random_words(rng) for _ in range(1 << 16)}) == 1 << 16


def test_a_code_is_read_as_it_is_written() -> None:
    assert str(CODE) == "7-crossover-clockwork"
    rng = random.Random(1)
    for _ in range(100):
        code = Code(1 + rng.randrange(999_999), random_words(rng))
        assert Code.parse(str(code)) == code


@pytest.mark.parametrize(
    "text",
    [
        " 7-crossover-clockwork\n",
        "7 crossover clockwork",
        "7-Crossover-CLOCKWORK",
        "7_crossover.clockwork",
        "7 – crossover – clockwork",
        "7--crossover, clockwork!",
        "7-clockwork-crossover",
    ],
)
def test_people_may_type_it_as_they_hear_it(text: str) -> None:
    assert Code.parse(text) == CODE


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "begins with a number"),
        ("crossover-clockwork", "begins with a number"),
        ("0-crossover-clockwork", "begins with a number"),
        ("007-crossover-clockwork", "begins with a number"),
        ("1000000-crossover-clockwork", "begins with a number"),
        ("٧-crossover-clockwork", "begins with a number"),
        ("7", "two words"),
        ("7-crossover", "two words"),
        ("7-crossover-clockwork-crossover", "two words"),
        ("7-crossover-crossover", "never together"),
        ("7-clockwork-clockwork", "never together"),
        ("7-crosover-clockwork", "perhaps 'crossover'"),
        ("7-crossover-clokwerk", "perhaps 'clockwork'"),
        ("7-crossover-xxxxxxxx", "'xxxxxxxx' is no word of a code)"),
        ("7-" + "x" * 10_000, "no word of a code"),
    ],
)
def test_who_mistypes_it_is_told_what_is_wrong(text: str, why: str) -> None:
    with pytest.raises(InvalidCodeError, match=re.escape(why)) as error:
        Code.parse(text)
    assert len(str(error.value)) < 400
