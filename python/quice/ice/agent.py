"""An ICE agent for one QUIC component (RFC 8445), without sockets or clock.

Theory of operation. The agent pairs each local with each remote candidate as they become known (trickle, RFC
8838) and checks the pairs, one every Ta seconds at most: triggered ones first, then retransmissions that are
due, then the best of the others. A pair whose check is answered is valid. The controlling agent chooses: as soon
as a pair is valid and no better one is likely to become so within a moment, it nominates it, and may begin QUIC
on it at once, for what the nomination tells the peer, the first QUIC packet tells too.

See `quice.wire` for the contract that all machines follow.
"""

from __future__ import annotations

from collections.abc import Iterator

from quice.ice import checks, report
from quice.ice.candidate import MAX_LOCAL_PREFERENCE, Candidate, CandidateKind, foundation, priority
from quice.ice.checklist import CheckList, CheckListState
from quice.ice.checks import Check, Credentials
from quice.ice.events import Event, Failed, Nominating, PairValid, Role, RoleChanged, Selected
from quice.ice.pair import CandidatePair, PairState
from quice.ice.report import Report
from quice.stun import StunDecodeError, responses
from quice.stun.attributes import (
    IceControlled,
    IceControlling,
    Priority,
    UseCandidate,
    XorMappedAddress,
)
from quice.stun.message import Kind, Message, Method
from quice.stun.responses import ROLE_CONFLICT
from quice.stun.transaction import transaction_id
from quice.wire import Address, Random, Transmit

DEFAULT_TA = 0.01
"""Seconds between two checks. RFC 8445 §14.2 wants 5 ms at least, and its 50 ms for the start of several media
sessions at once; 100 checks of 120 bytes a second are 96 kbit/s, for a second or two."""
MAX_REMOTE_CANDIDATES = 64
MAX_EARLY_CHECKS = 16
"""Checks kept that arrive before the peer's candidates and password do."""
NOMINATION_PATIENCE = 0.05
"""Seconds a valid pair waits for a better one that is being checked."""
PATIENCE = 10.0
"""Seconds for which a pair may still turn up and work, whatever has failed by then (RFC 8863 §4). They begin anew when
the peer's password comes, and when a pair becomes valid, which may be just in time."""


