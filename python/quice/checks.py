"""The connectivity-check interface: what finds the ways between two peers that work, and chooses the best of them.

It has two implementations. `quice.session` checks with STUN (RFC 8445 §7), over signalling, before there is a
connection; `quice.challenges` with QUIC's own path challenges, within a connection that there is already.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Protocol

from quice.ice import CandidatePair


class Checks(str, enum.Enum):
    """What finds better paths for a connection.

    STUN: ICE's connectivity checks, which need signalling; a connection made straight to an address stays there. QUIC:
    path challenges within the connection, however it was made, if both sides want them; both then tell each other their
    addresses.
    """

    STUN = "stun"
    QUIC = "quic"


class ConnectivityChecks(Protocol):
    """What finds the pairs that let packets through, for as long as a connection lives.

    It calls `on_selected` of a `PathKeeper` with each pair that it chooses.
    """

    @property
    def pairs(self) -> Iterable[CandidatePair]:
        """The pairs there are, the best first; `is_valid` says which were found to work."""

    def pair_lost(self, pair: CandidatePair, instead: CandidatePair | None) -> None:
        """QUIC gets no answer on this pair any more, and goes on with another, if there is one."""
