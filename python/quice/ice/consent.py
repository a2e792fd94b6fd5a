"""Whether a peer still wants what is sent to it, and bindings that are kept alive (RFC 7675, RFC 8445 §11)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quice.ice.checks import Credentials
from quice.ice.pair import CandidatePair
from quice.wire import Random

INTERVAL = 5.0
"""RFC 7675 §5.1: seconds between two requests for consent, give or take a fifth."""
LIFETIME = 30.0
"""§5.1: seconds for which an answer counts."""
TR = 15.0
"""RFC 8445 §11: seconds of silence on a pair in use after which a keepalive goes out; it may not be less."""
FALLBACK_INTERVAL = 12.0
"""Seconds between two requests on a pair that is only kept ready: two may get lost before it counts no more."""
FALLBACKS = 2
"""Valid pairs besides the selected one that are kept ready to replace it."""
FALLBACK_LIFETIME = 120.0
"""Seconds for which a pair is kept ready."""
_SPREAD = 0.2


class Consent:
    """The peer's consent to what is sent on one pair."""

    def __init__(
        self, pair: CandidatePair, local: Credentials, remote: Credentials, now: float, *, requests: bool
    ) -> None:
        """`requests`: whether to ask for it; a lite agent does not (RFC 7675 §4)."""
        self.pair = pair
        self.local = local
        self.remote = remote
        self.interval = INTERVAL
        self.until: float | None = None
        """When a pair that is only kept ready is not kept any more."""
        self._requests = requests
        self._expires = now + LIFETIME
        self._next_request = now
        self._next_keepalive = now + TR

    @property
    def expires(self) -> float | None:
        """When the consent ends unless an answer comes; never, if nobody asks for it here."""
        return self._expires if self._requests else None

    @property
    def next_request(self) -> float | None:
        """When to ask next."""
        return self._next_request if self._requests else None

    @property
    def next_keepalive(self) -> float | None:
        """When to send a keepalive: requests for consent keep bindings, too."""
        return None if self._requests else self._next_keepalive

    def next_time(self, slot: float) -> float:
        """When something is to be done, with `slot` the time from which requests may go out."""
        request = None if self.next_request is None else max(self.next_request, slot)
        times = (self.expires, request, self.next_keepalive, self.until)
        return min(time for time in times if time is not None)

    def use(self) -> None:
        """The pair is in use."""
        self.interval, self.until = INTERVAL, None

    def spare(self, now: float) -> None:
        """The pair is only kept ready."""
        if self.until is None:
            self.interval, self.until = FALLBACK_INTERVAL, now + FALLBACK_LIFETIME

    def renew(self, now: float) -> None:
        """An answer came."""
        self._expires = now + LIFETIME

    def entrust(self, now: float) -> None:
        """The layer above sees to it that the peer is there: all that is left is to keep bindings."""
        self._requests = False
        self._next_keepalive = now + TR

    def count_request(self, now: float, rng: Random) -> None:
        """A request went out. Each interval is another (RFC 7675 §5.1)."""
        fraction = rng.getrandbits(32) / (1 << 32)
        self._next_request = now + self.interval * (1 - _SPREAD + 2 * _SPREAD * fraction)

    def count_sent(self, now: float) -> None:
        """A packet went out on the pair."""
        self._next_keepalive = now + TR


class Consents:
    """The pairs in use or kept ready, and the requests for consent that may still be answered."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._held: dict[CandidatePair, Consent] = {}
        self._requests: dict[bytes, tuple[Consent, float]] = {}

    def __iter__(self) -> Iterator[Consent]:
        return iter(list(self._held.values()))

    def __contains__(self, pair: object) -> bool:
        return pair in self._held

    def __len__(self) -> int:
        return len(self._held)

    def get(self, pair: CandidatePair) -> Consent | None:
        """The pair's consent, if it is held."""
        return self._held.get(pair)

    def hold(self, consent: Consent, now: float) -> Consent:
        """Begin to keep a pair alive; what is held already stays."""
        held = self._held.setdefault(consent.pair, consent)
        if held is consent:
            # The check that made the pair valid was the first request.
            consent.count_request(now, self._rng)
        return held

    def drop(self, pair: CandidatePair) -> None:
        """Keep a pair no longer. RFC 7675 §5.1: its outstanding requests are discarded with it."""
        consent = self._held.pop(pair, None)
        if consent is not None:
            for identifier in [i for i, (held, _) in self._requests.items() if held is consent]:
                del self._requests[identifier]

    def ask(self, consent: Consent, identifier: bytes, now: float) -> None:
        """A request with this transaction id goes out. None is ever repeated."""
        for old in [i for i, (_, sent) in self._requests.items() if sent + LIFETIME <= now]:
            del self._requests[old]
        self._requests[identifier] = consent, now
        consent.count_request(now, self._rng)

    def outstanding(self, identifier: bytes) -> tuple[Consent, float] | None:
        """The consent that this request asked for, and when it was sent."""
        return self._requests.get(identifier)

    def end(self, identifier: bytes) -> None:
        """The request was answered."""
        self._requests.pop(identifier, None)

    def next_time(self, slot: float) -> float | None:
        """When something is to be done, with `slot` the time from which requests may go out."""
        return min((each.next_time(slot) for each in self._held.values()), default=None)

    def due(self, now: float) -> Consent | None:
        """One that is to be asked for now."""
        for consent in self._held.values():
            if consent.next_request is not None and consent.next_request <= now:
                return consent
        return None

    def keep_ready(self, pairs: Sequence[CandidatePair], local: Credentials, remote: Credentials, now: float) -> None:
        """Keep the best of these pairs ready to replace the selected one, and none of the others."""
        for pair in pairs[:FALLBACKS]:
            if pair not in self._held:
                self.hold(Consent(pair, local, remote, now, requests=True), now)
            self._held[pair].spare(now)
        for pair in pairs[FALLBACKS:]:
            self.drop(pair)

    def drop_all_but(self, pair: CandidatePair | None) -> None:
        """Keep this pair alone."""
        for held in list(self._held):
            if held is not pair:
                self.drop(held)
