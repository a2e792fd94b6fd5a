"""Two sides of a session and somebody between them, in any order of what they may do: hypothesis looks for one in which
the table of `quice.signal.session` is not what happens."""

from __future__ import annotations

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from quice.signal.messages import Bye, CandidateFound, Description, Message
from quice.signal.session import MAX_CANDIDATES, MAX_MESSAGES, MOVES, SENDS, Exchange, Side, State, Verdict
from tests.signal.test_session import MESSAGES, candidate

SIDES = st.sampled_from(Side)


class Sessions(RuleBasedStateMachine):
    """Each side keeps to the table; what it says arrives in order, perhaps again, until somebody else speaks, too."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = {side: Exchange(side) for side in Side}
        self.on_the_way: dict[Side, deque[Message]] = {side: deque() for side in Side}
        self.taken: dict[Side, list[Message]] = {side: [] for side in Side}
        self.ended: set[Side] = set()
        self.is_forged = False

    def receive(self, side: Side, message: Message) -> Verdict:
        """Have one side receive a message, and look whether it judges by the table."""
        end = self.ends[side]
        state, peers = end.state, end.state_of_peer
        verdict = end.receive(message)
        if side in self.ended:
            assert verdict is Verdict.IGNORE
        elif verdict is Verdict.TAKE:
            assert end.state_of_peer is SENDS[side.other][peers][type(message)]
            assert end.state is MOVES.get(type(message), state)
            self.taken[side].append(message)
        else:
            assert (end.state, end.state_of_peer) == (state, peers)
            if verdict is Verdict.END:
                self.ended.add(side)
        return verdict

    @rule(side=SIDES, message=MESSAGES)
    def send(self, side: Side, message: Message) -> None:
        end = self.ends[side]
        if end.may_send(message):
            assert side not in self.ended or isinstance(message, Bye)
            end.send(message)
            self.on_the_way[side].append(message)
        else:
            state = end.state
            try:
                end.send(message)
            except ValueError:
                assert end.state is state
            else:
                raise AssertionError("sent what may not be")

    @rule(side=SIDES)
    def deliver(self, side: Side) -> None:
        if self.on_the_way[side.other]:
            verdict = self.receive(side, self.on_the_way[side.other].popleft())
            assert verdict is not Verdict.END or self.is_forged

    @rule(side=SIDES)
    @precondition(lambda self: any(self.taken.values()))
    def repeat_a_description(self, side: Side) -> None:
        described = [each for each in self.taken[side] if isinstance(each, Description)]
        if described:
            verdict = self.receive(side, described[0])
            assert verdict is Verdict.IGNORE or self.is_forged or self.heard(side) >= MAX_MESSAGES

    @rule(side=SIDES, message=MESSAGES, times=st.sampled_from([1, 1, 2, MAX_MESSAGES]))
    def forge(self, side: Side, message: Message, times: int) -> None:
        self.is_forged = True
        for _ in range(times):
            self.receive(side, message)

    @rule(side=SIDES, count=st.integers(1, MAX_CANDIDATES))
    def flood(self, side: Side, count: int) -> None:
        self.is_forged = True
        for port in range(1, count + 1):
            self.receive(side, CandidateFound(candidate=candidate(port)))

    def heard(self, side: Side) -> int:
        return self.ends[side]._messages[side.other]

    @invariant()
    def it_is_within_the_table_and_the_budget(self) -> None:
        for side, end in self.ends.items():
            assert end.state in SENDS[side]
            assert end.state_of_peer in SENDS[side.other]
            assert len(self.taken[side]) <= self.heard(side) <= MAX_MESSAGES
            named = sum(
                len(getattr(each, "candidates", ())) + isinstance(each, CandidateFound) for each in self.taken[side]
            )
            assert named <= MAX_CANDIDATES
            if end.state is State.GONE:
                assert not any(end.may_send(message) for message in (Bye(), *self.taken[side]))

    @invariant()
    def both_sides_think_the_same_once_all_has_come(self) -> None:
        if not self.is_forged and not any(self.on_the_way.values()):
            one, other = self.ends[Side.INITIATING], self.ends[Side.RESPONDING]
            if State.GONE not in (one.state, other.state):
                assert (one.state, one.state_of_peer) == (other.state_of_peer, other.state)


Sessions.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestSessions = Sessions.TestCase
