"""What each peer may have this endpoint send to where it says that it is, before anybody there has answered: the one
budget of all its sessions, for connectivity checks and first packets of handshakes. `docs/security.md` has the numbers.
"""

from __future__ import annotations

from quice.ice import Budget
from quice.identity import PeerId

PEER_BURST, PEER_RATE = 256 << 10, 4 << 10
"""Bytes for one peer, at once and a second in the long run: a dozen sessions whose candidates mostly fail."""
CALLERS_BURST, CALLERS_RATE = 2 << 20, 64 << 10
"""Bytes for all peers together that call this endpoint: who calls may have any number of keys."""
HANDSHAKE = 20_000
"""Bytes that a handshake sends at most to where nobody answers, in the half minute until it is given up."""
_REMEMBERED = 1024


class Budgets:
    """The budgets of all peers of an endpoint."""

    def __init__(self) -> None:
        self._peers: dict[tuple[PeerId | None, bool], Budget] = {}
        self._callers = Budget(CALLERS_BURST, CALLERS_RATE)

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._peers)

    def of(self, peer: PeerId | None, now: float, *, calls: bool) -> Budget:
        """The budget of a peer; None for all that are not known yet. `calls`: whether it is the peer who begins."""
        if (peer, calls) not in self._peers and len(self._peers) >= _REMEMBERED:
            self._peers = {key: budget for key, budget in self._peers.items() if not budget.is_whole(now)}
        within = self._callers if calls else None
        return self._peers.setdefault((peer, calls), Budget(PEER_BURST, PEER_RATE, within))
