"""Codes as people type them, and what comes through a mailbox."""

from __future__ import annotations

import random

from fuzz.target import parser, require
from quice.errors import InvalidCodeError, WrongCodeError
from quice.identity import Identity
from quice.signal.codes import Code
from quice.signal.pairing import Claimant, Opener
from quice.signal.words import FIRST, SECOND

_CODES = (b"7-crossover-clockwork", b"999999 yesterday zipper", b"12_Abacus_ACORN", "7 – Oven: Ebony!".encode())
_ALICE, _BOB = (Identity(bytes([number]) * 32).peer for number in (1, 2))
_OPENER = Opener(b"crossover-clockwork", _ALICE, b"of the opener", random.Random(1))
_CLAIMANT = Claimant(b"crossover-clockwork", 7, _BOB, _ALICE, _OPENER.greeting, b"of the claimant", random.Random(2))
_REPLY = _OPENER.settle(7, _BOB, _CLAIMANT.answer).reply


def _right_words(rng: random.Random, data: bytes) -> bytes:
    """Words that there are, with what was read between them."""
    words = [rng.choice(FIRST + SECOND) for _ in range(rng.randrange(4))]
    return data[:1].join([str(rng.randrange(2_000_000)).encode(), *(word.encode() for word in words)])


def _check_code(code: Code, data: bytes) -> None:
    require(Code.parse(str(code)) == code, "a code changed on its way through its text")
    require(str(code).isascii() and str(code).isprintable(), "a code that can't be said")


def _check_reply(payload: bytes, data: bytes) -> None:
    require(data == _REPLY and payload == b"of the opener", "a reply that the opener has not written")


TARGETS = (
    parser(
        "code",
        _CODES,
        lambda data: Code.parse(data.decode("utf-8", "surrogateescape")),
        InvalidCodeError,
        _check_code,
        _right_words,
    ),
    parser("code-reply", (_REPLY,), _CLAIMANT.finish, WrongCodeError, _check_reply),
)
