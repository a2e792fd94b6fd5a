"""What an agent sends: paced requests, answers, keepalives (RFC 8445 §7.2, §11, §14)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from quice.ice import checks
from quice.ice.budget import Budget
from quice.ice.checks import Credentials
from quice.ice.generation import revealed_priority
from quice.ice.pacing import Pacer
from quice.ice.pair import CandidatePair
from quice.stun import responses
from quice.stun.attributes import XorMappedAddress
from quice.stun.message import Message
from quice.stun.responses import ROLE_CONFLICT
from quice.stun.transaction import transaction_id
from quice.wire import Address, Random, Transmit


class Sender:
    """Composes messages, keeps the pace, and has what is to go out."""

    def __init__(self, rng: Random, now: float, ta: float, pacer: Pacer, budget: Budget) -> None:
        self.ta = ta
        self._budget = budget
        self._rng = rng
        self._pacer = pacer
        self._next_slot = now
        self._outgoing: deque[Transmit] = deque()
        self.renew_tie_breaker()

    def renew_tie_breaker(self) -> None:
        """§7.2.5.1: who lost a conflict of roles takes another."""
        self.tie_breaker = self._rng.getrandbits(64)

    @property
    def slot(self) -> float:
        """When the next request may go out (§14.2)."""
        return max(self._next_slot, self._pacer.ready)

    def new_credentials(self) -> Credentials:
        """A ufrag and a pwd: §5.3 wants 24 and 128 bits at least."""
        return Credentials(f"{self._rng.getrandbits(32):08x}", f"{self._rng.getrandbits(128):032x}")

    def new_id(self) -> bytes:
        """A transaction id."""
        return transaction_id(self._rng)

    def check(
        self,
        pair: CandidatePair,
        identifier: bytes,
        local: Credentials,
        remote: Credentials,
        *,
        controlling: bool,
        nomination: int | None = None,
    ) -> bytes:
        """A check of a pair, or a request for consent. `nomination`: its number, if it is one."""
        return checks.request(
            identifier,
            local,
            remote,
            revealed_priority(pair.local),
            controlling=controlling,
            tie_breaker=self.tie_breaker,
            nominate=nomination is not None,
            nomination=nomination or 0,
        )

    def send_request(self, request: bytes, pair: CandidatePair, now: float) -> None:
        """Send a request on a pair: the next one waits its time. Beyond the budget it is lost."""
        if pair.is_answered or self._budget.take(len(request), now):
            self._outgoing.append(Transmit(request, pair.base, pair.remote.address))
        self._next_slot = now + self.ta
        self._pacer.take(now)

    def keep_alive(self, pair: CandidatePair) -> None:
        """Send a keepalive on a pair."""
        self._outgoing.append(Transmit(checks.keepalive(self.new_id()), pair.base, pair.remote.address))

    def answer(self, request: Message, source: Address, destination: Address, key: bytes) -> None:
        """Tell where a check came from (§7.3.1.2), back the way it came."""
        data = responses.success(request, XorMappedAddress(source.without_zone), key=key)
        self._outgoing.append(Transmit(data, destination, source))

    def refuse(self, request: Message, source: Address, destination: Address, key: bytes) -> None:
        """Refuse a check for its role (§7.3.1.1)."""
        data = responses.error(request, ROLE_CONFLICT, key=key)
        self._outgoing.append(Transmit(data, destination, source))

    def transmits(self) -> Iterator[Transmit]:
        """The datagrams to send, each once."""
        while self._outgoing:
            yield self._outgoing.popleft()

    def clear(self) -> None:
        """Send nothing of what has not gone out."""
        self._outgoing.clear()
