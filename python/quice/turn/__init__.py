"""TURN: relayed addresses (RFC 8656), without sockets or clock.

TURN's methods and attributes are in `quice.stun`: they share a registry with those of STUN.
"""

from quice.turn.allocation import AddressFamilies, Allocation
from quice.turn.client import Client
from quice.turn.codes import Code
from quice.turn.credentials import time_limited
from quice.turn.events import (
    Allocated,
    Bound,
    Event,
    Failed,
    Lost,
    PermissionRefused,
    Received,
    Redirected,
    Unbound,
)
from quice.turn.framing import FramingError, Splitter, framed
from quice.turn.uri import ServerUri, Service, Transport

__all__ = [
    "AddressFamilies",
    "Allocated",
    "Allocation",
    "Bound",
    "Client",
    "Code",
    "Event",
    "Failed",
    "FramingError",
    "Lost",
    "PermissionRefused",
    "Received",
    "Redirected",
    "ServerUri",
    "Service",
    "Splitter",
    "Transport",
    "Unbound",
    "framed",
    "time_limited",
]
