"""Two peers with the same words, and everybody who may be between them."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from quice.errors import WrongCodeError
from quice.identity import Identity, PeerId
from quice.signal.pairing import MAX_PAYLOAD, Claimant, Opener
from quice.signal.protocol import MAX_MAILBOX_BODY

ALICE, BOB, EVE = (Identity(bytes([number]) * 32).peer for number in range(3))
WORDS, NUMBER = b"crossover-clockwork", 7


def opener(password: bytes = WORDS, peer: PeerId = ALICE, payload: bytes = b"of alice", seed: int = 1) -> Opener:
    return Opener(password, peer, payload, random.Random(seed))


def claimant(
    greeting: bytes,
    password: bytes = WORDS,
    number: int = NUMBER,
    peer: PeerId = BOB,
    opener: PeerId = ALICE,
    payload: bytes = b"of bob",
) -> Claimant:
    return Claimant(password, number, peer, opener, greeting, payload, random.Random(2))


def test_who_knows_the_words_gets_what_the_other_side_has_to_say() -> None:
    alice = opener()
    bob = claimant(alice.greeting)
    reply, of_bob = alice.settle(NUMBER, BOB, bob.answer)
    assert of_bob == b"of bob"
    assert bob.finish(reply) == b"of alice"


@pytest.mark.parametrize("size", [0, MAX_PAYLOAD])
def test_what_they_say_fits_in_a_mailbox(size: int) -> None:
    alice = opener(payload=bytes(size))
    bob = claimant(alice.greeting, payload=bytes(size))
    reply, of_bob = alice.settle(NUMBER, BOB, bob.answer)
    assert bob.finish(reply) == of_bob == bytes(size)
    assert max(map(len, (alice.greeting, bob.answer, reply))) <= MAX_MAILBOX_BODY
    with pytest.raises(ValueError, match="256"):
        opener(payload=bytes(MAX_PAYLOAD + 1))
    with pytest.raises(ValueError, match="256"):
        claimant(alice.greeting, payload=bytes(MAX_PAYLOAD + 1))


def test_nobody_between_them_can_read_it_and_no_exchange_is_like_another() -> None:
    alice, again = opener(seed=1), opener(seed=3)
    bob = claimant(alice.greeting)
    reply, _ = alice.settle(NUMBER, BOB, bob.answer)
    assert alice.greeting != again.greeting
    for body in (alice.greeting, bob.answer, reply):
        assert WORDS not in body
        assert b"of alice" not in body
        assert b"of bob" not in body


def test_a_wrong_guess_is_noticed_by_the_opener_first_which_then_says_nothing() -> None:
    alice = opener()
    eve = claimant(alice.greeting, password=b"crossover-clover", peer=EVE)
    with pytest.raises(WrongCodeError):
        alice.settle(NUMBER, EVE, eve.answer)


def test_an_opener_who_does_not_know_the_words_is_noticed_too() -> None:
    """The server, which answers in the place of the opener."""
    eve = opener(password=b"crossover-clover", peer=EVE)
    bob = claimant(eve.greeting, opener=EVE)
    with pytest.raises(WrongCodeError):
        eve.settle(NUMBER, BOB, bob.answer)
    for reply in (b"", bytes(16), bob.answer[33:], eve.greeting):
        with pytest.raises(WrongCodeError):
            bob.finish(reply)


LIES: dict[str, tuple[Callable[[bytes], Claimant], PeerId, int]] = {
    "the claimant is another peer": (lambda greeting: claimant(greeting), EVE, NUMBER),
    "the opener is another peer": (lambda greeting: claimant(greeting, opener=EVE), BOB, NUMBER),
    "both are exchanged": (lambda greeting: claimant(greeting, peer=ALICE, opener=BOB), BOB, NUMBER),
    "it is another mailbox": (lambda greeting: claimant(greeting, number=8), BOB, NUMBER),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_server_that_lies_about_who_is_who_is_noticed_by_both(lie: str) -> None:
    make, told, number = LIES[lie]
    alice = opener()
    bob = make(alice.greeting)
    with pytest.raises(WrongCodeError):
        alice.settle(number, told, bob.answer)
    # Another opener, who has settled truly with the same words, does not fit either.
    other = opener(seed=5)
    reply, _ = other.settle(NUMBER, BOB, claimant(other.greeting).answer)
    with pytest.raises(WrongCodeError):
        bob.finish(reply)


def test_no_byte_of_an_answer_or_a_reply_can_be_changed_unseen() -> None:
    alice = opener()
    bob = claimant(alice.greeting)
    for position in range(len(bob.answer)):
        for bit in (1, 0x80):
            changed = bytearray(bob.answer)
            changed[position] ^= bit
            with pytest.raises(WrongCodeError):
                opener().settle(NUMBER, BOB, bytes(changed))
    reply, _ = alice.settle(NUMBER, BOB, bob.answer)
    for position in range(len(reply)):
        changed = bytearray(reply)
        changed[position] ^= 1
        with pytest.raises(WrongCodeError):
            bob.finish(bytes(changed))
    assert bob.finish(reply) == b"of alice"


def test_no_byte_of_a_greeting_can_be_changed_unseen() -> None:
    greeting = opener().greeting
    for position in range(len(greeting)):
        changed = bytearray(greeting)
        changed[position] ^= 1
        with pytest.raises(WrongCodeError):
            opener().settle(NUMBER, BOB, claimant(bytes(changed)).answer)


@pytest.mark.parametrize("cut", [0, 1, 32, 33, 34, 48])
def test_what_is_cut_short_or_longer_is_wrong(cut: int) -> None:
    alice = opener()
    bob = claimant(alice.greeting)
    with pytest.raises(WrongCodeError):
        opener().settle(NUMBER, BOB, bob.answer[:cut])
    with pytest.raises(WrongCodeError):
        opener().settle(NUMBER, BOB, bob.answer + bytes(MAX_PAYLOAD))
    with pytest.raises(WrongCodeError):
        claimant(alice.greeting[: min(cut, 32)])
    with pytest.raises(WrongCodeError):
        claimant(alice.greeting + b"\0")


def test_nothing_that_one_side_said_can_be_reflected_to_it() -> None:
    alice = opener()
    bob = claimant(alice.greeting)
    mirrored = b"B" + alice.greeting[1:]
    for share in (alice.greeting, mirrored):
        with pytest.raises(WrongCodeError):
            opener().settle(NUMBER, ALICE, share + bob.answer[33:])
    with pytest.raises(WrongCodeError):
        bob.finish(bob.answer[33:])
    with pytest.raises(WrongCodeError):
        claimant(bob.answer[:33])


# The neutral element, and points of order 2, 4 and 8: each would make the key known to whoever sends it.
SMALL = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
]


@pytest.mark.parametrize("point", SMALL)
def test_points_of_small_order_are_refused(point: str) -> None:
    with pytest.raises(WrongCodeError):
        claimant(b"A" + bytes.fromhex(point))
    with pytest.raises(WrongCodeError):
        opener().settle(NUMBER, BOB, b"B" + bytes.fromhex(point) + bytes(16))


def test_an_answer_of_another_exchange_with_the_same_words_is_wrong() -> None:
    bob = claimant(opener(seed=1).greeting)
    with pytest.raises(WrongCodeError):
        opener(seed=3).settle(NUMBER, BOB, bob.answer)


class Always:
    """The randomness of the vector below: one octet, again and again."""

    def __init__(self, octet: int) -> None:
        self.octet = octet

    def getrandbits(self, k: int, /) -> int:
        return int.from_bytes(bytes([self.octet]) * (k // 8), "big")


def test_an_exchange_is_what_it_was_to_the_byte() -> None:
    """What another implementation can be compared with: `docs/rendezvous.md` has it, too."""
    first, second = (Identity(bytes([octet]) * 32).peer for octet in (1, 2))
    alice = Opener(WORDS, first, b"of the opener", Always(1))
    bob = Claimant(WORDS, NUMBER, second, first, alice.greeting, b"of the claimant", Always(2))
    assert alice.greeting.hex() == "419c83f790a88b1f745e83dbe31b5f96ab5239b2dbdc57a492a7b0b1245e5ef4fb"
    assert bob.answer.hex() == (
        "42f88492dbc231fc225966401db3175b40e58c045c2eeb14ec2a1b6757edd85e06"
        "286cdb38b39aee1c181d34835955e155c69f82ed9bf50195197e4d25d68e18"
    )
    reply, payload = alice.settle(NUMBER, second, bob.answer)
    assert reply.hex() == "7a7ff2e741c965c6ff8b42d54463ae4925897376f80f46f647584c07cc"
    assert (payload, bob.finish(reply)) == (b"of the claimant", b"of the opener")
