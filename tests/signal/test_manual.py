"""Offers and answers as texts that people copy."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quice.errors import DescriptionError, SignallingClosedError
from quice.ice.candidate import Candidate, CandidateKind, priority
from quice.identity import PeerId
from quice.signal import manual
from quice.signal.manual import MAX_ALPN, MAX_TEXT, ManualSignalling, WrittenAnswer, WrittenOffer
from quice.signal.messages import Answer, Bye, CandidateFound, EndOfCandidates, Offer
from quice.wire import Address

PEER = PeerId(bytes(range(32)))
UFRAG, PWD = "0123abcd", "0123456789abcdef" * 2
HOST, SRFLX, PRFLX, RELAY = CandidateKind


def candidate(
    kind: CandidateKind, host: str, port: int = 40000, preference: int = 65535, foundation: str = "0"
) -> Candidate:
    return Candidate(kind=kind, address=Address(host, port), priority=priority(kind, preference), foundation=foundation)


TYPICAL = (
    candidate(HOST, "2001:db8:1:2:3:4:5:6", preference=65535, foundation="0"),
    candidate(HOST, "fd00:1:2:3:4:5:6:7", preference=65534, foundation="1"),
    candidate(HOST, "192.168.1.17", preference=65533, foundation="2"),
    candidate(HOST, "10.8.0.3", preference=65532, foundation="3"),
    candidate(SRFLX, "203.0.113.9", port=61234, preference=65533, foundation="4"),
    candidate(RELAY, "198.51.100.7", port=50111, preference=65535, foundation="5"),
)
OFFER = Offer(version=1, ufrag=UFRAG, pwd=PWD, alpn="chat/1", pacing=5, renomination=True, candidates=TYPICAL)
ANSWER = Answer(ufrag=UFRAG, pwd=PWD, lite=True, candidates=TYPICAL[:1])
WRITTEN = WrittenOffer(PEER, OFFER)
TEXT = str(WRITTEN)

hosts = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).filter(lambda ip: ip.ipv4_mapped is None and ip.scope_id is None).map(str),
)
candidates = st.lists(
    st.builds(
        candidate,
        st.sampled_from(CandidateKind),
        hosts,
        st.integers(1, 65535),
        st.integers(0, 65535),
        st.integers(0, 9).map(str),
    ),
    max_size=20,
).map(tuple)
offers = st.builds(
    Offer,
    version=st.just(1),
    ufrag=st.binary(min_size=4, max_size=4).map(bytes.hex),
    pwd=st.binary(min_size=16, max_size=16).map(bytes.hex),
    alpn=st.text(min_size=1, max_size=40).filter(lambda text: text.isprintable() and len(text.encode()) <= MAX_ALPN),
    lite=st.booleans(),
    renomination=st.booleans(),
    pacing=st.integers(1, 1000),
    candidates=candidates,
)


def groups(candidates: tuple[Candidate, ...]) -> list[set[int]]:
    """Which of them share a foundation."""
    names = [each.foundation for each in candidates]
    return [{index for index, name in enumerate(names) if name == each} for each in names]


def test_what_is_written_is_read() -> None:
    assert WrittenOffer.parse(TEXT) == WRITTEN
    answer = WrittenAnswer(PEER, ANSWER, WRITTEN.tag)
    assert WrittenAnswer.parse(str(answer)) == answer


def test_six_candidates_fit_with_room_to_spare() -> None:
    assert len(TEXT) == 232
    assert len(WrittenOffer.parse(TEXT).offer.candidates) == 6


@given(offers)
def test_every_offer_is_written_in_a_chat_line_and_read_again(offer: Offer) -> None:
    text = str(WrittenOffer(PEER, offer))
    assert len(text) <= MAX_TEXT
    assert text.isalnum()
    read = WrittenOffer.parse(text).offer
    assert msgspec.structs.replace(read, candidates=()) == msgspec.structs.replace(offer, candidates=())
    told = [msgspec.structs.replace(each, foundation="0") for each in offer.candidates]
    for each in read.candidates:
        assert msgspec.structs.replace(each, foundation="0") in told
    if len({each.foundation for each in offer.candidates}) == len(offer.candidates) <= 4:
        assert len({each.foundation for each in read.candidates}) == len(read.candidates)


def test_foundations_that_are_equal_stay_so() -> None:
    shared = tuple(msgspec.structs.replace(each, foundation=name) for each, name in zip(TYPICAL, "aabbcc", strict=True))
    read = WrittenOffer.parse(str(WrittenOffer(PEER, msgspec.structs.replace(OFFER, candidates=shared)))).offer
    assert groups(read.candidates) == groups(shared)


def test_of_too_many_candidates_the_best_of_each_kind_and_family_are_kept() -> None:
    hosts = [candidate(HOST, f"2001:db8:1::{n + 1:x}", preference=65535 - n) for n in range(40)]
    others = [candidate(SRFLX, "203.0.113.9"), candidate(RELAY, "198.51.100.7"), candidate(HOST, "10.0.0.1")]
    text = str(WrittenOffer(PEER, msgspec.structs.replace(OFFER, candidates=(*hosts, *others))))
    kept = WrittenOffer.parse(text).offer.candidates
    assert len(text) <= MAX_TEXT
    assert set(others) < set(kept)
    assert [each for each in kept if each not in others] == hosts[: len(kept) - 3]
    assert list(kept) == sorted(kept, key=lambda each: -each.priority)


@pytest.mark.parametrize(
    "copied",
    [TEXT.upper(), f"  {TEXT}\n", "\n".join(TEXT[start : start + 40] for start in range(0, len(TEXT), 40))],
    ids=["capitals", "spaces", "lines"],
)
def test_what_copying_does_to_a_text_does_no_harm(copied: str) -> None:
    assert WrittenOffer.parse(copied) == WRITTEN


def test_every_mistyped_character_is_noticed() -> None:
    for position in range(len(TEXT)):
        for other in "a7":
            mistyped = TEXT[:position] + other + TEXT[position + 1 :]
            if mistyped != TEXT:
                with pytest.raises(DescriptionError):
                    WrittenOffer.parse(mistyped)


def test_every_text_that_is_cut_off_is_noticed() -> None:
    for length in range(len(TEXT)):
        with pytest.raises(DescriptionError):
            WrittenOffer.parse(TEXT[:length])


def test_an_offer_where_an_answer_belongs_is_told_so() -> None:
    with pytest.raises(DescriptionError, match="it is an offer"):
        WrittenAnswer.parse(TEXT)
    with pytest.raises(DescriptionError, match="it is an answer"):
        WrittenOffer.parse(str(WrittenAnswer(PEER, ANSWER, WRITTEN.tag)))
    with pytest.raises(DescriptionError, match="does not begin"):
        WrittenOffer.parse("hello")


def forged(change: bytes, position: int) -> str:
    """The offer with other bytes at this place, and a checksum that is right."""
    body = manual.content(manual.OFFER, TEXT)
    return manual.spelt(manual.OFFER, body[:position] + change + body[position + len(change) :])


@pytest.mark.parametrize(
    ("change", "position", "reason"),
    [
        pytest.param(b"\x02", 0, "version 2", id="a later version"),
        pytest.param(b"\0\0", 2, "pacing", id="no pace"),
        pytest.param(b"\0" * 10 + b"\xff\xff\x7f\0\0\1", 64, "address", id="an IPv4-mapped address"),
        pytest.param(b"\0\0", 80, "port", id="no port"),
        pytest.param(b"\xff", 56, "too early", id="an alpn longer than the text"),
        pytest.param(b"\xff", 57, "alpn", id="an alpn that is no text"),
    ],
)
def test_what_no_peer_may_say_is_refused(change: bytes, position: int, reason: str) -> None:
    with pytest.raises(DescriptionError, match=reason):
        WrittenOffer.parse(forged(change, position))


def test_an_offer_of_no_application_protocol_is_refused() -> None:
    with pytest.raises(DescriptionError, match="alpn"):
        WrittenOffer.parse(str(WrittenOffer(PEER, msgspec.structs.replace(OFFER, alpn=""))))


@given(st.text(max_size=400))
def test_no_text_does_more_than_being_refused(text: str) -> None:
    for beginning in ("", "quiceoffer1", "quiceanswer1"):
        with pytest.raises(DescriptionError):
            WrittenOffer.parse(beginning + text)
        with pytest.raises(DescriptionError):
            WrittenAnswer.parse(beginning + text)


async def test_a_description_is_carried_and_nothing_after_it() -> None:
    signalling = ManualSignalling()
    await signalling.send(OFFER)
    await signalling.send(CandidateFound(candidate=TYPICAL[0]))
    await signalling.send(Bye())
    assert await signalling.said == OFFER
    signalling.bring(ANSWER)
    assert [await signalling.receive(), await signalling.receive()] == [ANSWER, EndOfCandidates()]
    waiting = asyncio.create_task(signalling.receive())
    await signalling.close()
    for receiving in (waiting, signalling.receive()):
        with pytest.raises(SignallingClosedError):
            await receiving
