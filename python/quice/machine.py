"""The machine that quice runs on: its addresses, its sockets and its randomness.

The system, unless the running event loop brings a machine of its own, as a simulator's does. Everything that is not
a protocol asks here, so that whole endpoints and servers run in a simulated internet unchanged.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import random
import socket
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from quice import _native
from quice.config import TransportConfig
from quice.forwarder import Dispatch, Forwarder, NativeForwarder
from quice.network import LocalAddress, NetworkChange, SystemWatch, Watch, local_addresses
from quice.pump import Pump, SocketPump
from quice.turn.policy import IpNetwork
from quice.wire import Random

NO_SUCH_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
"""What binding a wildcard address says on a machine without IPv6."""


class Machine(Protocol):
    """What quice needs of the machine it runs on."""

    @property
    def random(self) -> Random:
        """Where passwords, identifiers and jitter come from."""

    def addresses(self) -> list[LocalAddress]:
        """The addresses that a peer could be reached from: those of loopback only when there are no others."""

    def watch(self, callback: Callable[[NetworkChange], None]) -> Watch:
        """Call back whenever these addresses or the default routes have changed, and when the machine has slept."""

    def pump(
        self,
        credentials: _native.Credentials,
        alpns: Sequence[bytes],
        config: TransportConfig,
        dispatch: Callable[[_native.Event], None],
        reserved_streams: int = 0,
    ) -> Pump:
        """A QUIC engine on this machine's UDP, with what keeps it going on the event loop.

        `alpns`: what it answers to, the preferred first. `reserved_streams`: bidirectional streams that a client may
        open beside the settings' `max_streams`.
        """

    def listen(self, host: str | None, port: int) -> socket.socket:
        """A listening TCP socket for `loop.create_server`: on one address, or on all, IPv4 and IPv6.

        Raises `OSError`, and `ValueError` for a host that is no IP address.
        """

    def forwarder(self, rate: float | None, allowed: Sequence[IpNetwork], dispatch: Dispatch) -> Forwarder:
        """The data path of a TURN server on this machine's UDP and TCP: see `NativeForwarder`."""

    def unix_time(self) -> float:
        """Seconds since 1970."""


class System:
    """The machine as the operating system shows it."""

    random: Random = random.SystemRandom()

    def addresses(self) -> list[LocalAddress]:
        """See `Machine`."""
        return local_addresses()

    def watch(self, callback: Callable[[NetworkChange], None]) -> Watch:
        """See `Machine`."""
        return SystemWatch(callback)

    def pump(
        self,
        credentials: _native.Credentials,
        alpns: Sequence[bytes],
        config: TransportConfig,
        dispatch: Callable[[_native.Event], None],
        reserved_streams: int = 0,
    ) -> Pump:
        """See `Machine`."""
        engine = _native.Engine(credentials, list(alpns), config, sockets=True, reserved_streams=reserved_streams)
        return SocketPump(engine, dispatch)

    def listen(self, host: str | None, port: int) -> socket.socket:
        """See `Machine`."""
        if host is not None:
            family = socket.AF_INET if ipaddress.ip_address(host).version == 4 else socket.AF_INET6
            # It tells the zone of a link-local address by its interface's number, as binding wants it.
            numeric = socket.AI_NUMERICHOST | socket.AI_PASSIVE
            *_, address = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=numeric)[0]
            return socket.create_server(address, family=family)
        if socket.has_dualstack_ipv6():
            try:
                return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
            except OSError as error:
                if error.errno not in NO_SUCH_FAMILY:
                    raise
        return socket.create_server(("", port))

    def forwarder(self, rate: float | None, allowed: Sequence[IpNetwork], dispatch: Dispatch) -> Forwarder:
        """See `Machine`."""
        return NativeForwarder(rate, allowed, dispatch)

    def unix_time(self) -> float:
        """See `Machine`."""
        return time.time()


def this_machine() -> Machine:
    """The machine of the running event loop."""
    machine: Machine | None = getattr(asyncio.get_running_loop(), "machine", None)
    return System() if machine is None else machine
