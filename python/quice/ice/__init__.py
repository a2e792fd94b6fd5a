"""ICE for one QUIC component (RFC 8445): gathering, connectivity checks, nomination; no sockets, no clock."""

from quice.ice.agent import Agent
from quice.ice.candidate import Candidate, CandidateKind
from quice.ice.events import Failed, Nominating, PairValid, Role, RoleChanged, Selected
from quice.ice.gather import Base, Gathered, Gatherer, GatheringComplete
from quice.ice.pair import CandidatePair, PairState
from quice.ice.report import PairReport, Report

__all__ = [
    "Agent",
    "Base",
    "Candidate",
    "CandidateKind",
    "CandidatePair",
    "Failed",
    "Gathered",
    "Gatherer",
    "GatheringComplete",
    "Nominating",
    "PairReport",
    "PairState",
    "PairValid",
    "Report",
    "Role",
    "RoleChanged",
    "Selected",
]
