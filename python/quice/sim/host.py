"""A host: interfaces, the sockets bound on it, and where it sends what."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import itertools
import os
import random
from collections.abc import Callable, Coroutine, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from quice.network import LocalAddress
from quice.sim.clock import enter_machine, leave_machine
from quice.sim.interface import Interface
from quice.sim.packet import Fate, Packet, Protocol, Report
from quice.sim.schedule import Schedule
from quice.sim.sources import IpAddress, preferred
from quice.wire import Address

if TYPE_CHECKING:
    from quice.sim.machine import SimMachine
    from quice.sim.site import Site

T = TypeVar("T")

WILDCARDS = ("0.0.0.0", "::")
# Linux's net.ipv4.ip_local_port_range.
_EPHEMERAL = range(32768, 61000)
_MAX_PAYLOAD = 65507
_MAX_PAYLOAD_V6 = 65527
_LOOPBACK = ("127.0.0.1", "::1")

Deliver = Callable[[Packet], None]


class _Route(NamedTuple):
    """Where a packet to some destination leaves: `interface` None is the host itself."""

    interface: Interface | None
    source: str
    destination: str


class Binding:
    """A local address with a port, and who gets what comes to it. `local` has the port that was chosen."""

    def __init__(self, host: Host, protocol: Protocol, local: Address, deliver: Deliver) -> None:
        self.local = local
        self.deliver = deliver
        self._host = host
        self._protocol = protocol
        self._fixed_source = None if local.host in WILDCARDS else local.host
        self._closed = False

    def send(self, data: bytes, destination: Address, source_host: str | None = None) -> None:
        """Send to `destination`, from `source_host` where the binding is of every address.

        Raises OSError where the kernel would: no route (ENETUNREACH), no such source or zone (EINVAL), too long
        (EMSGSIZE).
        """
        if self._closed:
            raise _error(errno.EBADF)
        self._host._send(self._protocol, self.local, data, destination, source_host or self._fixed_source)

    def close(self) -> None:
        """Free the address. What arrives from now on is dropped."""
        if not self._closed:
            self._closed = True
            self._host._unbind(self._protocol, self.local)


class Host:
    """A machine in the simulated internet. In a `Simulation`, programs run on it:

        with alice:
            async with Endpoint.bind(server=url) as endpoint: ...

    What is awaited or started inside the block runs on this host, and so does all that it starts.

    weak: whether a packet leaves by the best route whatever its source, as on Linux without policy routing; otherwise
    only by an interface that has its source, as on macOS and Windows (RFC 1122 §3.3.4.2: weak and strong host model).
    """

    def __init__(
        self, name: str, schedule: Schedule, rng: random.Random, report: Report, *, weak: bool = False
    ) -> None:
        self.name = name
        self.weak = weak
        self.asleep = False
        self.interfaces: dict[str, Interface] = {}
        self._schedule = schedule
        self._rng = rng
        self._report = report
        self._bindings: dict[Protocol, dict[Address, Binding]] = {Protocol.UDP: {}, Protocol.TCP: {}}
        self._udp = self._bindings[Protocol.UDP]
        self._unbound: dict[Protocol, Deliver] = {}
        self._routes: dict[tuple[str, str | None], _Route] = {}
        self._own: dict[str, Interface | None] = dict.fromkeys(_LOOPBACK)
        self._numbers = itertools.count(1)
        self._watchers: list[Callable[[], None]] = []
        self._machine: SimMachine | None = None

    @property
    def machine(self) -> SimMachine:
        """What programs see of this host."""
        if self._machine is None:
            raise RuntimeError("programs run only on hosts of a Simulation's world")
        return self._machine

    @machine.setter
    def machine(self, machine: SimMachine) -> None:
        self._machine = machine

    def __enter__(self) -> Host:
        enter_machine(self.machine)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        leave_machine()

    def start(self, program: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a program on this host beside what the caller does. It is cancelled at the end of the simulation.

        What it fails with is raised by the task, or in the end by `Simulation.run` if nobody has awaited that.
        """
        return self.machine.start(program)

    def addresses(self) -> list[LocalAddress]:
        """The addresses that the system would tell: loopback, and those of interfaces that are up."""
        return [
            LocalAddress(own, "lo" if interface is None else interface.name) for own, interface in self._own.items()
        ]

    def bind(self, protocol: Protocol, local: Address, deliver: Deliver) -> Binding:
        """Give `deliver` what comes to `local`; its port is chosen if 0.

        Raises OSError as the kernel does: EADDRNOTAVAIL, EADDRINUSE.
        """
        if local.host not in WILDCARDS and local.host not in self._own and not local.host.startswith("127."):
            raise _error(errno.EADDRNOTAVAIL)
        bindings = self._bindings[protocol]
        for port in (local.port,) if local.port else self._ephemeral_ports():
            chosen = Address(local.host, port)
            if not _conflicts(chosen, bindings):
                binding = bindings[chosen] = Binding(self, protocol, chosen, deliver)
                return binding
        raise _error(errno.EADDRINUSE)

    def answer_unbound(self, protocol: Protocol, deliver: Deliver) -> None:
        """Give `deliver` what comes for this protocol where nobody is bound: TCP refuses it."""
        self._unbound[protocol] = deliver

    def send(self, protocol: Protocol, source: Address, data: bytes, destination: Address) -> None:
        """Send without a binding, from one of the host's addresses. Raises OSError as `Binding.send`."""
        self._send(protocol, source, data, destination, source.host)

    def source_for(self, destination: Address) -> str:
        """Which of the host's addresses a packet to `destination` leaves from. Raises OSError where no route is."""
        route = self._route(_wildcard(destination.host), destination.host, None)
        own = route.source
        return f"{own}%{route.interface.name}" if own.startswith("fe80:") and route.interface is not None else own

    def add_interface(self, interface: Interface) -> None:
        """Plug an interface in."""
        if interface.name in self.interfaces:
            raise ValueError(f"{self.name} has an interface {interface.name!r} already")
        self.interfaces[interface.name] = interface
        interface.watch(self._renew)
        self._renew()

    def unplug(self, interface: str) -> None:
        """Take an interface away."""
        plugged = self.interfaces.pop(interface)
        plugged.assign([])
        plugged.link.cut()

    def move(self, site: Site, interface: str = "eth0", **options: Any) -> None:
        """Unplug an interface here and plug it in there, as when a laptop is carried to another place.

        options: as of `Site.join`.
        """
        self.unplug(interface)
        site.join(self, interface, **options)

    def default_routes(self) -> list[str]:
        """What tells the ways out of this host from others."""
        return [
            f"IPv{version} {interface.name} {interface.router.name} {interface.metric}"
            for interface in self.interfaces.values()
            if interface.up
            for version in interface.versions()
        ]

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call `watcher` whenever the addresses or the default routes may have changed."""
        self._watchers.append(watcher)

    def unwatch(self, watcher: Callable[[], None]) -> None:
        """Call no more."""
        self._watchers.remove(watcher)

    def change_address(self, interface: str, *addresses: str) -> None:
        """Have other addresses on an interface, each with its prefix length: `192.168.1.7/24`."""
        self.interfaces[interface].assign([ipaddress.ip_interface(address) for address in addresses])

    def sleep(self) -> None:
        """Suspend the host: no timer of its programs fires and no packet arrives until `wake`."""
        self.asleep = True

    def wake(self) -> None:
        """Go on: what was due meanwhile is due now."""
        self.asleep = False
        if self._machine is not None:
            self._machine.resume()

    def receive(self, interface: str, packet: Packet) -> None:
        """Take a packet from the wire at an interface."""
        source, destination = packet.source, packet.destination
        if destination.host.startswith("fe80:") or source.host.startswith("fe80:"):
            packet = packet.between(_zoned(source, interface), _zoned(destination, interface))
        if packet.destination.host in self._own:
            self._receive(packet)
        else:
            self._report(self.name, Fate.NO_ROUTE, packet)

    def _receive(self, packet: Packet) -> None:
        if self.asleep:
            self._report(self.name, Fate.ASLEEP, packet)
            return
        destination = packet.destination
        bindings = self._udp if packet.protocol is Protocol.UDP else self._bindings[packet.protocol]
        binding = bindings.get(destination) or bindings.get(Address(_wildcard(destination.host), destination.port))
        if binding is None:
            self._report(self.name, Fate.NOT_LISTENING, packet)
            if packet.protocol in self._unbound:
                self._unbound[packet.protocol](packet)
        else:
            self._report(self.name, Fate.DELIVERED, packet)
            binding.deliver(packet)

    def _send(
        self, protocol: Protocol, local: Address, data: bytes, destination: Address, source_host: str | None
    ) -> None:
        route = self._routes.get((destination.host, source_host))
        if route is None:
            route = self._routes[destination.host, source_host] = self._route(local.host, destination.host, source_host)
        if len(data) > (_MAX_PAYLOAD_V6 if ":" in destination.host else _MAX_PAYLOAD):
            raise _error(errno.EMSGSIZE)
        if not destination.port:
            raise _error(errno.EINVAL)
        interface, source, target = route
        packet = Packet(
            protocol,
            Address(source, local.port),
            Address(target, destination.port),
            data,
            next(self._numbers),
            self.name,
        )
        self._report(self.name, Fate.SENT, packet)
        if interface is None:
            self._schedule.call_at(self._schedule.time(), self._receive, packet)
        else:
            interface.link.outward.carry(packet)

    def _route(self, local: str, destination: str, source: str | None) -> _Route:
        """Find the way to a destination, from a source if one is given. Raises OSError where there is none."""
        if (":" in local) != (":" in destination):
            raise _error(errno.EAFNOSUPPORT)
        if destination in WILDCARDS:
            destination = _LOOPBACK[WILDCARDS.index(destination)]
        if source is not None and source not in self._own and not source.startswith("127."):
            raise _error(errno.EINVAL)
        if destination in self._own or destination.startswith("127."):
            return _Route(None, source or destination, destination)
        ip = ipaddress.ip_address(destination)
        interface = self._interface_to(ip, source)
        if source is None:
            source = preferred(interface.addresses_for(ip), ip)
        elif ipaddress.ip_address(source).is_loopback:
            raise _error(errno.EINVAL)
        return _Route(interface, source.partition("%")[0], destination.partition("%")[0])

    def _interface_to(self, ip: IpAddress, source: str | None) -> Interface:
        up = [interface for interface in self.interfaces.values() if interface.up]
        zone = ip.scope_id if isinstance(ip, ipaddress.IPv6Address) else None
        if ip.is_link_local and ip.version == 6 and zone is None:
            raise _error(errno.EINVAL)
        owner = self._own.get(source) if source is not None and not self.weak else None
        if owner is not None:
            up = [owner]
        if zone is not None:
            up = [interface for interface in up if interface.name == zone]
        best = max(up, key=lambda interface: (interface.match(ip), -interface.metric), default=None)
        if best is None or best.match(ip) < 0:
            raise _error(errno.ENETUNREACH)
        return best

    def _unbind(self, protocol: Protocol, local: Address) -> None:
        del self._bindings[protocol][local]

    def _ephemeral_ports(self) -> Iterator[int]:
        start = self._rng.randrange(len(_EPHEMERAL))
        return (_EPHEMERAL[(start + index) % len(_EPHEMERAL)] for index in range(len(_EPHEMERAL)))

    def _renew(self) -> None:
        """The interfaces have changed."""
        self._routes.clear()
        self._own = dict.fromkeys(_LOOPBACK)
        for interface in self.interfaces.values():
            if interface.up:
                self._own |= dict.fromkeys(interface.hosts(), interface)
        for watcher in list(self._watchers):
            watcher()


def _conflicts(local: Address, bindings: dict[Address, Binding]) -> bool:
    """Whether the kernel would say EADDRINUSE: a wildcard has its port on every address of its family."""
    if local.host not in WILDCARDS:
        return local in bindings or Address(_wildcard(local.host), local.port) in bindings
    return any(each.port == local.port and (":" in each.host) == (":" in local.host) for each in bindings)


def _wildcard(host: str) -> str:
    return WILDCARDS[":" in host]


def _zoned(address: Address, zone: str) -> Address:
    return Address(f"{address.host}%{zone}", address.port) if address.host.startswith("fe80:") else address


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
