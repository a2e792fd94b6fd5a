"""What is sealed is opened by the one it is for, as what its sender said in that session, and as nothing else."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quice.errors import InvalidPeerIdError
from quice.identity import Identity, PeerId
from quice.signal import protocol, seal
from quice.signal.messages import MAX_MESSAGE
from quice.signal.seal import Seal
from quice.signal.sequence import Envelope

ALICE, BOB, MALLORY = (Identity(bytes([number]) * 32) for number in (1, 2, 3))
SESSION = b"s" * protocol.SESSION_LENGTH


def one_side(us: Identity, peer: PeerId, session: bytes = SESSION, seed: int = 1) -> Seal:
    return Seal(us, peer, session, random.Random(seed))


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=2000))
def test_what_is_sealed_is_opened_by_the_other_side(text: bytes) -> None:
    near, far = one_side(ALICE, BOB.peer), one_side(BOB, ALICE.peer)
    sealed = near.seal(text)
    assert len(sealed) == len(text) + seal.OVERHEAD
    assert far.open(sealed) == text
    assert near.open(far.seal(text)) == text


def test_the_same_text_is_sealed_to_other_bytes_each_time_and_to_the_same_by_the_same_randomness() -> None:
    near = one_side(ALICE, BOB.peer)
    first = near.seal(b"text")
    assert near.seal(b"text") != first
    assert one_side(ALICE, BOB.peer).seal(b"text") == first


def test_nothing_of_the_text_can_be_read() -> None:
    assert b"secret" not in one_side(ALICE, BOB.peer).seal(b"secret" * 10)


def test_no_byte_can_be_changed_left_out_or_added() -> None:
    sealed, far = one_side(ALICE, BOB.peer).seal(b"text"), one_side(BOB, ALICE.peer)
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        assert far.open(bytes(changed)) is None
        assert far.open(sealed[:place]) is None
    assert far.open(sealed + b"\0") is None


def test_it_is_opened_by_nobody_else_as_from_nobody_else_in_no_other_session_and_not_by_its_sender() -> None:
    sealed = one_side(ALICE, BOB.peer).seal(b"text")
    assert one_side(BOB, ALICE.peer).open(sealed) == b"text"
    assert one_side(MALLORY, ALICE.peer).open(sealed) is None
    assert one_side(BOB, MALLORY.peer).open(sealed) is None
    assert one_side(BOB, ALICE.peer, b"t" * protocol.SESSION_LENGTH).open(sealed) is None
    assert one_side(ALICE, BOB.peer).open(sealed) is None


class Forger(Identity):
    """Somebody who claims to be a peer whose key they don't have."""

    def __init__(self, claimed: PeerId) -> None:
        super().__init__(MALLORY.secret_key)
        self.peer = claimed


def test_who_knows_both_peer_ids_and_the_session_still_can_t_speak_for_the_sender() -> None:
    # All that encryption needs is public: what keeps Mallory out is the signature.
    forged = one_side(Forger(ALICE.peer), BOB.peer).seal(b"text")
    assert one_side(BOB, ALICE.peer).open(forged) is None


def test_what_was_sealed_to_one_can_t_be_passed_on_to_another_by_them() -> None:
    class Relayed(Identity):
        """Bob, who puts the signature that Alice made for him where his own belongs."""

        def __init__(self) -> None:
            super().__init__(BOB.secret_key)
            self.peer = ALICE.peer

        def sign(self, message: bytes) -> bytes:
            return kept

    kept = ALICE.sign(one_side(ALICE, BOB.peer)._outward + b"text")
    assert one_side(BOB, ALICE.peer).open(one_side(Relayed(), BOB.peer).seal(b"text")) == b"text"
    carol = Identity.generate()
    assert one_side(carol, ALICE.peer).open(one_side(Relayed(), carol.peer).seal(b"text")) is None


@pytest.mark.parametrize("length", [0, 1, 31, 32, 47, 48, 63, 64, 111, 112, 5000])
def test_noise_of_any_length_opens_to_nothing(length: int) -> None:
    assert one_side(BOB, ALICE.peer).open(random.Random(1).randbytes(length)) is None


def test_what_is_sealed_without_room_for_a_signature_opens_to_nothing() -> None:
    class Terse(Identity):
        def sign(self, message: bytes) -> bytes:
            return b""

    assert one_side(BOB, ALICE.peer).open(one_side(Terse(ALICE.secret_key), BOB.peer).seal(b"x" * 63)) is None


def test_nothing_is_sealed_to_a_peer_whose_id_is_no_key() -> None:
    for key in (bytes(32), b"\x01" + bytes(31), b"\xff" * 32):
        with pytest.raises(InvalidPeerIdError):
            one_side(ALICE, PeerId(key))


def test_the_largest_message_in_the_largest_envelope_fits_a_body_once_it_is_sealed() -> None:
    largest = (1 << 32) - 1
    envelope = msgspec.msgpack.encode(Envelope(largest, largest, bytes(MAX_MESSAGE)))
    assert len(one_side(ALICE, BOB.peer).seal(envelope)) <= protocol.MAX_BODY
