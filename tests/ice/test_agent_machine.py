"""Every input of an agent in any order: nothing raises, and what RFC 8445 promises holds at every moment."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from quice.ice import Failed, PairState, Role, Selected
from quice.ice.agent import PATIENCE
from quice.ice.checklist import MAX_PAIRS, CheckListState
from quice.ice.events import Event
from quice.ice.generation import MAX_REMOTE_CANDIDATES
from quice.ice.pacing import DEFAULT_TA
from quice.ice.pair import CandidatePair
from quice.stun.message import Kind, Message
from quice.wire import Address
from tests.ice.network import host_candidate, reflexive_candidate
from tests.ice.scripted import BASE, PWD, STRANGER, TIE_BREAKER, Scripted, Sent, remote

BASES = [BASE, *(Address(f"10.0.0.{n}", 5000) for n in range(2, 6)), Address("2001:db8::1", 5000)]
SOURCES = [remote(1).address, remote(2).address, remote(50).address, STRANGER, Address("2001:db8::66", 6666)]
MAPPED = [None, BASE, Address("203.0.113.9", 40009), Address("203.0.113.9", 40010)]
# As long as a peer keeps sending, an agent may go on; left alone, it must come to an end in this time.
BOUND = 3 * PATIENCE


class AgentMachine(RuleBasedStateMachine):
    """One agent, and a peer that does anything."""

    def __init__(self) -> None:
        super().__init__()
        self.peer = Scripted()
        self.checks: list[Sent] = []
        self.received: list[tuple[bytes, Address, Address]] = []
        self.said: list[Event] = []
        self.closed = False
        self.last_check = -1.0

    @initialize(role=st.sampled_from(Role), remotes=st.sampled_from([0, 1, 3]), credentials=st.booleans())
    def begin(self, role: Role, remotes: int, credentials: bool) -> None:
        self.peer = Scripted(role, remotes=remotes, credentials=credentials)

    @rule(number=st.integers(1, 60))
    def name_remote_candidate(self, number: int) -> None:
        self.peer.agent.add_remote_candidate(remote(number), self.peer.now)

    @rule(address=st.sampled_from(SOURCES))
    def name_remote_candidate_of_any_kind(self, address: Address) -> None:
        self.peer.agent.add_remote_candidate(reflexive_candidate(address, STRANGER), self.peer.now)

    @rule()
    def name_many_remote_candidates(self) -> None:
        for number in range(1, MAX_REMOTE_CANDIDATES + 10):
            self.peer.agent.add_remote_candidate(remote(number), self.peer.now)

    @rule(base=st.sampled_from(BASES), reflexive=st.booleans())
    def find_local_candidate(self, base: Address, reflexive: bool) -> None:
        candidate = reflexive_candidate(Address("203.0.113.9", 40009), base) if reflexive else host_candidate(base)
        self.peer.agent.add_local_candidate(candidate, self.peer.now)

    @rule()
    def learn_credentials(self) -> None:
        self.peer.learn_credentials()

    @rule(local=st.booleans())
    def end_of_candidates(self, local: bool) -> None:
        end = self.peer.agent.end_of_local_candidates if local else self.peer.agent.end_of_remote_candidates
        end(self.peer.now)

    @rule(seconds=st.sampled_from([0.0, 0.004, DEFAULT_TA, 0.05, 0.1, 0.4, 2.0]))
    def wait(self, seconds: float) -> None:
        end = self.peer.now + seconds
        while (due := self.peer.agent.timeout()) is not None and due <= end:
            self.peer.now = max(self.peer.now, due)
            self._wake()
        self.peer.now = end

    @rule(seconds=st.sampled_from([0.02, 0.3, 5.0, 11.0]))
    def wake_late(self, seconds: float) -> None:
        self.peer.now += seconds
        self._wake()

    @rule()
    def wake_for_nothing(self) -> None:
        self.peer.agent.handle_timeout(self.peer.now)
        self._collect()

    @rule(
        source=st.sampled_from(SOURCES),
        destination=st.sampled_from([*BASES, Address("10.9.9.9", 5000)]),
        role=st.sampled_from(Role),
        tie_breaker=st.sampled_from([0, TIE_BREAKER, 2**64 - 1]),
        nominate=st.booleans(),
        priority=st.sampled_from([None, 0, 1_800_000_000, 2**32 - 1]),
        key=st.sampled_from([None, None, None, "guessed"]),
    )
    def check(
        self,
        source: Address,
        destination: Address,
        role: Role,
        tie_breaker: int,
        nominate: bool,
        priority: int | None,
        key: str | None,
    ) -> None:
        data = self.peer.request(role=role, tie_breaker=tie_breaker, nominate=nominate, priority=priority, key=key)
        self._receive(data, source, destination)

    @precondition(lambda self: self.checks)
    @rule(
        which=st.integers(0, 7),
        mapped=st.sampled_from(MAPPED),
        code=st.sampled_from([None, None, None, 400, 487]),
        source=st.sampled_from([None, None, None, STRANGER]),
        key=st.sampled_from([PWD, PWD, PWD, "guessed"]),
    )
    def answer(self, which: int, mapped: Address | None, code: int | None, source: Address | None, key: str) -> None:
        check = self.checks[-1 - which % len(self.checks)]
        base = check.transmit.source
        assert base is not None
        self.peer.answer(check, mapped=mapped, code=code, source=source, key=key, destination=base)
        self._collect()

    @precondition(lambda self: self.received)
    @rule(
        which=st.integers(0, 20),
        source=st.sampled_from(SOURCES),
        position=st.integers(0, 200),
        flip=st.integers(0, 255),
    )
    def receive_again(self, which: int, source: Address, position: int, flip: int) -> None:
        data, _, destination = self.received[-1 - which % len(self.received)]
        changed = bytearray(data)
        if changed:
            changed[position % len(changed)] ^= flip
        self._receive(bytes(changed), source, destination)

    @rule(data=st.binary(max_size=60), source=st.sampled_from(SOURCES))
    def receive_anything(self, data: bytes, source: Address) -> None:
        self._receive(data, source, BASE)

    @precondition(lambda self: self.checks)
    @rule(which=st.integers(0, 7))
    def receive_what_it_sent_itself(self, which: int) -> None:
        check = self.checks[-1 - which % len(self.checks)]
        self._receive(check.transmit.data, check.to, BASE)

    @rule(sure=st.sampled_from([False] * 15 + [True]))
    def close(self, sure: bool) -> None:
        if sure:
            self.peer.agent.close()
            self.closed = True

    def _receive(self, data: bytes, source: Address, destination: Address) -> None:
        self.received.append((data, source, destination))
        self.peer.receive(data, source, destination)
        answers = [each for each in self._collect() if each.message.kind is not Kind.REQUEST]
        # One answer at most, back the way that the request came.
        assert [(each.transmit.source, each.to) for each in answers] in ([], [(destination, source)])

    def _wake(self) -> None:
        for _ in range(2 * MAX_PAIRS):
            self.peer.agent.handle_timeout(self.peer.now)
            self._collect()
            due = self.peer.agent.timeout()
            if due is None or due > self.peer.now:
                return
        raise AssertionError("the agent asks to be woken again and again")

    def _collect(self) -> list[Sent]:
        sent = self.peer.sent()
        known = {(pair.local.base, pair.remote.address) for pair in self.peer.agent.report.pairs}
        for each in sent:
            assert not self.closed
            if each.message.kind is Kind.REQUEST:
                self.checks.append(each)
                assert (each.transmit.source, each.to) in known
                assert each.nominates or each.time - self.last_check > 0.999 * DEFAULT_TA
                self.last_check = each.time
        self.said += self.peer.events()
        return sent

    @invariant()
    def limits_hold(self) -> None:
        report = self.peer.agent.report
        assert len(report.pairs) <= MAX_PAIRS
        assert len(report.remote_candidates) <= MAX_REMOTE_CANDIDATES

    @invariant()
    def one_pair_is_selected_nominated_and_valid_or_none(self) -> None:
        report = self.peer.agent.report
        nominated = [pair for pair in report.pairs if pair.nominated]
        assert nominated == ([] if report.selected is None else [report.selected])
        assert all(pair.state is PairState.SUCCEEDED for pair in nominated)
        if report.state is CheckListState.COMPLETED:
            assert nominated

    @invariant()
    def rfc8445_6_1_2_3_and_4_pairs_are_sorted_and_none_is_there_twice(self) -> None:
        report = self.peer.agent.report
        pairs = [CandidatePair(pair.local, pair.remote) for pair in report.pairs]
        priorities = [pair.priority(report.role is Role.CONTROLLING) for pair in pairs]
        assert priorities == sorted(priorities, reverse=True)
        assert len({(pair.base, pair.remote.address) for pair in pairs}) == len(pairs)

    @invariant()
    def rfc8445_6_1_2_6_no_pair_stays_frozen_when_another_of_its_foundation_works(self) -> None:
        pairs = self.peer.agent.report.pairs
        working = {
            (pair.local.foundation, pair.remote.foundation) for pair in pairs if pair.state is PairState.SUCCEEDED
        }
        frozen = {(pair.local.foundation, pair.remote.foundation) for pair in pairs if pair.state is PairState.FROZEN}
        if self.peer.agent.report.state is CheckListState.RUNNING:
            assert not working & frozen

    @invariant()
    def the_end_is_told_once(self) -> None:
        ends = [event for event in self.said if isinstance(event, Selected | Failed)]
        assert len(ends) <= 1
        if self.closed:
            assert self.peer.agent.timeout() is None
        elif ends:
            assert self.peer.agent.report.state is not CheckListState.RUNNING

    def teardown(self) -> None:
        """Left alone, an agent comes to an end, and keeps no timer."""
        end = self.peer.now + BOUND
        while (due := self.peer.agent.timeout()) is not None:
            assert due <= end, "the agent never ends"
            self.peer.now = max(self.peer.now, due)
            self._wake()
        assert self.peer.agent.report.state is not CheckListState.RUNNING


AgentMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestAgentMachine = AgentMachine.TestCase


def test_a_message_of_every_kind_and_method_in_any_state_is_taken_calmly() -> None:
    peer = Scripted(remotes=3)
    check = peer.first_check()
    for first in range(4):
        for second in range(256):
            data = bytes([first, second]) + check.transmit.data[2:]
            for source in (check.to, STRANGER):
                peer.receive(data, source)
    assert not [each for each in peer.sent() if each.message.kind is not Kind.REQUEST]
    assert Message.decode(check.transmit.data) == check.message
