"""Which message each side of a session may send when, and what becomes of everything else."""

from __future__ import annotations

from collections import deque

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quice.ice.candidate import Candidate, CandidateKind
from quice.signal.messages import (
    Answer,
    Bye,
    CandidateFound,
    EndOfCandidates,
    Message,
    Offer,
    Refuse,
    RefuseReason,
    Restart,
)
from quice.signal.session import MAX_CANDIDATES, MAX_MESSAGES, MOVES, SENDS, Exchange, Side, State, Verdict
from quice.wire import Address

PWD = "0123456789abcdefABCDEF"
HOST = Candidate(kind=CandidateKind.HOST, address=Address("192.0.2.1", 4433), priority=1, foundation="1")
OFFER = Offer(version=1, ufrag="aaaa", pwd=PWD, alpn="test/1", candidates=(HOST,))
RESTART = Restart(version=1, ufrag="aaaa", pwd=PWD, continues=bytes(8))
ANSWER = Answer(ufrag="bbbb", pwd=PWD)
REFUSE = Refuse(reason=RefuseReason.BUSY)
FOUND, END, BYE = CandidateFound(candidate=HOST), EndOfCandidates(), Bye()
ALL: list[Message] = [OFFER, RESTART, ANSWER, REFUSE, FOUND, END, BYE]
INITIATING, RESPONDING = Side

WAYS: dict[tuple[Side, State], list[tuple[Side, Message]]] = {
    (INITIATING, State.IDLE): [],
    (INITIATING, State.TELLING): [(INITIATING, OFFER)],
    (INITIATING, State.TOLD): [(INITIATING, RESTART), (INITIATING, END)],
    (INITIATING, State.GONE): [(INITIATING, OFFER), (INITIATING, BYE)],
    (RESPONDING, State.IDLE): [],
    (RESPONDING, State.ASKED): [(INITIATING, OFFER)],
    (RESPONDING, State.TELLING): [(INITIATING, OFFER), (RESPONDING, ANSWER)],
    (RESPONDING, State.TOLD): [(INITIATING, OFFER), (RESPONDING, ANSWER), (RESPONDING, END)],
    (RESPONDING, State.GONE): [(INITIATING, OFFER), (RESPONDING, REFUSE)],
}
"""How a side comes to be in each of its states."""

MESSAGES = st.one_of(
    st.sampled_from(ALL),
    st.builds(lambda ufrag: msgspec.structs.replace(ANSWER, ufrag=ufrag), st.sampled_from(["cccc", "dddd"])),
    st.builds(lambda count: msgspec.structs.replace(OFFER, candidates=(HOST,) * count), st.integers(0, 64)),
    st.builds(lambda port: CandidateFound(candidate=candidate(port)), st.integers(1, 9)),
)


def candidate(port: int) -> Candidate:
    return msgspec.structs.replace(HOST, address=Address("192.0.2.1", port))


def seen_from(side: Side, said: list[tuple[Side, Message]]) -> Exchange:
    """One side's view when all this has been said."""
    exchange = Exchange(side)
    for speaker, message in said:
        if speaker is side:
            exchange.send(message)
        else:
            assert exchange.receive(message) is Verdict.TAKE
    return exchange


@pytest.mark.parametrize("message", ALL, ids=lambda message: type(message).__name__)
@pytest.mark.parametrize(("speaker", "state"), WAYS, ids=lambda value: value.value)
def test_both_sides_go_by_the_table(speaker: Side, state: State, message: Message) -> None:
    said = WAYS[speaker, state]
    ours, theirs = seen_from(speaker, said), seen_from(speaker.other, said)
    assert (ours.state, theirs.state_of_peer) == (state, state)
    follows = SENDS[speaker][state].get(type(message))
    if follows is not None:
        assert ours.may_send(message)
        ours.send(message)
        assert theirs.receive(message) is Verdict.TAKE
        assert ours.state is theirs.state_of_peer is follows
        if (moved := MOVES.get(type(message))) is not None:
            assert ours.state_of_peer is theirs.state is moved
    else:
        assert not ours.may_send(message)
        with pytest.raises(ValueError, match="has no place"):
            ours.send(message)
        repeated = (speaker, message) in said
        over = state is State.GONE
        assert theirs.receive(message) is (Verdict.IGNORE if repeated or over else Verdict.END)
        assert ours.state is state


def test_every_state_that_the_table_leads_to_is_in_the_table() -> None:
    for side, states in SENDS.items():
        assert {state for speaker, state in WAYS if speaker is side} == set(states)
        for follows in states.values():
            assert set(follows.values()) <= set(states)


@pytest.mark.parametrize("description", [OFFER, RESTART, ANSWER])
def test_a_description_that_a_carrier_repeats_is_ignored_and_another_one_is_not(description: Message) -> None:
    if isinstance(description, Answer):
        exchange = seen_from(INITIATING, [(INITIATING, OFFER), (RESPONDING, description)])
    else:
        exchange = seen_from(RESPONDING, [(INITIATING, description)])
    assert exchange.receive(description) is Verdict.IGNORE
    assert exchange.receive(FOUND) is Verdict.TAKE
    assert exchange.receive(description) is Verdict.IGNORE
    other = msgspec.structs.replace(description, ufrag="other")  # type: ignore[type-var]
    assert exchange.receive(other) is Verdict.END
    assert exchange.receive(FOUND) is Verdict.IGNORE


def test_who_initiates_trickles_before_the_answer_and_who_responds_does_not() -> None:
    initiating = seen_from(INITIATING, [(INITIATING, OFFER), (INITIATING, FOUND), (INITIATING, END)])
    assert initiating.receive(FOUND) is Verdict.END


