"""What an agent does with its role: who nominates, and when (RFC 8445 §6.1.1, §7.3, §8)."""

from __future__ import annotations

from typing import Protocol

from quice.ice.events import Role
from quice.ice.pair import CandidatePair


class Conclusion(Protocol):
    """What a strategy may do to its agent."""

    def begin_nomination(self, pair: CandidatePair, number: int, now: float) -> None:
        """Tell the peer that this pair is chosen, by a check of it. `number`: 0 for the only nomination."""

    def select(self, pair: CandidatePair, now: float) -> None:
        """Both agents know that this is the pair."""


class Strategy(Protocol):
    """How a session of one generation comes to its pair, and to the next."""

    role: Role
    checks: bool
    """Whether this agent sends checks at all."""

    def pair_valid(self, pair: CandidatePair, now: float) -> None:
        """A check of ours was answered, or the pair's round-trip time measured anew."""

    def pair_failed(self, pair: CandidatePair, now: float) -> None:
        """The pair does not work, or no longer."""

    def choose(self, pair: CandidatePair, now: float) -> None:
        """The layer above wants this pair."""

    def nominated(self, pair: CandidatePair, number: int | None, now: float) -> None:
        """The peer nominated the pair; `number` if it gave one."""

    def nomination_answered(self, pair: CandidatePair, now: float) -> None:
        """The peer took our nomination of the pair."""

    def candidates_complete(self, now: float) -> None:
        """Both agents have named all their candidates."""

    def selected_lost(self, pair: CandidatePair, fallback: CandidatePair | None, now: float) -> None:
        """This pair, which was selected, works no more; `fallback` is another that does."""

    def timeout(self) -> float | None:
        """When `handle_timeout` wants to be called next."""

    def handle_timeout(self, now: float) -> None:
        """Choose a pair whose time has come."""


class Passive:
    """What is the same for all that do not choose."""

    role = Role.CONTROLLED
    checks = True

    def pair_valid(self, pair: CandidatePair, now: float) -> None:
        pass

    def pair_failed(self, pair: CandidatePair, now: float) -> None:
        pair.nomination = None

    def choose(self, pair: CandidatePair, now: float) -> None:
        pass

    def nominated(self, pair: CandidatePair, number: int | None, now: float) -> None:
        pass

    def nomination_answered(self, pair: CandidatePair, now: float) -> None:
        pass

    def candidates_complete(self, now: float) -> None:
        pass

    def selected_lost(self, pair: CandidatePair, fallback: CandidatePair | None, now: float) -> None:
        pass

    def timeout(self) -> float | None:
        return None

    def handle_timeout(self, now: float) -> None:
        pass
