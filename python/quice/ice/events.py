"""What an agent tells the layer above: its role and the turns that a session takes."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from quice.ice.pair import CandidatePair


class Role(str, enum.Enum):
    """Who nominates. The initiating agent, which becomes the QUIC client, begins as controlling."""

    CONTROLLING = "controlling"
    CONTROLLED = "controlled"

    @property
    def opposite(self) -> Role:
        """The other one."""
        return Role.CONTROLLED if self is Role.CONTROLLING else Role.CONTROLLING


@dataclass(frozen=True)
class PairValid:
    """A check of the pair was answered: packets pass both ways."""

    pair: CandidatePair


@dataclass(frozen=True)
class Nominating:
    """The controlling agent has chosen this pair: QUIC can begin on it."""

    pair: CandidatePair


@dataclass(frozen=True)
class Selected:
    """Both agents know that this is the pair. It may come again, when a better pair replaces it, or it was lost."""

    pair: CandidatePair


@dataclass(frozen=True)
class ConsentExpired:
    """The peer has not answered on this pair for 30 s, or asked to be left alone: nothing may be sent on it
    (RFC 7675 §5)."""

    pair: CandidatePair


@dataclass(frozen=True)
class Lost:
    """The selected pair works no more. `fallback`: another that does, if there is one; checks go on."""

    pair: CandidatePair
    fallback: CandidatePair | None


@dataclass(frozen=True)
class RoleChanged:
    """A conflict of roles was resolved by changing ours (§7.3.1.1), or one agent is lite (§6.1.1)."""

    role: Role


@dataclass(frozen=True)
class Restarted:
    """ICE begins anew (§9): the peer must be told the agent's new credentials and all its candidates.

    The selected pair stays in use until another is selected.
    """

    generation: int


@dataclass(frozen=True)
class Failed:
    """No pair works; `reason` says what was tried, in a sentence."""

    reason: str


Event = PairValid | Nominating | Selected | ConsentExpired | Lost | RoleChanged | Restarted | Failed
