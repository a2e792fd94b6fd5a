"""Direct QUIC connections between two programs, wherever they are."""

from quice.checks import Checks
from quice.config import TransportConfig
from quice.connection import Connection, ConnectionStats, Path, PathKind
from quice.endpoint import Endpoint
from quice.errors import Error
from quice.ice import Candidate, CandidateKind, ExternalAddress
from quice.identity import Identity, PeerId
from quice.stream import Stream
from quice.wire import Address

__all__ = [
    "Address",
    "Candidate",
    "CandidateKind",
    "Checks",
    "Connection",
    "ConnectionStats",
    "Endpoint",
    "Error",
    "ExternalAddress",
    "Identity",
    "Path",
    "PathKind",
    "PeerId",
    "Stream",
    "TransportConfig",
]
