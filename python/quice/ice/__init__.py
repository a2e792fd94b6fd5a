"""ICE for one QUIC component (RFC 8445): gathering, connectivity checks, nomination; no sockets, no clock."""

from quice.ice.agent import Agent
from quice.ice.budget import Budget
from quice.ice.candidate import Candidate, CandidateKind
from quice.ice.events import (
    ConsentExpired,
    Failed,
    Lost,
    Nominating,
    PairValid,
    Restarted,
    Role,
    RoleChanged,
    Selected,
)
from quice.ice.gather import Base, ExternalAddress, Gathered, Gatherer, GatheringComplete
from quice.ice.pacing import Pacer
from quice.ice.pair import CandidatePair, PairState
from quice.ice.report import PairReport, Report

__all__ = [
    "Agent",
    "Base",
    "Budget",
    "Candidate",
    "CandidateKind",
    "CandidatePair",
    "ConsentExpired",
    "ExternalAddress",
    "Failed",
    "Gathered",
    "Gatherer",
    "GatheringComplete",
    "Lost",
    "Nominating",
    "Pacer",
    "PairReport",
    "PairState",
    "PairValid",
    "Report",
    "Restarted",
    "Role",
    "RoleChanged",
    "Selected",
]
