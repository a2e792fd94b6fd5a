"""An endpoint's relays: TURN allocations (RFC 8656), kept for as long as it lives, and routes through them."""

from quice.relaying.relays import Relays
from quice.relaying.server import RelayServer

__all__ = ["RelayServer", "Relays"]
