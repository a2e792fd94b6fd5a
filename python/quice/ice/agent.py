"""An ICE agent for one QUIC component (RFC 8445), without sockets or clock.

Theory of operation. The agent pairs each local with each remote candidate as they become known (trickle, RFC
8838) and checks the pairs, one every Ta seconds at most: consent to what is in use first, then triggered ones, then
repetitions that are due, then the best of the others. A pair whose check is answered is valid. What follows from
that is the business of a `Strategy`: the controlling agent nominates (`controlling`), the controlled one takes what
is nominated (`controlled`), a lite one answers and waits (`lite`).

The selected pair, and the best of the other valid ones for a while, are kept alive by requests for consent
(RFC 7675), until the layer above says that it looks after the pair itself. When the pair is lost, or a better one
turns up, another is nominated. A restart begins a new `Generation` of credentials, candidates and pairs; the selected
pair of the old one stays in use until the new one has its own.

See `quice.wire` for the contract that all machines follow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from quice.ice import report
from quice.ice.budget import Budget
from quice.ice.candidate import Candidate
from quice.ice.checker import Checker
from quice.ice.checklist import MAX_PAIRS, CheckListState
from quice.ice.checks import Check, Credentials, called_ufrag
from quice.ice.consent import Consent, Consents
from quice.ice.events import (
    ConsentExpired,
    Event,
    Failed,
    Lost,
    Nominating,
    PairValid,
    Restarted,
    Role,
    RoleChanged,
    Selected,
)
from quice.ice.generation import EarlyCheck, Generation, Peer
from quice.ice.pacing import DEFAULT_TA, Pacer, agreed_ta
from quice.ice.pair import CandidatePair, PairState
from quice.ice.report import Report
from quice.ice.roles import ROLES, STRATEGIES
from quice.ice.sender import Sender
from quice.ice.strategy import Strategy
from quice.stun import StunDecodeError
from quice.stun.attributes import IceControlled, IceControlling, Nomination, UseCandidate, XorMappedAddress
from quice.stun.message import Kind, Message, Method
from quice.stun.responses import ROLE_CONFLICT
from quice.wire import Address, Random, Transmit

PATIENCE = 10.0
"""Seconds for which a pair may still turn up and work, whatever has failed by then (RFC 8863 §4). They begin anew when
the peer's password comes, when a pair becomes valid, which may be just in time, and when the selected one is lost.
The RFC would wait 39.5 s, the time that one check may take, but leaves it to the application: what has let none of
five checks through in 10 s is not going to be a path that anybody wants."""
LATE_PATIENCE = 5.0
"""Seconds at least that a candidate has which comes late."""
REVIVAL = 5.0
"""Seconds after which an insistent agent looks for checks that were given up, to begin them again: so that no pair is
left alone for longer than the 16 s before a check's last repetition, and firewalls stay open for the peer's checks."""
NOMINATION_TIME = 40.0
"""Seconds that one nomination may take (RFC 8489 §6.2.1: 39.5)."""
FREE_AFTER = 3.0
"""§8.3.1: seconds after the selection for which checks on other pairs may still come and are answered."""
_FORBIDDEN = 403


class Agent:
    """The ICE agent of one session."""

    def __init__(
        self,
        role: Role,
        rng: Random,
        now: float,
        *,
        lite: bool = False,
        ta: float = DEFAULT_TA,
        patience: float = PATIENCE,
        insistent: bool = False,
        max_pairs: int = MAX_PAIRS,
        pacer: Pacer | None = None,
        budget: Budget | None = None,
    ) -> None:
        """`rng` makes ufrag, pwd, tie-breaker and transaction ids.

        lite: answer checks and send none; for a machine without NAT or firewall (§2.5). ta: the seconds between
        checks to propose to the peer. insistent: the peer may begin long after this agent, so that what no check got
        through is checked again for as long as patience lasts. pacer: the one that all agents and gatherers of the
        program share. budget: what the peer may have us send to where it says that it is.
        """
        self.role = role
        self.lite = lite
        self.proposed_ta = ta
        self._patience = patience
        self._insistent = insistent
        self._max_pairs = max_pairs
        self._sender = Sender(rng, now, ta, pacer or Pacer(), budget or Budget())
        self._consents = Consents(rng)
        self._events: deque[Event] = deque()
        self._previous: Generation | None = None
        self._begin(Generation(0, self._sender.new_credentials(), self.controlling, max_pairs, now), now)

    def _begin(self, generation: Generation, now: float) -> None:
        """Work with this generation from now on."""
        self._generation = generation
        self._checker = Checker(generation, self._sender)
        self._strategy = self._new_strategy()
        self._deadline = now + self._patience
        self._revive_at: float | None = None
        self._free_at: float | None = None

    @property
    def controlling(self) -> bool:
        return self.role is Role.CONTROLLING

    @property
    def _is_seeking(self) -> bool:
        """Whether nothing works yet."""
        checklist = self._generation.checklist
        return checklist.is_running and next(checklist.valid, None) is None

    @property
    def credentials(self) -> Credentials:
        """Our ufrag and pwd, which the peer must be told."""
        return self._generation.credentials

    @property
    def generation(self) -> int:
        """How often ICE has been restarted."""
        return self._generation.number

    @property
    def selected(self) -> CandidatePair | None:
        """The pair that both agents know to be nominated; after a restart the former one until there is a new one."""
        if self._generation.selected is not None or self._previous is None:
            return self._generation.selected
        return self._previous.selected

    @property
    def report(self) -> Report:
        """What is known now."""
        generation = self._generation
        selected = self.selected
        return Report(
            self.role,
            generation.checklist.state,
            tuple(generation.local),
            tuple(generation.remote),
            tuple(report.of_pair(pair) for pair in generation.checklist),
            report.of_pair(selected) if selected is not None else None,
            generation.number,
        )

    @property
    def pairs(self) -> tuple[CandidatePair, ...]:
        """The pairs known now, the best first."""
        return tuple(self._generation.checklist)

    # What gathering and signalling bring.

    def add_local_candidate(self, candidate: Candidate, now: float) -> None:
        """A candidate of ours was gathered."""
        if self._generation.is_active:
            self._generation.add_local(candidate)

    def remove_local_base(self, base: Address, now: float) -> None:
        """An address of ours is gone (§5.1.1.4), and with it all that was sent from there."""
        if self._is_closed:
            return
        for generation in (self._generation, self._previous):
            for pair in generation.remove_base(base) if generation is not None else ():
                self._drop(pair, now)

    def add_remote_candidate(self, candidate: Candidate, now: float, ufrag: str | None = None) -> None:
        """The peer named a candidate. More than `MAX_REMOTE_CANDIDATES` are ignored.

        ufrag: the peer's, to which the candidate belongs; one of another generation is ignored, too.
        """
        generation = self._generation
        if not generation.is_active or not self._generation.is_of_peer(ufrag):
            return
        if generation.remote_complete and not generation.continual:
            # RFC 8838 §14.
            return
        if generation.add_remote(candidate) and generation.checklist.is_running:
            late = min(now + LATE_PATIENCE, generation.started + 2 * self._patience)
            self._deadline = max(self._deadline, late)

    def set_remote_credentials(
        self,
        ufrag: str,
        pwd: str,
        now: float,
        *,
        lite: bool = False,
        ta: float | None = None,
        renomination: bool = False,
    ) -> None:
        """What the peer says of itself (§5.3): checks can begin.

        lite: it only answers checks. ta: the pacing it proposes. renomination: it can be given another pair later,
        as this agent can. Another ufrag than before means that the peer has restarted ICE: unless it answers a
        restart of ours, this agent restarts, too, and says so (§9).
        """
        if self._is_closed:
            return
        peer = Peer(Credentials(ufrag, pwd), lite, ta, renomination)
        known = self._generation.peer
        if known is not None:
            if known.credentials == peer.credentials:
                return
            self.restart(now)
        elif self._generation.checklist.state is CheckListState.FAILED:
            return
        self._generation.peer = peer
        self._sender.ta = agreed_ta(self.proposed_ta, ta)
        # RFC 8863 §4: the time for checks begins when both sides can check.
        self._deadline = max(self._deadline, now + self._patience)
        if self._insistent:
            self._revive_at = now + REVIVAL
        self._take_role(ROLES[self.lite, lite, self.role], now)
        early, self._generation.early = self._generation.early, deque()
        for each in early:
            self._follow_up(each.message, each.source, each.destination, now)
        self._note_completeness(now)

    def end_of_local_candidates(self, now: float) -> None:
        """Gathering is over."""
        self._generation.local_complete = True
        self._note_completeness(now)

    def end_of_remote_candidates(self, now: float, ufrag: str | None = None) -> None:
        """The peer will name no more candidates."""
        if self._generation.is_of_peer(ufrag):
            self._generation.remote_complete = True
            self._note_completeness(now)

    def restart(self, now: float) -> None:
        """Begin anew with other credentials (§9), for a network that has changed.

        The selected pair stays in use until there is a new one. The local candidates stay; take away those that are
        gone by `remove_local_base`. The peer must be told the new credentials and all candidates.
        """
        if self._is_closed:
            return
        if self._generation.selected is not None:
            self._previous = self._generation
        self._consents.drop_all_but(self._previous.selected if self._previous is not None else None)
        number = self._generation.number + 1
        credentials = self._sender.new_credentials()
        self._begin(self._generation.renewed(number, credentials, self.controlling, self._max_pairs, now), now)
        self._events.append(Restarted(number))

    # What the layer above knows of its pairs.

    def nominate(self, pair: CandidatePair, now: float) -> None:
        """Choose this pair: the layer above has found that it works.

        No effect for a controlled agent, nor when a pair is selected and the peer takes no other.
        """
        if self._can_check and not pair.barred:
            pair.is_answered = True
            # It works: that the nomination's packets get lost is no reason to give up.
            self._deadline = max(self._deadline, now + NOMINATION_TIME)
            self._strategy.choose(pair, now)

    def entrust(self, pair: CandidatePair, now: float) -> None:
        """QUIC itself sees to it that the peer answers on this pair: no more requests for consent.

        From then on it says `pair_lost` when the peer does not.
        """
        consent = self._consents.get(pair)
        if consent is not None:
            consent.entrust(now)

    def pair_used(self, pair: CandidatePair, now: float, rtt: float | None = None) -> None:
        """A packet went out on this pair, so that no keepalive has to. `rtt`: QUIC's own measurement."""
        consent = self._consents.get(pair)
        if consent is not None:
            consent.count_sent(now)
        if rtt is not None:
            pair.rtt = rtt

    def pair_lost(self, pair: CandidatePair, now: float, instead: CandidatePair | None = None) -> None:
        """The peer does not answer on this pair any more. instead: what has taken its place, if that is known."""
        if self._is_closed or not pair.is_valid:
            return
        self._drop(pair, now, instead)

    def close(self) -> None:
        """Stop; nothing more is sent, answered or reported."""
        self._generation.checklist.move(CheckListState.CLOSED)
        self._stop_checks()
        self._consents.drop_all_but(None)
        self._sender.clear()
        self._events.clear()

    # The contract of all machines.

    def receive(self, data: bytes, source: Address, destination: Address, now: float) -> bool:
        """Take in a datagram; returns whether it was ours. What is not authentic changes nothing."""
        try:
            message = Message.decode(data)
        except StunDecodeError:
            return False
        if self._is_closed:
            return False
        if message.kind is Kind.REQUEST:
            taken = self._receive_request(message, source, destination, now)
        elif message.method is Method.BINDING and message.kind is not Kind.INDICATION:
            taken = self._receive_response(message, source, destination, now)
        else:
            return False
        # What a check triggers, and the nomination of what an answer makes valid, need not wait for a timer.
        if taken and (self._generation.checklist.has_triggered or self._strategy.timeout() is not None):
            self.handle_timeout(now)
        return taken

    def timeout(self) -> float | None:
        """When `handle_timeout` wants to be called next."""
        if self._is_closed:
            return None
        times = []
        if self._generation.checklist.is_running:
            times.append(self._deadline)
        if self._is_seeking and self._revive_at is not None:
            times.append(self._revive_at)
        if self._free_at is not None:
            times.append(self._free_at)
        if (due := self._strategy.timeout()) is not None:
            times.append(due)
        if (due := self._checker.next_time(self._can_check)) is not None:
            times.append(due)
        if (due := self._consents.next_time(self._sender.slot)) is not None:
            times.append(due)
        return min(times, default=None)

    def handle_timeout(self, now: float) -> None:
        """Send the check that is due, choose a pair whose time has come, give up when it is time to."""
        if self._is_closed:
            return
        self._strategy.handle_timeout(now)
        self._look_after_pairs(now)
        if self._is_seeking and self._revive_at is not None and now >= self._revive_at:
            self._revive_at = now + REVIVAL
            self._generation.checklist.revive(())
        if now >= self._sender.slot:
            self._send_request(now)
        if self._free_at is not None and now >= self._free_at:
            self._free()
        if self._generation.checklist.is_running and now >= self._deadline:
            self._fail(report.failure(self._generation, self.controlling))

    def transmits(self) -> Iterator[Transmit]:
        """The datagrams to send, each once."""
        return self._sender.transmits()

    def events(self) -> Iterator[Event]:
        """What happened, each once."""
        while self._events:
            yield self._events.popleft()

    # What a strategy may do to its agent.

    def begin_nomination(self, pair: CandidatePair, number: int, now: float) -> None:
        """Tell the peer that this pair is chosen, by a check of it."""
        self._checker.nominate(pair, number, now)
        self._events.append(Nominating(pair))

    def select(self, pair: CandidatePair, now: float) -> None:
        """Both agents know that this is the pair (§8.1.2)."""
        generation = self._generation
        former, generation.selected = generation.selected, pair
        if former is not None:
            former.nominated = False
        pair.nominated = True
        generation.checklist.move(CheckListState.COMPLETED)
        self._checker.conclude(pair, now)
        if self._previous is not None and self._previous.selected is not None:
            self._consents.drop(self._previous.selected)
        self._keep_alive(pair, now)
        self._free_at = now + FREE_AFTER
        self._events.append(Selected(pair))

    # The rest is nobody else's business.

    @property
    def _is_closed(self) -> bool:
        return self._generation.checklist.state is CheckListState.CLOSED

    @property
    def _can_check(self) -> bool:
        return self._generation.peer is not None and self._strategy.checks and self._generation.is_active

    def _new_strategy(self) -> Strategy:
        peer = self._generation.peer
        return STRATEGIES[self.lite, peer is not None and peer.lite, self.role](self._generation, self)

    def _take_role(self, role: Role, now: float) -> None:
        if role is not self.role:
            self.role = role
            self._generation.checklist.set_controlling(self.controlling)
            self._events.append(RoleChanged(role))
        self._checker.renounce()
        self._strategy = self._new_strategy()
        best = next(self._generation.checklist.valid, None)
        if best is not None:
            self._strategy.pair_valid(best, now)

    def _note_completeness(self, now: float) -> None:
        if self._generation.is_complete and self._generation.is_active:
            self._strategy.candidates_complete(now)

    def _send_request(self, now: float) -> None:
        """Send the most urgent request, if there is one."""
        while (pair := self._checker.given_up(now)) is not None:
            self._drop(pair, now)
        consent = self._consents.due(now)
        if consent is not None:
            self._ask_consent(consent, now)
        else:
            self._checker.send_next(now, controlling=self.controlling, ordinary=self._can_check)

    # Answering checks.

    def _receive_request(self, message: Message, source: Address, destination: Address, now: float) -> bool:
        ufrag = called_ufrag(message)
        generation = next((g for g in (self._generation, self._previous) if g and g.credentials.ufrag == ufrag), None)
        if generation is None or not message.verify(generation.key):
            return False
        if generation is self._previous:
            # §9: the former pair stays in use, and the peer asks for consent on it.
            self._sender.answer(message, source, destination, generation.key)
            return True
        freed = self._free_at is None and generation.is_freed(destination, source)
        if freed or generation.checklist.state is CheckListState.FAILED:
            return True
        if not self._agree_on_roles(message, now):
            self._sender.refuse(message, source, destination, generation.key)
            return True
        self._sender.answer(message, source, destination, generation.key)
        if generation.peer is None:
            generation.keep_early(EarlyCheck(message, source, destination))
        else:
            self._follow_up(message, source, destination, now)
        return True

    def _agree_on_roles(self, message: Message, now: float) -> bool:
        """§7.3.1.1: when both have the same role, the greater tie-breaker controls. False: the peer must switch."""
        claim = message.get(IceControlling if self.controlling else IceControlled)
        if claim is None or self.lite:
            return True
        if (self._sender.tie_breaker >= claim.value) == self.controlling:
            return False
        self._take_role(self.role.opposite, now)
        return True

    def _follow_up(self, message: Message, source: Address, destination: Address, now: float) -> None:
        """What an authentic check says of its pair (§7.3.1.3 to §7.3.1.5)."""
        pair = self._generation.pair_of(message, source, destination)
        if pair is None or pair.barred:
            return
        if message.get(UseCandidate) is not None:
            number = message.get(Nomination)
            self._strategy.nominated(pair, number.value if number is not None else None, now)
        if self._can_check and not pair.is_valid:
            self._checker.trigger(pair, now)

    # Receiving answers.

    def _receive_response(self, message: Message, source: Address, destination: Address, now: float) -> bool:
        checks = self._checker.checks
        check = checks.get(message.transaction_id)
        if check is None:
            return self._receive_consent(message, source, destination, now)
        if not message.verify(check.key):
            return True
        pair = check.pair
        current = checks.is_current(check)
        checks.end(check)
        if source != pair.remote.address or destination != pair.base:
            # §7.2.5.2.1: an answer that took another way says nothing of this one.
            self._drop(pair, now)
        elif message.kind is Kind.ERROR:
            self._receive_error(check, message.error.code, current, now)
        elif (mapped := message.get(XorMappedAddress)) is None or message.unknown_required:
            # RFC 8489 §6.3.3: an answer that can't be understood is as good as none.
            if current:
                self._drop(pair, now)
        elif pair.state is not PairState.FAILED and (current or now < check.expires):
            self._receive_success(check, mapped.address, now)
        return True

    def _receive_success(self, check: Check, mapped: Address, now: float) -> None:
        pair, generation = check.pair, self._generation
        pair.is_answered = True
        if check.sent == 1:
            pair.measure(now - check.first_sent)
        if not pair.is_valid:
            self._checker.succeed(pair)
            generation.note_mapped(pair, mapped)
            self._deadline = max(self._deadline, now + self._patience)
            self._events.append(PairValid(pair))
            self._keep_others_ready(now)
        if check.nominating and pair is self._checker.nominee:
            self._checker.checks.forget(pair)
            self._checker.renounce()
            self._strategy.nomination_answered(pair, now)
        else:
            self._strategy.pair_valid(pair, now)

    def _receive_error(self, check: Check, code: int, current: bool, now: float) -> None:
        pair = check.pair
        if code == ROLE_CONFLICT and check.controlling == self.controlling:
            # §7.2.5.1: the peer keeps its role; ours changes, and the tie-breaker with it.
            self._sender.renew_tie_breaker()
            self._take_role(self.role.opposite, now)
        if not current:
            # Another check of the pair is on its way, or was answered.
            return
        if code != ROLE_CONFLICT:
            self._drop(pair, now)
        elif self._can_check and not pair.nominated:
            pair.move(PairState.WAITING)
            self._generation.checklist.enqueue(pair)

    # Losing pairs.

    def _drop(self, pair: CandidatePair, now: float, instead: CandidatePair | None = None) -> None:
        """The pair does not work, or no longer."""
        generation = self._generation
        self._consents.drop(pair)
        self._checker.fail(pair)
        if pair is generation.selected:
            self._lose_selected(pair, now, instead)
        elif self._previous is not None and pair is self._previous.selected:
            self._previous = None
            self._events.append(Lost(pair, next(generation.checklist.valid, None)))
        else:
            self._strategy.pair_failed(pair, now)

    def _lose_selected(self, pair: CandidatePair, now: float, instead: CandidatePair | None) -> None:
        generation = self._generation
        pair.nominated = False
        generation.selected = generation.checklist.floor = None
        self._free_at = None
        fresh = [each for each in generation.checklist.valid if each in self._consents]
        fallback = instead if instead in fresh else next(iter(fresh), None)
        self._events.append(Lost(pair, fallback))
        if not generation.continual:
            # §8.1.1: to nominate another pair takes an ICE restart.
            self._fail("the pair in use was lost, and with this peer it takes an ICE restart to choose another")
            return
        generation.checklist.move(CheckListState.RUNNING)
        generation.checklist.revive(fresh)
        self._deadline = now + self._patience
        self._strategy.pair_failed(pair, now)
        self._strategy.selected_lost(pair, fallback, now)

    def _free(self) -> None:
        """§8.3.1: what is left of the checks on other pairs, and the generation before a restart, is forgotten."""
        self._free_at = None
        self._previous = None
        self._checker.checks.free()

    def _fail(self, reason: str) -> None:
        """Patience is over, or there is nothing left to wait for (§8.1.2, RFC 8863 §4)."""
        self._generation.checklist.move(CheckListState.FAILED)
        self._stop_checks()
        self._consents.drop_all_but(self._previous.selected if self._previous is not None else None)
        self._events.append(Failed(reason))

    def _stop_checks(self) -> None:
        self._checker.stop()
        self._generation.early.clear()
        self._strategy = self._new_strategy()
        self._free_at = None

    # Keeping pairs alive.

    def _keep_alive(self, selected: CandidatePair, now: float) -> None:
        generation = self._generation
        assert generation.peer is not None
        local, remote = generation.credentials, generation.peer.credentials
        self._consents.hold(Consent(selected, local, remote, now, requests=not self.lite), now).use()
        self._keep_others_ready(now)

    def _keep_others_ready(self, now: float) -> None:
        """Other valid pairs may have to replace the selected one."""
        generation = self._generation
        if generation.selected is not None and generation.continual and generation.peer is not None:
            others = [pair for pair in generation.checklist.valid if pair is not generation.selected]
            self._consents.keep_ready(others, generation.credentials, generation.peer.credentials, now)

    def _look_after_pairs(self, now: float) -> None:
        for consent in self._consents:
            pair = consent.pair
            if consent.expires is not None and now >= consent.expires:
                self._end_consent(pair, now)
            elif consent.until is not None and now >= consent.until:
                self._consents.drop(pair)
            elif consent.next_keepalive is not None and now >= consent.next_keepalive:
                consent.count_sent(now)
                self._sender.keep_alive(pair)

    def _ask_consent(self, consent: Consent, now: float) -> None:
        pair, identifier = consent.pair, self._sender.new_id()
        self._consents.ask(consent, identifier, now)
        request = self._sender.check(pair, identifier, consent.local, consent.remote, controlling=self.controlling)
        self._sender.send_request(request, pair, now)

    def _receive_consent(self, message: Message, source: Address, destination: Address, now: float) -> bool:
        found = self._consents.outstanding(message.transaction_id)
        if found is None:
            return False
        consent, sent = found
        pair = consent.pair
        symmetric = source == pair.remote.address and destination == pair.base
        if not symmetric or not message.verify(consent.remote.key):
            return True
        self._consents.end(message.transaction_id)
        if message.kind is Kind.SUCCESS:
            consent.renew(now)
            pair.measure(now - sent)
            if self._generation.checklist.find(pair.base, pair.remote.address) is pair:
                self._strategy.pair_valid(pair, now)
        elif message.error.code == _FORBIDDEN:
            # RFC 7675 §5.2: the peer does not want to be sent anything.
            self._end_consent(pair, now)
        return True

    def _end_consent(self, pair: CandidatePair, now: float) -> None:
        pair.barred = True
        self._events.append(ConsentExpired(pair))
        self._drop(pair, now)
