"""ICE for one QUIC component (RFC 8445): gathering, connectivity checks, nomination; no sockets, no clock."""

from quice.ice.agent import Agent, Failed, Nominating, PairValid, Report, Role, RoleChanged, Selected
from quice.ice.candidate import Candidate, CandidateKind
from quice.ice.gather import Base, Gathered, Gatherer, GatheringComplete
from quice.ice.pair import CandidatePair, PairState

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
    "PairState",
    "PairValid",
    "Report",
    "Role",
    "RoleChanged",
    "Selected",
]
