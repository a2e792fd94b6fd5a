"""What an agent tells the layer above: its role and the turns that a session takes."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from quice.ice.pair import CandidatePair


class Role(str, enum.Enum):
    """Who nominates. The initiating agent, which becomes the QUIC client, begins as controlling."""

    CONTROLLING = "controlling"
    CONTROLLED = "controlled"


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
    """Both agents know that this is the pair."""

    pair: CandidatePair


@dataclass(frozen=True)
class RoleChanged:
    """A conflict of roles was resolved by changing ours (§7.3.1.1)."""

    role: Role


@dataclass(frozen=True)
class Failed:
    """No pair works; `reason` says what was tried, in a sentence."""

    reason: str


Event = PairValid | Nominating | Selected | RoleChanged | Failed
