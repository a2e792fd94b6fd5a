"""Codes as people type them, what comes through a mailbox, and what is then said by it."""

from __future__ import annotations

import copy
import random

import msgspec

from fuzz.target import parser, require
from quice.cli.codes import Fetch, Files, Name, _expect, _Payload
from quice.cli.runner import UsageError
from quice.errors import InvalidCodeError, WrongCodeError
from quice.identity import Identity
from quice.peers import PeerBook, checked_name
from quice.signal.codes import Code
from quice.signal.pairing import Claimant, Opener, Settled
from quice.signal.words import FIRST, SECOND
from quice.ticket import Ticket

_CODES = (b"7-crossover-clockwork", b"999999 yesterday zipper", b"12_Abacus_ACORN", "7 – Oven: Ebony!".encode())
_ALICE, _BOB = (Identity(bytes([number]) * 32).peer for number in (1, 2))
_PASSWORD = b"crossover-clockwork"
_OPENER = Opener(_PASSWORD, _ALICE, b"of the opener", random.Random(1))
_FRESH = copy.copy(_OPENER._spake)
"""An exchange is for one answer: each answer gets a copy."""
_CLAIMANT = Claimant(_PASSWORD, 7, _BOB, _ALICE, _OPENER.greeting, b"of the claimant", random.Random(2))
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


def _settle(data: bytes) -> Settled:
    _OPENER._spake = copy.copy(_FRESH)
    return _OPENER.settle(7, _BOB, data)


def _check_settled(settled: Settled, data: bytes) -> None:
    require(data == _CLAIMANT.answer and settled.payload == b"of the claimant", "an answer of who knows no words")


def _claim(data: bytes) -> Claimant:
    return Claimant(_PASSWORD, 7, _BOB, _ALICE, data, b"", random.Random(3))


def _check_claimant(claimant: Claimant, data: bytes) -> None:
    """Any point of the curve will do for a greeting: that it is of who knows the words, the reply shows."""
    require(len(data) == len(_OPENER.greeting), "a greeting of another length")
    try:
        claimant.finish(_REPLY)
    except WrongCodeError:
        return
    require(False, "a reply of another exchange")


def _check_payload(payload: _Payload, data: bytes) -> None:
    """It leads to a ticket, or to a name that may be stored."""
    match payload:
        case Files(secret=secret):
            Ticket(_ALICE, "ws://192.0.2.1:4780", secret)
        case Name(name=name):
            checked_name(PeerBook("/nonexistent").free_name(name))
        case _:
            pass


_PAYLOADS = tuple(map(msgspec.msgpack.encode, (Files(secret=bytes(16)), Fetch(), Name(name="laptop"))))


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
    parser("code-answer", (_CLAIMANT.answer,), _settle, WrongCodeError, _check_settled),
    parser("code-greeting", (_OPENER.greeting,), _claim, WrongCodeError, _check_claimant),
    parser("code-payload", _PAYLOADS, lambda data: _expect(data, _Payload), UsageError, _check_payload),
)