class Agent:
    """The ICE agent of one session."""

    def __init__(self, role: Role, rng: Random, now: float, *, ta: float = DEFAULT_TA) -> None:
        """`rng` makes ufrag, pwd, tie-breaker and transaction ids; `ta`: seconds between checks."""
        # §5.3: 24 bits of ufrag and 128 of pwd at least.
        self.credentials = Credentials(f"{rng.getrandbits(32):08x}", f"{rng.getrandbits(128):032x}")
        self.role = role
        self._rng = rng
        self._ta = ta
        self._tie_breaker = rng.getrandbits(64)
        self._remote_credentials: Credentials | None = None
        self._local: list[Candidate] = []
        self._remote: list[Candidate] = []
        self._complete = [False, False]
        self._list = CheckList(role is Role.CONTROLLING)
        self._checks: dict[bytes, Check] = {}
        self._early: list[tuple[Message, Address, Address]] = []
        self._next_slot = now
        self._deadline = now + PATIENCE
        self._choose_at: float | None = None
        self._nominating: CandidatePair | None = None
        self._selected: CandidatePair | None = None
        self._outgoing: list[Transmit] = []
        self._events: list[Event] = []

    @property
    def controlling(self) -> bool:
        return self.role is Role.CONTROLLING

    @property
    def selected(self) -> CandidatePair | None:
        """The pair that both agents know to be nominated."""
        return self._selected

    @property
    def report(self) -> Report:
        """What is known now."""
        pairs = tuple(report.of_pair(pair) for pair in self._list)
        return Report(
            self.role,
            self._list.state,
            tuple(self._local),
            tuple(self._remote),
            pairs,
            report.of_pair(self._selected) if self._selected is not None else None,
        )

    @property
    def pairs(self) -> tuple[CandidatePair, ...]:
        """The pairs known now, the best first."""
        return tuple(self._list)

    def nominate(self, pair: CandidatePair, now: float) -> None:
        """Choose this pair: the layer above has found that it works. No effect for a controlled agent, nor when a pair
        is selected already."""
        if not self.controlling or not self._is_running or pair is self._nominating:
            return
        if pair.state in (PairState.FROZEN, PairState.FAILED):
            pair.move(PairState.WAITING)
        self._nominate(pair, now)

    def add_local_candidate(self, candidate: Candidate, now: float) -> None:
        """A candidate of ours was gathered."""
        self._local.append(candidate)
        for remote in self._remote:
            self._list.pair(candidate, remote)

    def add_remote_candidate(self, candidate: Candidate, now: float) -> None:
        """The peer named a candidate. More than `MAX_REMOTE_CANDIDATES` are ignored."""
        if not self._is_running:
            return
        for index, known in enumerate(self._remote):
            if known.address == candidate.address:
                # §7.3.1.3: what a check revealed is now known by its proper name; its pairs stay.
                if known.kind is CandidateKind.PEER_REFLEXIVE:
                    self._remote[index] = candidate
                    self._list.rename(known, candidate)
                return
        if len(self._remote) >= MAX_REMOTE_CANDIDATES:
            return
        self._remote.append(candidate)
        for local in self._local:
            self._list.pair(local, candidate)

    def set_remote_credentials(self, ufrag: str, pwd: str, now: float) -> None:
        """The peer's ufrag and pwd: checks can begin."""
        self._remote_credentials = Credentials(ufrag, pwd)
        # RFC 8863 §4: the time for checks begins when both sides can check.
        self._deadline = max(self._deadline, now + PATIENCE)
        early, self._early = self._early, []
        for message, source, destination in early:
            self._follow_up(message, source, destination, now)

    def end_of_local_candidates(self) -> None:
        """Gathering is over."""
        self._complete[0] = True

    def end_of_remote_candidates(self) -> None:
        """The peer will name no more candidates."""
        self._complete[1] = True

    def close(self) -> None:
        """Stop; nothing more is sent, answered or reported."""
        self._stop(CheckListState.CLOSED)
        self._outgoing.clear()
        self._events.clear()

    def receive(self, data: bytes, source: Address, destination: Address, now: float) -> bool:
        """Take in a datagram; returns whether it was ours. What is not authentic changes nothing."""
        try:
            message = Message.decode(data)
        except StunDecodeError:
            return False
        if self._list.state is CheckListState.CLOSED:
            return False
        if message.kind is Kind.REQUEST:
            return self._receive_request(message, source, destination, now)
        check = self._checks.get(message.transaction_id)
        if check is None or message.method is not Method.BINDING or message.kind is Kind.INDICATION:
            return False
        if self._remote_credentials is None or not message.verify(self._remote_credentials.key):
            return True
        self._receive_response(check, message, source, destination, now)
        return True

    def timeout(self) -> float | None:
        """When `handle_timeout` wants to be called next."""
        if not self._is_running:
            return None
        times = [self._deadline]
        if self._choose_at is not None:
            times.append(self._choose_at)
        if self._remote_credentials is not None:
            due = [check.next_send for check in self._checks.values() if not check.cancelled]
            if self._list.has_next:
                due.append(self._next_slot)
            times += [max(time, self._next_slot) for time in due]
        return min(times)

    def handle_timeout(self, now: float) -> None:
        """Send the check that is due, choose a pair whose time has come, give up when it is time to."""
        if not self._is_running:
            return
        if self._choose_at is not None and now >= self._choose_at:
            self._choose(now)
        if now >= self._next_slot and self._remote_credentials is not None:
            self._send_check(now)
        if now >= self._deadline:
            self._give_up(now)

    def transmits(self) -> Iterator[Transmit]:
        """The datagrams to send, each once."""
        while self._outgoing:
            yield self._outgoing.pop(0)

    def events(self) -> Iterator[Event]:
        """What happened, each once."""
        while self._events:
            yield self._events.pop(0)

    @property
    def _is_running(self) -> bool:
        return self._list.state is CheckListState.RUNNING

    def _stop(self, state: CheckListState) -> None:
        """End all checks; the list goes to its last state."""
        self._list.stop(state)
        self._checks.clear()
        self._early.clear()
        self._choose_at = None
        self._nominating = None

    def _send_check(self, now: float) -> None:
        """Send the most urgent check, if there is one: triggered, to be repeated, or the best that waits."""
        pair = self._list.next_triggered()
        if pair is None:
            for check in self._due(now):
                if not check.exhausted:
                    self._transmit(check, now)
                    return
                self._fail(check.pair, now)
                if now < self._next_slot:
                    return
            pair = self._list.next_ordinary()
        if pair is not None:
            self._begin_check(pair, now, nominate=pair is self._nominating)

    def _due(self, now: float) -> list[Check]:
        """The checks to repeat or give up, the longest overdue first."""
        due = [check for check in self._checks.values() if not check.cancelled and check.next_send <= now]
        return sorted(due, key=lambda check: check.next_send)

    def _begin_check(self, pair: CandidatePair, now: float, *, nominate: bool) -> None:
        assert self._remote_credentials is not None
        for other in self._checks.values():
            if other.pair is pair:
                other.cancelled = True
        # §7.1.1: the priority that a peer-reflexive candidate would have.
        revealed = priority(CandidateKind.PEER_REFLEXIVE, pair.local.priority >> 8 & MAX_LOCAL_PREFERENCE)
        identifier = transaction_id(self._rng)
        request = checks.request(
            identifier,
            self.credentials,
            self._remote_credentials,
            revealed,
            controlling=self.controlling,
            tie_breaker=self._tie_breaker,
            nominate=nominate,
        )
        check = Check(pair, identifier, request, nominate, self.controlling, now, now)
        self._checks[identifier] = check
        pair.move(PairState.IN_PROGRESS)
        self._transmit(check, now)

    def _transmit(self, check: Check, now: float) -> None:
        self._outgoing.append(Transmit(check.request, check.pair.base, check.pair.remote.address))
        check.count_sent(now)
        self._next_slot = now + self._ta

    def _forget_checks(self, pair: CandidatePair) -> None:
        for identifier in [i for i, check in self._checks.items() if check.pair is pair]:
            del self._checks[identifier]

    def _fail(self, pair: CandidatePair, now: float) -> None:
        self._forget_checks(pair)
        if pair.state is PairState.IN_PROGRESS:
            pair.move(PairState.FAILED)
        if pair is self._nominating:
            # §8.1.1: another valid pair takes its place.
            self._nominating = None
            self._consider(now)

    def _receive_request(self, message: Message, source: Address, destination: Address, now: float) -> bool:
        if not checks.is_authentic_request(message, self.credentials):
            return False
        if self._list.state is CheckListState.FAILED:
            return True
        if not self._agree_on_roles(message, now):
            refusal = responses.error(message, ROLE_CONFLICT, key=self.credentials.key)
            self._outgoing.append(Transmit(refusal, destination, source))
            return True
        # §7.3.1.2: where the check came from.
        answer = responses.success(message, XorMappedAddress(source), key=self.credentials.key)
        self._outgoing.append(Transmit(answer, destination, source))
        if self._remote_credentials is None:
            if len(self._early) < MAX_EARLY_CHECKS:
                self._early.append((message, source, destination))
        else:
            self._follow_up(message, source, destination, now)
        return True

    def _agree_on_roles(self, message: Message, now: float) -> bool:
        """§7.3.1.1: when both have the same role, the greater tie-breaker controls. False: the peer must switch."""
        claim = message.get(IceControlling if self.controlling else IceControlled)
        if claim is None:
            return True
        if (self._tie_breaker >= claim.value) == self.controlling:
            return False
        self._switch_role(now)
        return True

    def _switch_role(self, now: float) -> None:
        self.role = Role.CONTROLLED if self.controlling else Role.CONTROLLING
        self._list.set_controlling(self.controlling)
        self._nominating = None
        self._choose_at = None
        self._events.append(RoleChanged(self.role))
        self._consider(now)

    def _follow_up(self, message: Message, source: Address, destination: Address, now: float) -> None:
        """What an authentic check says of its pair (§7.3.1.3 to §7.3.1.5)."""
        pair = self._pair_of(message, source, destination)
        if pair is None:
            return
        if message.get(UseCandidate) is not None and not self.controlling:
            pair.nominated_by_peer = True
            if pair.state is PairState.SUCCEEDED:
                self._select(pair)
        if self._is_running:
            self._list.trigger(pair)

    def _pair_of(self, message: Message, source: Address, destination: Address) -> CandidatePair | None:
        pair = self._list.find(destination, source)
        if pair is not None or not self._is_running:
            return pair
        local = next((c for c in self._local if (c.base or c.address) == destination), None)
        if local is None:
            return None
        remote = next((c for c in self._remote if c.address == source), None)
        if remote is not None:
            return self._list.pair(local, remote)
        claimed = message.get(Priority)
        if claimed is None or len(self._remote) >= MAX_REMOTE_CANDIDATES:
            return None
        # §7.3.1.3: a candidate that nobody has named; its foundation is like no other.
        name = foundation(CandidateKind.PEER_REFLEXIVE, str(source))
        remote = Candidate(kind=CandidateKind.PEER_REFLEXIVE, address=source, priority=claimed.value, foundation=name)
        pair = self._list.pair(local, remote)
        if pair is not None:
            self._remote.append(remote)
        return pair

    def _receive_response(
        self, check: Check, message: Message, source: Address, destination: Address, now: float
    ) -> None:
        pair = check.pair
        if source != pair.remote.address or destination != pair.base:
            # §7.2.5.2.1: an answer that took another way says nothing of this one.
            self._fail(pair, now)
            return
        del self._checks[check.transaction_id]
        if message.kind is Kind.ERROR:
            self._receive_error(check, message.error.code, now)
            return
        mapped = message.get(XorMappedAddress)
        if mapped is None or message.unknown_required:
            # RFC 8489 §6.3.3: an answer that can't be understood is as good as none.
            if not check.cancelled:
                self._fail(pair, now)
            return
        if check.sent == 1:
            pair.rtt = now - check.first_sent
        if pair.state is not PairState.IN_PROGRESS or (pair is self._nominating and not check.nominating):
            # Decided meanwhile, or an answer to a check that the nomination has replaced.
            return
        self._forget_checks(pair)
        pair.move(PairState.SUCCEEDED)
        self._note_mapped(pair, mapped.address)
        self._list.thaw(pair.foundation)
        self._deadline = max(self._deadline, now + PATIENCE)
        if check.nominating and self.controlling:
            self._select(pair)
            return
        self._events.append(PairValid(pair))
        if pair.nominated_by_peer and not self.controlling:
            self._select(pair)
        else:
            self._consider(now)

    def _receive_error(self, check: Check, code: int, now: float) -> None:
        pair = check.pair
        if code == ROLE_CONFLICT and check.controlling == self.controlling:
            # §7.2.5.1: the peer keeps its role; ours changes, and the tie-breaker with it.
            self._tie_breaker = self._rng.getrandbits(64)
            self._switch_role(now)
        if check.cancelled or pair.state is not PairState.IN_PROGRESS:
            # Another check of the pair is on its way, or was answered.
            return
        if code == ROLE_CONFLICT:
            pair.move(PairState.WAITING)
            self._list.trigger(pair)
        else:
            self._fail(pair, now)

    def _note_mapped(self, pair: CandidatePair, mapped: Address) -> None:
        """§7.2.5.3.1: a mapped address that no candidate of ours has is a new, peer-reflexive one."""
        if any(candidate.address == mapped for candidate in self._local):
            return
        base = pair.base
        self._local.append(
            Candidate(
                kind=CandidateKind.PEER_REFLEXIVE,
                address=mapped,
                priority=priority(CandidateKind.PEER_REFLEXIVE, pair.local.priority >> 8 & MAX_LOCAL_PREFERENCE),
                foundation=foundation(CandidateKind.PEER_REFLEXIVE, base.host, pair.remote.address.host),
                related_address=base,
                base=base,
            )
        )

    def _consider(self, now: float) -> None:
        """Nominate a valid pair: the best of all at once, another if none better turns up in a moment (§8.1.1)."""
        if not self.controlling or not self._is_running or self._nominating is not None:
            return
        best = self._best_valid
        if best is None:
            return
        if best is next(iter(self._list)):
            self._choose(now)
        elif self._choose_at is None:
            self._choose_at = now + NOMINATION_PATIENCE

    @property
    def _best_valid(self) -> CandidatePair | None:
        return next((pair for pair in self._list if pair.state is PairState.SUCCEEDED), None)

    def _choose(self, now: float) -> None:
        self._choose_at = None
        if (best := self._best_valid) is not None:
            self._nominate(best, now)

    def _nominate(self, pair: CandidatePair, now: float) -> None:
        self._choose_at = None
        self._nominating = pair
        self._events.append(Nominating(pair))
        self._begin_check(pair, now, nominate=True)

    def _select(self, pair: CandidatePair) -> None:
        if self._selected is not None:
            return
        pair.nominated = True
        self._selected = pair
        # §8.1.1: a selected pair ends all other checks.
        self._stop(CheckListState.COMPLETED)
        self._events.append(Selected(pair))

    def _give_up(self, now: float) -> None:
        """Patience is over (§8.1.2, RFC 8863 §4)."""
        reason = self._failure()
        self._stop(CheckListState.FAILED)
        self._events.append(Failed(reason))

    def _failure(self) -> str:
        if self._remote_credentials is None:
            return "the peer's candidates never came"
        if len(self._list) == 0:
            return "no candidate of ours has a counterpart of the peer's in the same address family"
        if not self.controlling and self._best_valid is not None:
            return "a candidate pair works, but the peer, whose choice it is, never chose one"
        count = sum(1 for pair in self._list if pair.checks_sent)
        reason = f"none of {count} candidate pairs let a check through and its answer back"
        return reason if all(self._complete) else f"{reason}, and not all candidates are known"
