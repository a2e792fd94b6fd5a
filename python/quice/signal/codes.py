"""A code: the number of a mailbox, and two words that are the password to what is in it."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from quice.errors import InvalidCodeError
from quice.signal.protocol import MAX_MAILBOX
from quice.signal.words import FIRST, SECOND
from quice.wire import Random

_NUMBER = re.compile(f"[1-9][0-9]{{0,{len(str(MAX_MAILBOX)) - 1}}}")
_SEPARATORS = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Code:
    """What one person tells another: `7-crossover-clockwork`."""

    number: int
    words: tuple[str, str]

    @classmethod
    def parse(cls, text: str) -> Code:
        """Read a code as people type it: in any case, with spaces for dashes, and the words in any order.

        Raises `InvalidCodeError`, which says what is wrong with it, and which word may have been meant.
        """
        parts = [part for part in _SEPARATORS.split(text.lower()) if part]
        if not parts or not _NUMBER.fullmatch(parts[0]):
            raise InvalidCodeError(text, f"it begins with a number from 1 to {MAX_MAILBOX:,}")
        for word in parts[1:]:
            if word not in FIRST and word not in SECOND:
                raise InvalidCodeError(text, f"{word[:40]!r} is no word of a code{_perhaps(word)}")
        number, *words = parts
        if len(words) != 2:
            raise InvalidCodeError(text, "two words follow its number")
        if words[0] in SECOND:
            words.reverse()
        if words[0] not in FIRST or words[1] not in SECOND:
            raise InvalidCodeError(text, "these two words are never together")
        return cls(int(number), (words[0], words[1]))

    def __str__(self) -> str:
        return "-".join((str(self.number), *self.words))


def random_words(rng: Random) -> tuple[str, str]:
    """A pair of words, each pair as likely as any other."""
    return FIRST[rng.getrandbits(8)], SECOND[rng.getrandbits(8)]


def password_of(words: tuple[str, str]) -> bytes:
    """What both sides of a mailbox must know."""
    return "-".join(words).encode()


def _perhaps(word: str) -> str:
    """The word that may have been meant, in a question, if one is near."""
    near = difflib.get_close_matches(word[:40], FIRST + SECOND, 1)
    return f"; perhaps {near[0]!r}" if near else ""
