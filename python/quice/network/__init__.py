"""The machine's network: its addresses, and how to see that they change."""

from quice.network.interfaces import LocalAddress, local_addresses
from quice.network.monitor import Monitor, Watch
from quice.network.state import NetworkChange, NetworkState
from quice.network.system import SystemWatch

__all__ = ["LocalAddress", "Monitor", "NetworkChange", "NetworkState", "SystemWatch", "Watch", "local_addresses"]