def test_a_network_that_changes_brings_candidates_after_the_end_and_another_end() -> None:
    exchange = seen_from(INITIATING, [(INITIATING, OFFER), (RESPONDING, ANSWER)])
    assert [exchange.receive(each) for each in (END, END, FOUND, END)] == [Verdict.TAKE] * 4


def test_what_was_sent_before_the_peer_knew_that_it_is_over_is_ignored() -> None:
    exchange = seen_from(INITIATING, [(INITIATING, OFFER), (RESPONDING, ANSWER), (INITIATING, BYE)])
    assert [exchange.receive(each) for each in (FOUND, END, BYE)] == [Verdict.IGNORE] * 3
    assert not exchange.may_send(BYE)


def test_nothing_follows_a_refusal() -> None:
    exchange = seen_from(INITIATING, [(INITIATING, OFFER), (RESPONDING, REFUSE)])
    assert exchange.state is State.GONE
    assert not any(exchange.may_send(message) for message in ALL)


def test_a_side_that_has_gone_may_still_be_said_goodbye_to() -> None:
    exchange = seen_from(RESPONDING, [(INITIATING, OFFER), (RESPONDING, ANSWER), (INITIATING, BYE)])
    assert exchange.may_send(BYE)


def test_more_candidates_than_the_budget_end_the_session_however_they_are_named() -> None:
    named = msgspec.structs.replace(OFFER, candidates=(HOST,) * 64)
    exchange = seen_from(RESPONDING, [(INITIATING, named)])
    verdicts = [exchange.receive(CandidateFound(candidate=candidate(port))) for port in range(1, MAX_CANDIDATES)]
    assert verdicts.count(Verdict.TAKE) == MAX_CANDIDATES - 64
    assert verdicts[MAX_CANDIDATES - 64] is Verdict.END
    assert set(verdicts[MAX_CANDIDATES - 64 + 1 :]) == {Verdict.IGNORE}


@pytest.mark.parametrize("repeated", [END, OFFER])
def test_more_messages_than_the_budget_end_the_session_even_those_that_are_ignored(repeated: Message) -> None:
    exchange = seen_from(RESPONDING, [(INITIATING, OFFER)])
    verdicts = [exchange.receive(repeated) for _ in range(MAX_MESSAGES)]
    assert verdicts.index(Verdict.END) == MAX_MESSAGES - 1


def test_a_side_that_has_gone_does_not_go_on_for_ever() -> None:
    exchange = seen_from(RESPONDING, [(INITIATING, OFFER), (INITIATING, BYE)])
    verdicts = [exchange.receive(CandidateFound(candidate=candidate(port))) for port in range(1, MAX_MESSAGES + 9)]
    assert verdicts.index(Verdict.END) == MAX_MESSAGES - 2
    assert set(verdicts) == {Verdict.IGNORE, Verdict.END}


def test_who_names_each_candidate_alone_and_ends_each_time_keeps_within_the_budget() -> None:
    exchange = seen_from(INITIATING, [])
    exchange.send(msgspec.structs.replace(OFFER, candidates=()))
    exchange.send(END)
    for port in range(1, MAX_CANDIDATES + 1):
        exchange.send(CandidateFound(candidate=candidate(port)))
        exchange.send(END)
    assert not exchange.may_send(FOUND)
    exchange.send(BYE)


@given(side=st.sampled_from(Side), steps=st.lists(st.tuples(st.booleans(), MESSAGES), max_size=60))
def test_every_sequence_of_messages_leads_to_a_verdict_and_a_violation_to_the_end(
    side: Side, steps: list[tuple[bool, Message]]
) -> None:
    exchange = Exchange(side)
    verdicts: list[Verdict] = []
    for ours, message in steps:
        if not ours:
            verdicts.append(exchange.receive(message))
        elif exchange.may_send(message):
            assert message == BYE or Verdict.END not in verdicts
            exchange.send(message)
        assert exchange.state in SENDS[side]
        assert exchange.state_of_peer in SENDS[side.other]
    if Verdict.END in verdicts:
        assert set(verdicts[verdicts.index(Verdict.END) + 1 :]) <= {Verdict.IGNORE}


@given(side=st.sampled_from(Side), messages=st.lists(MESSAGES, min_size=1, max_size=20))
def test_a_flood_of_anything_is_taken_within_the_budget(side: Side, messages: list[Message]) -> None:
    exchange = Exchange(side)
    if side is INITIATING:
        exchange.send(OFFER)
    taken = [each for _ in range(40) for each in messages if exchange.receive(each) is Verdict.TAKE]
    assert len(taken) <= MAX_MESSAGES
    named = sum(len(getattr(each, "candidates", ())) + isinstance(each, CandidateFound) for each in taken)
    assert named <= MAX_CANDIDATES


@given(st.data())
def test_two_sides_that_go_by_the_table_never_offend_each_other(data: st.DataObject) -> None:
    ends = {side: Exchange(side) for side in Side}
    on_the_way: dict[Side, deque[Message]] = {side: deque() for side in Side}
    for _ in range(data.draw(st.integers(0, 40))):
        side = data.draw(st.sampled_from(Side))
        message = data.draw(MESSAGES)
        if data.draw(st.booleans()):
            if ends[side].may_send(message):
                ends[side].send(message)
                on_the_way[side].append(message)
        elif on_the_way[side.other]:
            assert ends[side].receive(on_the_way[side.other].popleft()) is not Verdict.END
    for side in Side:
        while on_the_way[side.other]:
            assert ends[side].receive(on_the_way[side.other].popleft()) is not Verdict.END
