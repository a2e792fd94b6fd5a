"""Every input of an agent in any order: nothing raises, and what the RFCs promise holds at every moment.

The invariants stand together at the end of `AgentMachine`, each named after the section that it is from.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from quice.ice import CandidateKind, ConsentExpired, Failed, Nominating, PairState, Role, Selected
from quice.ice.agent import PATIENCE
from quice.ice.checklist import MAX_PAIRS, CheckListState
from quice.ice.checklist import TRANSITIONS as LIST_TRANSITIONS
from quice.ice.checks import MAX_CANCELLED
from quice.ice.consent import FALLBACKS, LIFETIME, TR
from quice.ice.events import Event
from quice.ice.generation import MAX_LOCAL_CANDIDATES, MAX_REMOTE_CANDIDATES
from quice.ice.pacing import DEFAULT_TA, RC, UNSPOKEN_TA, rto
from quice.ice.pair import TRANSITIONS, CandidatePair
from quice.stun.attributes import Nomination
from quice.stun.message import Kind, Message
from quice.wire import Address
from tests.ice.network import host_candidate, reflexive_candidate
from tests.ice.scripted import BASE, PWD, STRANGER, TIE_BREAKER, UFRAG, Scripted, Sent, remote
from tests.ice.test_continual import RELAY, relayed

BASES = [BASE, *(Address(f"10.0.0.{n}", 5000) for n in range(2, 6)), Address("2001:db8::1", 5000), RELAY]
SOURCES = [remote(1).address, remote(2).address, remote(50).address, STRANGER, Address("2001:db8::66", 6666)]
MAPPED = [None, BASE, Address("203.0.113.9", 40009), Address("203.0.113.9", 40010)]
# The peer's credentials, its first and those after a restart of its own.
PEERS = [(UFRAG, PWD), ("again", "the-peers-second-password-of-128"), ("third", "a-third-password-of-the-peers-now")]
# As long as a peer keeps sending, an agent may go on; left alone, it must come to rest in this time.
BOUND = 3 * PATIENCE + LIFETIME
# RFC 8489 §6.2.1, RFC 8445 §14.3: and so long after the first request of a check the last one leaves, where all pairs
# that a list may have are checked. Those better than the selected one are, if the peer lets another be selected.
LAST_REQUEST = ((1 << RC - 1) - 1) * rto(UNSPOKEN_TA, 2 * MAX_PAIRS)


class AgentMachine(RuleBasedStateMachine):
    """One agent, and a peer that does anything."""

    def __init__(self) -> None:
        super().__init__()
        self.peer = Scripted()
        self.checks: list[Sent] = []
        self.received: list[tuple[bytes, Address, Address]] = []
        self.said: list[Event] = []
        self.passwords = {UFRAG: PWD}
        self.states: dict[CandidatePair, PairState] = {}
        self.list_state = (0, CheckListState.RUNNING)
        self.expired: set[tuple[int, Address, Address]] = set()
        self.kept_alive: dict[tuple[Address | None, Address], float] = {}
        self.own_keys: list[bytes] = []
        self.closed = False
        self.lite = False
        self.last_check = -1.0

    @initialize(
        role=st.sampled_from(Role),
        remotes=st.sampled_from([0, 1, 3]),
        credentials=st.booleans(),
        renomination=st.booleans(),
        lite=st.sampled_from([False, False, False, True]),
        settled=st.booleans(),
    )
    def begin(self, role: Role, remotes: int, credentials: bool, renomination: bool, lite: bool, settled: bool) -> None:
        self.lite = lite
        self.peer = Scripted(role, remotes=remotes, credentials=credentials, renomination=renomination, lite=lite)
        self._collect()
        if settled:
            # Half of the sessions begin where others have come to.
            self.get_on_well(nominate=True, rounds=5, silent=None)

    # Gathering and signalling.

    @rule(number=st.integers(0, 60))
    def name_remote_candidate(self, number: int) -> None:
        self.peer.agent.add_remote_candidate(remote(number), self.peer.now)

    @rule(number=st.integers(0, 5), ufrag=st.sampled_from([each[0] for each in PEERS]))
    def name_remote_candidate_of_a_generation(self, number: int, ufrag: str) -> None:
        self.peer.agent.add_remote_candidate(remote(number), self.peer.now, ufrag)

    @rule(address=st.sampled_from(SOURCES))
    def name_remote_candidate_of_any_kind(self, address: Address) -> None:
        self.peer.agent.add_remote_candidate(reflexive_candidate(address, STRANGER), self.peer.now)

    @rule()
    def name_many_remote_candidates(self) -> None:
        for number in range(1, MAX_REMOTE_CANDIDATES + 10):
            self.peer.agent.add_remote_candidate(remote(number), self.peer.now)

    @rule(base=st.sampled_from(BASES), kind=st.sampled_from(["host", "host", "srflx", "relay"]))
    def find_local_candidate(self, base: Address, kind: str) -> None:
        mapped = Address("203.0.113.9", 40009)
        candidate = {"host": host_candidate(base), "srflx": reflexive_candidate(mapped, base), "relay": relayed(base)}
        self.peer.agent.add_local_candidate(candidate[kind], self.peer.now)

    @rule(base=st.sampled_from(BASES))
    def lose_local_base(self, base: Address) -> None:
        self.peer.agent.remove_local_base(base, self.peer.now)
        self._collect()

    @rule(
        which=st.sampled_from([0] * 10 + [1, 2]),
        lite=st.sampled_from([False, False, False, True]),
        ta=st.sampled_from([None, 0.0, DEFAULT_TA, 0.02]),
        renomination=st.booleans(),
    )
    def learn_credentials(self, which: int, lite: bool, ta: float | None, renomination: bool) -> None:
        ufrag, pwd = PEERS[which]
        self.passwords[ufrag] = pwd
        self.peer.agent.set_remote_credentials(ufrag, pwd, self.peer.now, lite=lite, ta=ta, renomination=renomination)
        self._collect()

    @rule(local=st.booleans())
    def end_of_candidates(self, local: bool) -> None:
        end = self.peer.agent.end_of_local_candidates if local else self.peer.agent.end_of_remote_candidates
        end(self.peer.now)
        self._collect()

    @rule(sure=st.sampled_from([False] * 7 + [True]))
    def restart(self, sure: bool) -> None:
        if sure:
            self.peer.agent.restart(self.peer.now)
            self._collect()

    # The layer above.

    @precondition(lambda self: self.peer.agent.pairs)
    @rule(which=st.integers(0, 5))
    def choose(self, which: int) -> None:
        pairs = self.peer.agent.pairs
        self.peer.agent.nominate(pairs[which % len(pairs)], self.peer.now)
        self._collect()

    @precondition(lambda self: self.peer.agent.selected)
    @rule(what=st.sampled_from(["entrust", "used", "lost"]))
    def speak_of_the_selected_pair(self, what: str) -> None:
        pair = self.peer.agent.selected
        assert pair is not None
        self._speak_of(pair, what)

    @precondition(lambda self: self.states)
    @rule(which=st.integers(0, 9), what=st.sampled_from(["entrust", "used", "lost"]))
    def speak_of_a_pair(self, which: int, what: str) -> None:
        self._speak_of(list(self.states)[which % len(self.states)], what)

    def _speak_of(self, pair: CandidatePair, what: str) -> None:
        agent, now = self.peer.agent, self.peer.now
        match what:
            case "entrust":
                agent.entrust(pair, now)
            case "used":
                agent.pair_used(pair, now, rtt=0.01)
            case _:
                agent.pair_lost(pair, now)
        self._collect()

    @rule(sure=st.sampled_from([False] * 15 + [True]))
    def close(self, sure: bool) -> None:
        if sure:
            self.peer.agent.close()
            self.closed = True

    # Time.

    @rule(nominate=st.booleans(), rounds=st.integers(1, 8), silent=st.sampled_from([None, None, *SOURCES]))
    def get_on_well(self, nominate: bool, rounds: int, silent: Address | None) -> None:
        """The peer does what it should, but for one of its addresses."""
        for _ in range(rounds):
            before = len(self.checks)
            self.wait(0.03)
            for sent in self.checks[before:]:
                if sent.to == silent or sent.transmit.source is None:
                    continue
                self._answer(sent, sent.transmit.source, None, None, False)
                self._receive(self.peer.request(nominate=nominate), sent.to, sent.transmit.source)

    @rule(seconds=st.sampled_from([0.0, 0.004, DEFAULT_TA, 0.05, 0.1, 0.4, 2.0, 7.0]))
    def wait(self, seconds: float) -> None:
        end = self.peer.now + seconds
        while (due := self.peer.agent.timeout()) is not None and due <= end:
            self.peer.now = max(self.peer.now, due)
            self._wake()
        self.peer.now = end

    @rule(seconds=st.sampled_from([0.02, 0.3, 5.0, 11.0, 31.0]))
    def wake_late(self, seconds: float) -> None:
        self.peer.now += seconds
        self._wake()

    @rule()
    def wake_for_nothing(self) -> None:
        self.peer.agent.handle_timeout(self.peer.now)
        self._collect()

    # Datagrams.

    @rule(
        source=st.sampled_from(SOURCES),
        destination=st.sampled_from([*BASES, Address("10.9.9.9", 5000)]),
        role=st.sampled_from([None, None, *Role]),
        tie_breaker=st.sampled_from([0, TIE_BREAKER, 2**64 - 1]),
        nominate=st.booleans(),
        nomination=st.sampled_from([None, None, 0, 1, 7, 2**24]),
        priority=st.sampled_from([None, 0, 1_800_000_000, 2**32 - 1]),
        key=st.sampled_from([None, None, None, "guessed"]),
    )
    def check(
        self,
        source: Address,
        destination: Address,
        role: Role | None,
        tie_breaker: int,
        nominate: bool,
        nomination: int | None,
        priority: int | None,
        key: str | None,
    ) -> None:
        extra = () if nomination is None else (Nomination(nomination),)
        data = self.peer.request(
            role=role, tie_breaker=tie_breaker, nominate=nominate, priority=priority, key=key, extra=extra
        )
        self._receive(data, source, destination)

    @precondition(lambda self: self.checks)
    @rule(which=st.integers(0, 3), nominate=st.booleans())
    def check_back(self, which: int, nominate: bool) -> None:
        sent = self.checks[-1 - which % len(self.checks)]
        assert sent.transmit.source is not None
        self._receive(self.peer.request(nominate=nominate), sent.to, sent.transmit.source)

    @precondition(lambda self: self.checks)
    @rule(
        which=st.integers(0, 7),
        mapped=st.sampled_from(MAPPED),
        code=st.sampled_from([None, None, None, None, 400, 403, 487]),
        source=st.sampled_from([None, None, None, STRANGER]),
        guessed=st.sampled_from([False, False, False, True]),
    )
    def answer(
        self, which: int, mapped: Address | None, code: int | None, source: Address | None, guessed: bool
    ) -> None:
        self._answer(self.checks[-1 - which % len(self.checks)], mapped, code, source, guessed)

    @precondition(lambda self: self.checks)
    @rule()
    def answer_well(self) -> None:
        self._answer(self.checks[-1], self.checks[-1].transmit.source, None, None, False)

    def _answer(
        self, check: Sent, mapped: Address | None, code: int | None, source: Address | None, guessed: bool
    ) -> None:
        base = check.transmit.source
        assert base is not None
        key = "guessed" if guessed else self.passwords[called(check)]
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

    def _receive(self, data: bytes, source: Address, destination: Address) -> None:
        self.received.append((data, source, destination))
        self.peer.receive(data, source, destination)
        answers = [each for each in self._collect() if each.message.kind in (Kind.SUCCESS, Kind.ERROR)]
        # RFC 8489 §6.3.1: one answer at most, back the way that the request came.
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
        events = self.peer.events()
        self.said += events
        sent = self.peer.sent()
        assert not (self.closed and (sent or events)), "a closed agent sends and says nothing"
        for each in sent:
            self._look_at(each)
        for event in events:
            if isinstance(event, ConsentExpired):
                generation = self.peer.agent.generation
                self.expired.add((generation, event.pair.base, event.pair.remote.address))
        return sent

    def _look_at(self, sent: Sent) -> None:
        """What holds for every single message."""
        way = sent.transmit.source, sent.to
        if sent.message.kind is Kind.INDICATION:
            # RFC 8445 §11: not more often than every Tr.
            assert sent.time - self.kept_alive.get(way, -TR) >= TR - 1e-9
            self.kept_alive[way] = sent.time
        if sent.message.kind is not Kind.REQUEST:
            return
        self.checks.append(sent)
        agent = self.peer.agent
        # §2.5: lite agents send no checks.
        assert not self.lite
        # §14.2: no faster than Ta, whatever the request is for.
        assert sent.time - self.last_check > 0.999 * DEFAULT_TA
        self.last_check = sent.time
        # §7.2.4, §12.1: only on pairs, of this generation or the one still in use.
        known = {(pair.base, pair.remote.address) for pair in [*self.states, *agent.pairs]}
        assert way in known
        # RFC 7675 §5.1: not where consent has ended in this generation.
        if called(sent) == current_ufrag(self):
            assert (agent.generation, *way) not in self.expired
        # §7.1.2: the controlled agent nominates nothing.
        if sent.nominates:
            assert any(isinstance(event, Nominating) for event in self.said)

    @property
    def state(self) -> CheckListState:
        return self.peer.agent._generation.checklist.state

    # What the RFCs promise.

    @invariant()
    def rfc8445_6_1_2_6_pairs_change_their_states_as_the_table_says(self) -> None:
        for pair in self.peer.agent.pairs:
            before = self.states.get(pair, PairState.FROZEN)
            assert pair.state in reachable(before)
            self.states[pair] = pair.state

    @invariant()
    def rfc8445_8_1_2_checklists_change_their_states_as_the_table_says(self) -> None:
        generation, state = self.list_state
        now = self.peer.agent.generation, self.state
        if now[0] == generation and now[1] is not state:
            steps = LIST_TRANSITIONS[state]
            assert now[1] in steps or any(now[1] in LIST_TRANSITIONS[step] for step in steps)
        self.list_state = now

    @invariant()
    def rfc8445_6_1_2_5_what_a_peer_can_cost_is_limited(self) -> None:
        agent = self.peer.agent
        assert len(agent.pairs) <= MAX_PAIRS
        assert len(agent.report.remote_candidates) <= MAX_REMOTE_CANDIDATES
        assert len(agent.report.local_candidates) <= MAX_LOCAL_CANDIDATES
        assert len(agent._checker.checks) <= MAX_PAIRS * (MAX_CANCELLED + 1)
        assert len(agent._consents) <= FALLBACKS + 2

    @invariant()
    def rfc8445_8_1_1_one_pair_at_most_is_nominated_and_it_is_valid(self) -> None:
        report = self.peer.agent.report
        nominated = [pair for pair in report.pairs if pair.nominated]
        assert len(nominated) <= 1
        assert all(pair.state is PairState.SUCCEEDED for pair in nominated)
        if nominated:
            assert report.selected == nominated[0]
        if report.state is CheckListState.COMPLETED:
            assert nominated
        if report.state is CheckListState.FAILED:
            assert not nominated

    @invariant()
    def rfc8445_12_1_the_selected_pair_is_one_that_works(self) -> None:
        selected = self.peer.agent.selected
        assert selected is None or selected.is_valid

    @invariant()
    def rfc8445_6_1_2_3_and_4_pairs_are_sorted_and_none_is_there_twice(self) -> None:
        agent = self.peer.agent
        priorities = [pair.priority(agent.controlling) for pair in agent.pairs]
        assert priorities == sorted(priorities, reverse=True)
        assert len({(pair.base, pair.remote.address) for pair in agent.pairs}) == len(agent.pairs)

    @invariant()
    def rfc8445_6_1_2_2_pairs_are_of_one_family(self) -> None:
        for pair in self.peer.agent.pairs:
            assert pair.base.ip.version == pair.remote.address.ip.version

    @invariant()
    def rfc8445_7_2_5_3_3_no_pair_stays_frozen_when_another_of_its_foundation_works(self) -> None:
        pairs = self.peer.agent.pairs
        working = {pair.foundation for pair in pairs if pair.is_valid}
        frozen = {pair.foundation for pair in pairs if pair.state is PairState.FROZEN}
        if self.state is CheckListState.RUNNING:
            assert not working & frozen

    @invariant()
    def rfc8445_5_1_1_3_candidates_that_checks_revealed_have_foundations_of_their_own(self) -> None:
        remotes = self.peer.agent.report.remote_candidates
        revealed = [each.foundation for each in remotes if each.kind is CandidateKind.PEER_REFLEXIVE]
        named = {each.foundation for each in remotes if each.kind is not CandidateKind.PEER_REFLEXIVE}
        assert len(set(revealed)) == len(revealed)
        assert not named & set(revealed)

    @invariant()
    def rfc8445_6_1_1_a_lite_agent_with_a_full_peer_is_controlled(self) -> None:
        agent = self.peer.agent
        peer = agent._generation.peer
        if peer is not None and agent.lite != peer.lite and not self.closed:
            # A conflict of roles with one who lies about being lite is settled as any other.
            assert agent.role is Role.CONTROLLED or not agent.lite

    @invariant()
    def a_closed_agent_wants_nothing(self) -> None:
        if self.closed:
            assert self.peer.agent.timeout() is None
            assert self.state is CheckListState.CLOSED

    @invariant()
    def the_end_of_each_generation_is_told(self) -> None:
        ends = [event for event in self.said if isinstance(event, Selected | Failed)]
        if self.state in (CheckListState.COMPLETED, CheckListState.FAILED):
            assert ends
        failures = [event for event in ends if isinstance(event, Failed)]
        assert len(failures) <= self.peer.agent.generation + 1

    def teardown(self) -> None:
        """Left alone, an agent comes to rest: it has failed, or has no check of its own to make."""
        start = self.peer.now
        self._leave_alone(until=start + BOUND)
        assert self.state is not CheckListState.RUNNING
        self._leave_alone(until=start + BOUND + LAST_REQUEST)
        quiet = len(self.checks)
        self._leave_alone(until=start + BOUND + LAST_REQUEST + 2 * LIFETIME)
        assert len(self.checks) == quiet

    def _leave_alone(self, until: float) -> None:
        while (due := self.peer.agent.timeout()) is not None and due <= until:
            self.peer.now = max(self.peer.now, due)
            self._wake()


def reachable(state: PairState) -> set[PairState]:
    """The states that one input can lead to: an answer and the nomination that follows are several steps."""
    found = {state}
    for _ in range(3):
        found |= {after for before in found for after in TRANSITIONS[before]}
    return found


def called(check: Sent) -> str:
    """The ufrag of the peer's that a request is for."""
    username = str(check.message.attributes[0].value)  # type: ignore[attr-defined]
    return username.partition(":")[0]


def current_ufrag(machine: AgentMachine) -> str | None:
    """The peer's ufrag of now."""
    peer = machine.peer.agent._generation.peer
    return None if peer is None else peer.credentials.ufrag


AgentMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
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


def test_a_pair_whose_check_is_on_its_way_does_not_make_room_for_another() -> None:
    state = AgentMachine()
    state.begin(role=Role.CONTROLLED, remotes=0, credentials=True, renomination=False, lite=False, settled=False)
    state.name_many_remote_candidates()
    state.check(
        destination=Address("10.0.0.1", 5000),
        key=None,
        nominate=True,
        nomination=None,
        priority=0,
        role=None,
        source=Address("192.0.2.1", 6050),
        tie_breaker=0,
    )
    state.check_back(nominate=False, which=0)
    state.find_local_candidate(base=Address("10.0.0.2", 5000), kind="host")
    state.find_local_candidate(base=Address("10.0.0.3", 5000), kind="host")
    state.answer_well()
    state.rfc8445_8_1_1_one_pair_at_most_is_nominated_and_it_is_valid()
    state.teardown()
