"""Direct QUIC connections between two programs, wherever they are."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from quice.errors import Error
from quice.wire import Address

if TYPE_CHECKING:
    from quice.checks import Checks
    from quice.config import TransportConfig
    from quice.connection import Connection, ConnectionStats
    from quice.endpoint import Endpoint
    from quice.ice import Candidate, CandidateKind, ExternalAddress
    from quice.identity import Identity, PeerId
    from quice.manual import ManualAnswer, ManualOffer
    from quice.path import Path, PathChanged, PathClosed, PathEvent, PathKind, PathOpened, PathStatusChanged
    from quice.policy import Policy
    from quice.relaying import RelayServer
    from quice.signal.codes import Code
    from quice.signal.mailbox import OfferedCode, Paired
    from quice.stream import Stream

# Where each name is. It is imported when it is asked for: pytest loads `quice.sim.pytest_plugin`, and so this package,
# in every project where it is installed.
_MODULES = {
    "Candidate": "ice",
    "CandidateKind": "ice",
    "Checks": "checks",
    "Code": "signal.codes",
    "Connection": "connection",
    "ConnectionStats": "connection",
    "Endpoint": "endpoint",
    "ExternalAddress": "ice",
    "Identity": "identity",
    "ManualAnswer": "manual",
    "ManualOffer": "manual",
    "OfferedCode": "signal.mailbox",
    "Paired": "signal.mailbox",
    "Path": "path",
    "PathChanged": "path",
    "PathClosed": "path",
    "PathEvent": "path",
    "PathKind": "path",
    "PathOpened": "path",
    "PathStatusChanged": "path",
    "PeerId": "identity",
    "Policy": "policy",
    "RelayServer": "relaying",
    "Stream": "stream",
    "TransportConfig": "config",
}

__all__ = [
    "Address",
    "Candidate",
    "CandidateKind",
    "Checks",
    "Code",
    "Connection",
    "ConnectionStats",
    "Endpoint",
    "Error",
    "ExternalAddress",
    "Identity",
    "ManualAnswer",
    "ManualOffer",
    "OfferedCode",
    "Paired",
    "Path",
    "PathChanged",
    "PathClosed",
    "PathEvent",
    "PathKind",
    "PathOpened",
    "PathStatusChanged",
    "PeerId",
    "Policy",
    "RelayServer",
    "Stream",
    "TransportConfig",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_MODULES]
