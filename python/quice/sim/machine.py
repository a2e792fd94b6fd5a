"""A simulated machine: what runs on it has this host's addresses, sockets and randomness (see `quice.machine`)."""

from __future__ import annotations

import asyncio
import ipaddress
import random
import socket
from collections.abc import Callable, Coroutine, Sequence
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar, cast

from quice import _native
from quice.config import TransportConfig
from quice.forwarder import Dispatch
from quice.network import LocalAddress, Monitor, NetworkChange, NetworkState
from quice.sim.clock import SimLoop
from quice.sim.forwarder import SimForwarder
from quice.sim.packet import Packet, Protocol
from quice.sim.pump import SimPump
from quice.sim.tcp_stack import Tcp
from quice.sim.waiting import failure
from quice.turn.policy import IpNetwork
from quice.wire import Address, random_bytes

if TYPE_CHECKING:
    from quice.sim.host import Binding, Host

T = TypeVar("T")

_EPOCH = 1_700_000_000.0
"""Seconds since 1970 when a simulation begins: always the same."""


class SimMachine:
    """What the programs on a host see of it: its addresses, sockets and randomness."""

    def __init__(self, loop: SimLoop, host: Host, names: Callable[[str], list[str]], rng: random.Random) -> None:
        """`names`: looks a host's name up in the world; `rng`: for all randomness of the programs here."""
        self.host = host
        self.random = rng
        self.tcp = Tcp(loop, self)
        self._loop = loop
        self._names = names
        self._deferred: list[asyncio.TimerHandle] = []
        self._watches: list[SimWatch] = []

    def addresses(self) -> list[LocalAddress]:
        """See `quice.machine.Machine`."""
        found = self.host.addresses()
        return [address for address in found if not address.ip.is_loopback] or found

    def watch(self, callback: Callable[[NetworkChange], None]) -> SimWatch:
        """See `quice.machine.Machine`."""
        watch = SimWatch(self.host, callback, self._watches.remove)
        self._watches.append(watch)
        return watch

    def pump(
        self,
        credentials: _native.Credentials,
        alpns: Sequence[bytes],
        config: TransportConfig,
        dispatch: Callable[[_native.Event], None],
        reserved_streams: int = 0,
    ) -> SimPump:
        """See `quice.machine.Machine`."""
        seed = random_bytes(self.random, 32)
        engine = _native.Engine(
            credentials, list(alpns), config, sockets=False, seed=seed, reserved_streams=reserved_streams
        )
        return SimPump(self._loop, self.host, engine, dispatch)

    def forwarder(self, rate: float | None, allowed: Sequence[IpNetwork], dispatch: Dispatch) -> SimForwarder:
        """See `quice.machine.Machine`."""
        return SimForwarder(self._loop, self.host, self.tcp, rate, allowed, dispatch)

    def unix_time(self) -> float:
        """See `quice.machine.Machine`. All simulated machines agree."""
        return _EPOCH + self._loop.time()

    def listen(self, host: str | None, port: int) -> socket.socket:
        """See `quice.machine.Machine`."""
        return cast("socket.socket", self.tcp.listen(host, port))

    @property
    def is_asleep(self) -> bool:
        """Whether timers are to be deferred."""
        return self.host.asleep

    def defer(self, timer: asyncio.TimerHandle) -> None:
        """Keep a timer that came due while the machine sleeps."""
        self._deferred.append(timer)

    def resume(self) -> None:
        """The host has woken: what was due meanwhile is due now."""
        deferred, self._deferred = self._deferred, []
        self._loop.run_soon(deferred)
        for watch in self._watches:
            watch.notice(woken=True)

    def start(self, program: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """See `Host.start`."""
        with self.host:
            task = self._loop.create_task(program)
        task.add_done_callback(self._note)
        return task

    def _note(self, task: asyncio.Task[Any]) -> None:
        if failure(task) is not None:
            self._loop.failed.append((self.host.name, task))

    def getaddrinfo(self, host: Any, port: Any, **_: Any) -> list[tuple[int, int, int, str, tuple[Any, ...]]]:
        """See `loop.getaddrinfo`: of an IP address itself, of a host's name its addresses. Raises `socket.gaierror`."""
        text = host.decode() if isinstance(host, bytes) else str(host)
        try:
            addresses = [str(ipaddress.ip_address(text))]
        except ValueError:
            addresses = ["127.0.0.1"] if text == "localhost" else self._names(text)
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, f"there is no host {text!r} in this world")
        found: list[tuple[int, int, int, str, tuple[Any, ...]]] = []
        for address in addresses:
            six = ":" in address
            family, name = (socket.AF_INET6, (address, port, 0, 0)) if six else (socket.AF_INET, (address, port))
            found.append((family, 0, 0, "", name))
        return found

    async def create_datagram_endpoint(
        self,
        protocol_factory: Callable[[], asyncio.DatagramProtocol],
        local_addr: tuple[str, int] | None = None,
        remote_addr: tuple[str, int] | None = None,
        **_: object,
    ) -> tuple[DatagramTransport, asyncio.DatagramProtocol]:
        """See `loop.create_datagram_endpoint`."""
        protocol = protocol_factory()
        remote = Address(*remote_addr) if remote_addr is not None else None
        six = remote is not None and ":" in remote.host
        local = Address(*local_addr) if local_addr is not None else Address("::" if six else "0.0.0.0", 0)
        transport = DatagramTransport(self._loop, self.host, protocol, local, remote)
        return transport, protocol


class SimWatch:
    """See `quice.network.Watch`: a host's own interfaces give the notices."""

    def __init__(self, host: Host, tell: Callable[[NetworkChange], None], forget: Callable[[SimWatch], None]) -> None:
        """`forget` is called when it is closed."""
        self._host = host
        self._forget = forget
        # Interfaces change at nobody's hands in particular: who is told of it runs on this machine.
        self._context = copy_context()
        self._monitor = Monitor(lambda: NetworkState.of(host.addresses(), host.default_routes()), tell)
        self._open = True
        host.watch(self.notice)

    def notice(self, *, woken: bool = False) -> None:
        """Something may have changed; `woken`: the host has slept."""
        self._context.run(lambda: self._monitor.notice(woken=woken))

    def close(self) -> None:
        """See `quice.network.Watch`."""
        if self._open:
            self._open = False
            self._host.unwatch(self.notice)
            self._monitor.close()
            self._forget(self)


class DatagramTransport(asyncio.DatagramTransport):
    """A simulated UDP socket, as asyncio shows one."""

    def __init__(
        self, loop: SimLoop, host: Host, protocol: asyncio.DatagramProtocol, local: Address, remote: Address | None
    ) -> None:
        self._binding: Binding = host.bind(Protocol.UDP, local, self._receive)
        super().__init__({"sockname": tuple(self._binding.local), "peername": remote and tuple(remote)})
        self._loop = loop
        self._protocol = protocol
        self._remote = remote
        self._closed = False
        self._context = copy_context()
        loop.call_soon(protocol.connection_made, self)

    def sendto(self, data: Any, addr: Any = None) -> None:
        destination = Address(*addr[:2]) if addr is not None else self._remote
        if destination is None:
            raise ValueError("no destination: name one, or connect the endpoint with remote_addr")
        if self._closed:
            return
        try:
            self._binding.send(bytes(data), destination)
        except OSError as error:
            self._protocol.error_received(error)

    def is_closing(self) -> bool:
        return self._closed

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._binding.close()
            self._loop.call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def _receive(self, packet: Packet) -> None:
        if self._remote is None or packet.source == self._remote:
            self._context.run(self._protocol.datagram_received, packet.data, tuple(packet.source))
