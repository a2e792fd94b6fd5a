"""What two peers say to each other: every message, and everything that is none."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from quice.ice.candidate import Candidate, CandidateKind
from quice.ice.generation import MAX_REMOTE_CANDIDATES
from quice.signal.messages import (
    MAX_MESSAGE,
    VERSION,
    Answer,
    Bye,
    CandidateFound,
    Description,
    EndOfCandidates,
    Establish,
    Message,
    Offer,
    Refuse,
    RefuseReason,
    Restart,
    SignalDecodeError,
    decode,
    encode,
    public,
)
from quice.wire import Address

UFRAG = "uF+/"
PWD = "0123456789abcdefABCDEF"
HOST = Candidate(kind=CandidateKind.HOST, address=Address("192.0.2.1", 4433), priority=2130706431, foundation="1a")
REFLEXIVE = Candidate(
    kind=CandidateKind.SERVER_REFLEXIVE,
    address=Address("2001:db8::1", 1),
    priority=1,
    foundation="a" * 32,
    related_address=Address("fd00::1", 65535),
)
OFFER = Offer(version=VERSION, ufrag=UFRAG, pwd=PWD, alpn="test/1", candidates=(HOST, REFLEXIVE))
RESTART = Restart(version=VERSION, ufrag=UFRAG, pwd=PWD, continues=b"the name", candidates=(HOST,))
MESSAGES: list[Message] = [
    OFFER,
    Offer(version=7, ufrag=UFRAG, pwd=PWD, alpn="é" * 127),
    RESTART,
    Restart(version=7, ufrag=UFRAG, pwd=PWD, continues=bytes(8), heard=("u" * 256, "abcd")),
    Answer(ufrag="u" * 256, pwd="p" * 256, candidates=(HOST,)),
    Answer(ufrag=UFRAG, pwd=PWD, lite=True, pacing=5, renomination=True),
    CandidateFound(candidate=REFLEXIVE),
    CandidateFound(candidate=HOST, ufrag=UFRAG),
    EndOfCandidates(),
    EndOfCandidates(ufrag=UFRAG),
    Refuse(reason=RefuseReason.ALPN),
    Refuse(reason=RefuseReason.BUSY, text="ask later"),
    Bye(),
]


def changed(message: Message, **values: Any) -> bytes:
    """The message as bytes, with fields that its class may not allow."""
    return msgspec.msgpack.encode(msgspec.to_builtins(message, builtin_types=(bytes,)) | values)


def with_candidate(**values: Any) -> bytes:
    """An offer of one candidate, with values that its class may not allow."""
    return changed(OFFER, candidates=[msgspec.to_builtins(HOST) | values])


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_arrives_as_it_was_sent(message: Message) -> None:
    assert decode(encode(message)) == message


def test_fields_of_a_later_version_are_ignored() -> None:
    assert decode(changed(OFFER, later="more")) == OFFER
    assert decode(with_candidate(later=1)) == msgspec.structs.replace(OFFER, candidates=(HOST,))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xc1", id="no MessagePack"),
        pytest.param(b"\x91" * 10_000, id="nested without end"),
        pytest.param(msgspec.msgpack.encode(["offer"]), id="no map"),
        pytest.param(msgspec.msgpack.encode({}), id="no type"),
        pytest.param(msgspec.msgpack.encode({"type": "invite"}), id="an unknown type"),
        pytest.param(encode(OFFER)[:-1], id="cut off"),
        pytest.param(encode(Bye()) + b"\0", id="with a tail"),
        pytest.param(encode(Bye()).replace(b"bye", b"b\xffe"), id="no UTF-8"),
        pytest.param(changed(Refuse(reason=RefuseReason.BUSY), text="x" * MAX_MESSAGE), id="too long"),
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(SignalDecodeError):
        decode(data)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", 0),
        ("version", -1),
        ("version", "1"),
        ("ufrag", "abc"),
        ("ufrag", "a" * 257),
        ("ufrag", "abc:"),
        ("ufrag", "abcd\n"),
        ("pwd", "a" * 21),
        ("pwd", "a" * 257),
        ("pwd", "ä" * 22),
        ("alpn", ""),
        ("alpn", "a" * 256),
        ("alpn", "é" * 128),
        ("candidates", None),
        ("candidates", [1]),
        ("candidates", [msgspec.to_builtins(HOST)] * (MAX_REMOTE_CANDIDATES + 1)),
    ],
)
def test_an_offer_is_checked_field_by_field(field: str, value: object) -> None:
    assert decode(changed(OFFER)) == OFFER
    with pytest.raises(SignalDecodeError):
        decode(changed(OFFER, **{field: value}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", 0),
        ("ufrag", "abc"),
        ("pwd", "a" * 21),
        ("candidates", [{}]),
        ("continues", None),
        ("continues", b""),
        ("continues", bytes(7)),
        ("continues", bytes(9)),
        ("heard", "abcd"),
        ("heard", ["abc"]),
        ("heard", ["abcd", "a" * 257]),
        ("heard", ["abcd"] * 5),
    ],
)
def test_a_restart_is_checked_field_by_field(field: str, value: object) -> None:
    assert decode(changed(RESTART)) == RESTART
    with pytest.raises(SignalDecodeError):
        decode(changed(RESTART, **{field: value}))


@pytest.mark.parametrize(("field", "value"), [("ufrag", "a"), ("pwd", "a"), ("candidates", [{}])])
def test_an_answer_is_checked_as_an_offer_is(field: str, value: object) -> None:
    answer = Answer(ufrag=UFRAG, pwd=PWD)
    assert decode(changed(answer)) == answer
    with pytest.raises(SignalDecodeError):
        decode(changed(answer, **{field: value}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "tcp"),
        ("priority", 0),
        ("priority", 1 << 31),
        ("foundation", ""),
        ("foundation", "a" * 33),
        ("foundation", "a b"),
        ("component", 2),
        ("component", 0),
        ("base", ["192.0.2.1", 4433]),
        ("address", None),
        ("address", ["192.0.2.1"]),
        ("address", ["192.0.2.1", 0]),
        ("address", ["192.0.2.1", 65536]),
        ("address", ["192.0.2.1", -1]),
        ("address", ["", 1]),
        ("address", ["example.org", 1]),
        ("address", ["192.0.2.1\0", 1]),
        ("address", ["192.0.2.01", 1]),
        ("address", ["1", 1]),
        ("related_address", ["example.org", 1]),
        ("related_address", ["192.0.2.1", 0]),
    ],
)
def test_a_candidate_is_checked_field_by_field(field: str, value: object) -> None:
    assert isinstance(decode(with_candidate()), Offer)
    with pytest.raises(SignalDecodeError):
        decode(with_candidate(**{field: value}))
    found = changed(CandidateFound(candidate=HOST), candidate=msgspec.to_builtins(HOST) | {field: value})
    with pytest.raises(SignalDecodeError):
        decode(found)


@pytest.mark.parametrize("host", ["2001:DB8::1", "2001:db8:0::1", "2001:0db8::1", "[2001:db8::1]"])
def test_an_address_comes_in_the_form_that_packets_are_compared_in(host: str) -> None:
    with pytest.raises(SignalDecodeError):
        decode(with_candidate(address=[host, 1]))


@pytest.mark.parametrize("host", ["::ffff:192.0.2.1", "::ffff:c000:201"])
def test_rfc8445_5_1_1_1_an_ipv4_mapped_address_is_refused(host: str) -> None:
    with pytest.raises(SignalDecodeError):
        decode(with_candidate(address=[host, 1]))


@pytest.mark.parametrize("host", ["fe80::1%eth0", "fe80::1%" + "z" * 1000])
def test_rfc4007_6_a_zone_stays_on_its_machine(host: str) -> None:
    with pytest.raises(SignalDecodeError):
        decode(with_candidate(address=[host, 1]))
    link_local = Candidate(
        kind=CandidateKind.HOST,
        address=Address(host, 1),
        priority=1,
        foundation="1",
        related_address=Address(host, 2),
        base=Address(host, 1),
    )
    told = public(link_local)
    assert (told.address, told.related_address) == (Address("fe80::1", 1), Address("fe80::1", 2))
    assert decode(encode(CandidateFound(candidate=told))) == CandidateFound(candidate=told)


@pytest.mark.parametrize(("field", "value"), [("reason", "mood"), ("text", "a" * 257), ("text", "a\nb"), ("text", 1)])
def test_a_refusal_is_checked_field_by_field(field: str, value: object) -> None:
    with pytest.raises(SignalDecodeError):
        decode(changed(Refuse(reason=RefuseReason.BUSY), **{field: value}))


def test_a_candidate_is_told_without_its_base() -> None:
    assert public(msgspec.structs.replace(HOST, base=Address("10.0.0.1", 4433))) == HOST


def test_the_longest_correct_offer_fits_into_a_message() -> None:
    longest = msgspec.structs.replace(
        REFLEXIVE,
        address=Address("2001:db8:1111:2222:3333:4444:5555:6666", 65535),
        related_address=Address("2001:db8:1111:2222:3333:4444:5555:6666", 65535),
    )
    candidates = (longest,) * MAX_REMOTE_CANDIDATES
    offer = Offer(version=VERSION, ufrag="u" * 256, pwd="p" * 256, alpn="a" * 255, candidates=candidates)
    assert decode(encode(offer)) == offer


def test_a_message_that_no_peer_would_take_is_not_sent() -> None:
    with pytest.raises(ValueError, match="send fewer candidates"):
        encode(Offer(version=VERSION, ufrag=UFRAG, pwd=PWD, alpn="a", candidates=(REFLEXIVE,) * 200))


def test_no_mutation_of_a_message_does_more_than_being_refused() -> None:
    rng = random.Random(3)
    seeds = [encode(message) for message in MESSAGES]
    taken = 0
    for _ in range(20_000):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            message = decode(bytes(data[: rng.randint(0, 2 * len(data))]))
        except SignalDecodeError:
            continue
        taken += 1
        assert decode(encode(message)) == message
    assert taken > 100


@pytest.mark.parametrize("message", [OFFER, RESTART, Answer(ufrag=UFRAG, pwd=PWD)])
def test_rfc8445_14_2_a_peer_that_says_nothing_of_itself_is_a_full_agent_with_the_default_pace(
    message: Message,
) -> None:
    plain = msgspec.msgpack.decode(encode(message))
    assert not {"lite", "pacing", "renomination"} & set(plain)
    read = decode(encode(message))
    assert isinstance(read, Description)
    assert (read.lite, read.pacing, read.renomination) == (False, 50, False)


@pytest.mark.parametrize("pacing", [-1, 0, 1001, 1 << 40])
def test_a_pace_that_would_stop_all_checks_or_flood_is_not_allowed(pacing: int) -> None:
    with pytest.raises(SignalDecodeError, match="pacing"):
        decode(changed(OFFER, pacing=pacing))


@pytest.mark.parametrize("message", [CandidateFound(candidate=HOST), EndOfCandidates()])
@pytest.mark.parametrize("ufrag", ["", "abc", "with space", "u" * 257])
def test_a_generation_is_named_by_a_ufrag(message: Message, ufrag: str) -> None:
    with pytest.raises(SignalDecodeError, match="ufrag"):
        decode(changed(message, ufrag=ufrag))


def test_an_offer_that_says_nothing_of_it_is_established_by_the_initiator() -> None:
    offer = decode(encode(Offer(version=1, ufrag="abcd", pwd="p" * 22, alpn="a")))
    assert isinstance(offer, Offer)
    assert offer.establish is Establish.INITIATOR


def test_a_way_of_establishing_that_is_not_known_yet_is_read_as_such() -> None:
    data = encode(Offer(version=1, ufrag="abcd", pwd="p" * 22, alpn="a", establish=Establish.SIMULTANEOUS))
    for name in (b"simultaneouz", b"SIMULTANEOUS"):
        offer = decode(data.replace(b"simultaneous", name))
        assert isinstance(offer, Offer)
        assert offer.establish is Establish.UNKNOWN
