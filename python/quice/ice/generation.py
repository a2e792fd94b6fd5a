"""One generation of a session: what lives from one pair of credentials to the next ICE restart (RFC 8445 §9)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import msgspec

from quice.ice.candidate import MAX_LOCAL_PREFERENCE, Candidate, CandidateKind, foundation, priority
from quice.ice.checklist import CheckList, CheckListState
from quice.ice.checks import Credentials
from quice.ice.pair import CandidatePair
from quice.stun.attributes import Priority
from quice.stun.message import Message
from quice.wire import Address

MAX_REMOTE_CANDIDATES = 64
MAX_LOCAL_CANDIDATES = 64
"""More of ours are never found by checks: a peer could tell us a new address each time."""
MAX_EARLY_CHECKS = 16
"""Checks kept that arrive before the peer's candidates and password do."""


@dataclass(frozen=True)
class Peer:
    """What the peer says of itself in the exchange of candidates (§5.3)."""

    credentials: Credentials
    lite: bool = False
    ta: float | None = None
    renomination: bool = False
    """It takes a later nomination for a change of mind (draft-thatcher-ice-renomination-01)."""


@dataclass(frozen=True)
class EarlyCheck:
    """A check that came before the peer's password."""

    message: Message
    source: Address
    destination: Address


class Generation:
    """Credentials, candidates, pairs, and the pair that they led to."""

    def __init__(self, number: int, credentials: Credentials, controlling: bool, max_pairs: int, now: float) -> None:
        self.number = number
        self.credentials = credentials
        self.peer: Peer | None = None
        self.checklist = CheckList(controlling, max_pairs)
        self.local: list[Candidate] = []
        self.remote: list[Candidate] = []
        self._places: dict[Address, int] = {}
        self._at_relays: set[Address] = set()
        """Those of the peer's at relays that nobody has named yet."""
        self.local_complete = False
        self.remote_complete = False
        self.early: deque[EarlyCheck] = deque()
        self.selected: CandidatePair | None = None
        self.latest_nomination = -1
        """The number of the last nomination that either agent made: a later one has a greater."""
        self.started = now

    @property
    def continual(self) -> bool:
        """Whether the session may choose another pair when it has chosen one."""
        return self.peer is not None and self.peer.renomination and not self.peer.lite

    @property
    def is_active(self) -> bool:
        """Whether new pairs and checks may lead to something."""
        completed = self.checklist.state is CheckListState.COMPLETED and self.continual
        return self.checklist.is_running or completed

    @property
    def is_complete(self) -> bool:
        """Whether both agents have named all their candidates."""
        return self.peer is not None and self.local_complete and self.remote_complete

    def is_of_peer(self, ufrag: str | None) -> bool:
        """Whether this may be the peer's ufrag; None is what a peer says that never restarts."""
        return ufrag is None or self.peer is None or self.peer.credentials.ufrag == ufrag

    def is_freed(self, base: Address, remote: Address) -> bool:
        """§8.3.1: whether a pair, after a while, is none that the session may still need."""
        return not self.is_active and self.checklist.find(base, remote) is not self.selected

    @property
    def key(self) -> bytes:
        """What messages to us are authenticated with."""
        return self.credentials.key

    def keep_early(self, check: EarlyCheck) -> None:
        """Remember a check until the peer's password is known (§7.3)."""
        if len(self.early) < MAX_EARLY_CHECKS:
            self.early.append(check)

    def add_local(self, candidate: Candidate) -> bool:
        """Pair a candidate of ours with all of the peer's; returns whether it was new."""
        if any(c.address == candidate.address and c.sent_from == candidate.sent_from for c in self.local):
            # §5.1.3: the same address and base again.
            return False
        self.local.append(candidate)
        for remote in self.remote:
            self.checklist.pair(candidate, remote)
        return True

    def add_remote(self, candidate: Candidate) -> bool:
        """Pair a candidate that the peer named with all of ours; returns whether it was new."""
        place = self._places.get(candidate.address.without_zone)
        if place is None:
            if len(self.remote) >= MAX_REMOTE_CANDIDATES:
                return False
            self._append_remote(candidate)
        else:
            known = self.remote[place]
            if known.kind is not CandidateKind.PEER_REFLEXIVE and known.address not in self._at_relays:
                return False
            self._at_relays.discard(known.address)
            # §7.3.1.3: what a check revealed is now known by its proper name; its pairs stay. They are those of the
            # candidate of ours which the check came to, and it has one with each, like any that the peer names.
            self.remote[place] = candidate
            self.checklist.rename(known, candidate)
        for local in self.local:
            self.checklist.pair(local, candidate)
        return True

    def remove_base(self, base: Address) -> list[CandidatePair]:
        """An address of ours is gone, and all that was sent from it (§5.1.1.4); returns the pairs that were."""
        self.local = [candidate for candidate in self.local if candidate.sent_from != base]
        pairs = [pair for pair in self.checklist if pair.base == base]
        for pair in pairs:
            self.checklist.remove(pair)
        return pairs

    def pair_of(self, message: Message, source: Address, destination: Address) -> CandidatePair | None:
        """The pair that a check of the peer's came on, with the candidate that it may reveal (§7.3.1.3)."""
        pair = self.checklist.find(destination, source)
        if pair is not None:
            return pair
        local = next((c for c in self.local if c.sent_from == destination), None)
        if local is None or not self.is_active:
            return None
        bare = source.without_zone
        place = self._places.get(bare)
        if place is not None:
            return self.checklist.pair(local, self.remote[place], heard=True)
        claimed = message.get(Priority)
        if claimed is None or len(self.remote) >= MAX_REMOTE_CANDIDATES:
            return None
        # §7.3.1.3: a candidate that nobody has named; its foundation is like no other.
        name = foundation(CandidateKind.PEER_REFLEXIVE, str(source))
        remote = Candidate(kind=self._kind_at(bare), address=bare, priority=claimed.value, foundation=name)
        pair = self.checklist.pair(local, remote, heard=True)
        if pair is not None:
            self._append_remote(remote)
            if remote.kind is CandidateKind.RELAYED:
                self._at_relays.add(bare)
        return pair

    def _kind_at(self, revealed: Address) -> CandidateKind:
        """What a candidate is that nobody has named. At a relay it is relayed, by an allocation that the peer takes for
        lost: its NAT has given it a port again that it had before, and the server knows it by that."""
        kinds = {candidate.kind for candidate in self.remote if candidate.address.host == revealed.host}
        return CandidateKind.RELAYED if kinds == {CandidateKind.RELAYED} else CandidateKind.PEER_REFLEXIVE

    def _append_remote(self, candidate: Candidate) -> None:
        self._places[candidate.address.without_zone] = len(self.remote)
        self.remote.append(candidate)

    def note_mapped(self, pair: CandidatePair, mapped: Address) -> None:
        """§7.2.5.3.1: a mapped address that no candidate of ours has is a new, peer-reflexive one."""
        pair.mapped = mapped
        if len(self.local) >= MAX_LOCAL_CANDIDATES or any(candidate.address == mapped for candidate in self.local):
            return
        self.local.append(
            msgspec.structs.replace(
                pair.local,
                kind=CandidateKind.PEER_REFLEXIVE,
                address=mapped,
                priority=revealed_priority(pair.local),
                foundation=foundation(CandidateKind.PEER_REFLEXIVE, pair.base.host, pair.remote.address.host),
                related_address=pair.base,
                base=pair.base,
            )
        )

    def renewed(
        self, number: int, credentials: Credentials, controlling: bool, max_pairs: int, now: float
    ) -> Generation:
        """The next generation: the candidates of ours that gathering found, and nothing else (§9)."""
        generation = Generation(number, credentials, controlling, max_pairs, now)
        generation.local = [c for c in self.local if c.kind is not CandidateKind.PEER_REFLEXIVE]
        return generation


def revealed_priority(local: Candidate) -> int:
    """§7.1.1: the priority that a peer-reflexive candidate of this base would have."""
    return priority(CandidateKind.PEER_REFLEXIVE, local.priority >> 8 & MAX_LOCAL_PREFERENCE)
