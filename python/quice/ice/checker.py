"""Which check of a generation goes out next, and which pair it nominates (RFC 8445 §6.1.4.2, §7.2.4, §8.1.1)."""

from __future__ import annotations

from quice.ice.checks import Check, Checks
from quice.ice.generation import Generation
from quice.ice.pacing import rto
from quice.ice.pair import CandidatePair, PairState
from quice.ice.sender import Sender


class Checker:
    """Begins, repeats and gives up the checks of one generation."""

    def __init__(self, generation: Generation, sender: Sender) -> None:
        self.checks = Checks()
        self.nominee: CandidatePair | None = None
        """The pair whose next check nominates it."""
        self._number = 0
        self._generation = generation
        self._list = generation.checklist
        self._sender = sender

    def next_time(self, ordinary: bool) -> float | None:
        """When a check is to be sent, repeated or given up. `ordinary`: whether any but triggered ones may begin."""
        slot = self._sender.slot
        if self._list.has_triggered or (ordinary and self._list.has_next):
            return slot
        due = self.checks.next_due
        return None if due is None else max(due, slot)

    def given_up(self, now: float) -> CandidatePair | None:
        """A pair whose check was repeated in vain, as often as may be."""
        check = self.checks.due(now)
        return check.pair if check is not None and check.exhausted else None

    def send_next(self, now: float, *, controlling: bool, ordinary: bool) -> None:
        """Send the most urgent check: a triggered one, one to be repeated, or the best that waits."""
        pair = self._list.next_triggered()
        if pair is None and (check := self.checks.due(now)) is not None:
            self._transmit(check, now)
            return
        if pair is None and ordinary:
            pair = self._list.next_ordinary()
        if pair is not None:
            self._begin(pair, now, controlling)

    def nominate(self, pair: CandidatePair, number: int, now: float) -> None:
        """Check this pair next, so that the peer learns that it is chosen."""
        for each in (self.nominee, pair):
            if each is not None:
                self.checks.cancel(each, now)
        self.nominee, self._number = pair, number
        # §8.1.1: the check that made the pair valid is repeated. One that QUIC has found to work may have had none.
        if not pair.is_valid:
            pair.move(PairState.WAITING)
        self._list.enqueue(pair)

    def renounce(self) -> None:
        """Nominate nothing."""
        if self.nominee is not None:
            self._list.dequeue(self.nominee)
            self.nominee = None

    def trigger(self, pair: CandidatePair, now: float) -> None:
        """§7.3.1.4: the peer has checked this pair, so that a check of ours will probably get through."""
        self.checks.cancel(pair, now)
        self._list.trigger(pair)

    def succeed(self, pair: CandidatePair) -> None:
        """The pair works. What else is on its way for it does not matter any more, but for its nomination."""
        if pair is not self.nominee:
            self.checks.forget(pair)
            self._list.dequeue(pair)
        self._list.succeed(pair)

    def fail(self, pair: CandidatePair) -> None:
        """The pair does not work, or no longer."""
        self.checks.forget(pair)
        self._list.fail(pair)
        if pair is self.nominee:
            self.nominee = None

    def conclude(self, selected: CandidatePair, now: float) -> None:
        """§8.1.2: checks end, but those of better pairs if one may still replace the selected one."""
        better = self._list.conclude(selected, self._generation.continual)
        for pair in self.checks.pairs:
            if pair not in better:
                self.checks.cancel(pair, now)

    def stop(self) -> None:
        """No check begins or counts any more."""
        self._list.forget_triggered()
        self.checks.clear()
        self.nominee = None

    def _begin(self, pair: CandidatePair, now: float, controlling: bool) -> None:
        generation = self._generation
        assert generation.peer is not None
        local, remote = generation.credentials, generation.peer.credentials
        if not pair.is_valid:
            pair.move(PairState.IN_PROGRESS)
        number = self._number if pair is self.nominee else None
        identifier = self._sender.new_id()
        request = self._sender.check(pair, identifier, local, remote, controlling=controlling, nomination=number)
        wait = rto(self._sender.ta, self._list.unchecked)
        check = Check(pair, identifier, request, remote.key, number is not None, controlling, now, wait)
        self.checks.add(check, now)
        self._transmit(check, now)

    def _transmit(self, check: Check, now: float) -> None:
        check.count_sent(now)
        self._sender.send_request(check.request, check.pair, now)
