"""The STUN and TURN service: one port over UDP and TCP, on which requests are answered and data is relayed."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from quice.errors import BindError
from quice.forwarder import Counts, Forwarder
from quice.machine import NO_SUCH_FAMILY, this_machine
from quice.network import LocalAddress
from quice.server.logs import Event, about
from quice.server.stun import answer
from quice.stun.message import Method
from quice.turn.orders import (
    BindChannel,
    CloseFamily,
    Delete,
    FiveTuple,
    Forbid,
    Open,
    Order,
    Permit,
    UnbindChannel,
)
from quice.turn.policy import IpNetwork, PeerPolicy
from quice.turn.server import ADDRESS_FAMILY_NOT_SUPPORTED, INSUFFICIENT_CAPACITY, IPV6, Limits, TurnServer
from quice.wire import Address, random_bytes

logger = logging.getLogger(__name__)

DEFAULT_RELAY_PORTS = range(49152, 65536)
"""RFC 8656 §7.2 recommends the dynamic ports."""
DEFAULT_RELAY_RATE = 12_500_000.0
"""Bytes a second for each peer: 100 Mbit/s. Strangers may register, and pay nothing."""
_LOOK_INTERVAL = 5.0
"""Seconds for which this host's addresses are taken as they were: to ask for them takes longer than all the rest."""
_PORT_TRIES = 32
_SAME_PORT_TRIES = 8
_SECRET_LENGTH = 32
_BINDING = Method.BINDING.to_bytes(2, "big")


@dataclass(frozen=True)
class RelaySettings:
    """What a server relays, and for whom."""

    serve: bool = True
    """Whether it relays at all."""
    urls: tuple[str, ...] = ()
    """TURN servers elsewhere, for which peers get credentials; this one relays nothing then."""
    secret: str | None = field(default=None, repr=False)
    """Makes credentials. A random one unless TURN servers elsewhere are to have the same."""
    addresses: tuple[str, ...] = ()
    """What peers are told as relayed addresses, one of each family at most: where a NAT maps this host one to one.
    Otherwise the address that the client reached us by."""
    ports: range = DEFAULT_RELAY_PORTS
    quota: int = Limits.of_one
    """Allocations of each peer."""
    rate: float | None = DEFAULT_RELAY_RATE
    """Bytes a second of each peer, both ways and all allocations together; None for any number."""
    allow: tuple[IpNetwork, ...] = ()
    """Networks to relay to though they are private, or this host's own."""


NO_RELAY = RelaySettings(serve=False)


class RelayService:
    """Answers STUN and TURN requests on a port of every interface, each time from the address that was asked."""

    def __init__(self, settings: RelaySettings, secret: str) -> None:
        """secret: what time-limited credentials are made with."""
        self._machine = this_machine()
        self._loop = asyncio.get_running_loop()
        self._settings = settings
        self._policy = PeerPolicy(settings.allow)
        self._serves = settings.serve and not settings.urls
        self._forwarder: Forwarder = self._new_forwarder()
        self.turn = TurnServer(
            secret, self._policy, self._machine.random, self._machine.unix_time, Limits(of_one=settings.quota)
        )
        self._timer: asyncio.TimerHandle | None = None
        self._here: list[LocalAddress] = []
        self._look_at = 0.0
        self._closed = False
        self.port = 0

    @property
    def relays(self) -> bool:
        """Whether this server relays, over UDP and TCP."""
        return self._serves

    @property
    def counts(self) -> Counts:
        """What has been carried and dropped so far."""
        return self._forwarder.counts()

    def bind(self, hosts: list[str], port: int) -> None:
        """Serve on these local IP addresses, all on one port. Raises `BindError`.

        An address after the first is left out where the system does not have its family.
        """
        tries = 1 if port else _SAME_PORT_TRIES
        for left in reversed(range(tries)):
            try:
                self._bind(hosts, port)
                break
            except BindError:
                if not left:
                    raise
                # The port that UDP got is taken for TCP, or in the other family.
                self._forwarder.close()
                self._forwarder = self._new_forwarder()
                self.port = 0

    def challenge(self, host: str) -> tuple[str, bytes]:
        """Realm and nonce for clients on this host; empty where it does not relay."""
        return self.turn.challenge(host, self._loop.time()) if self._serves else ("", b"")

    def protect(self, ports: Iterable[int]) -> None:
        """Let nothing through to these ports of this host, nor to the service's own."""
        self._look_around(self._loop.time())
        self._forwarder.protect(self._settings.addresses, [self.port, *ports])
        self._policy.own.update(ipaddress.ip_address(host) for host in self._settings.addresses)

    def close(self) -> None:
        """Free the ports; all allocations end."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._forwarder.close()

    def _new_forwarder(self) -> Forwarder:
        return self._machine.forwarder(self._settings.rate, self._settings.allow, self._receive)

    def _bind(self, hosts: list[str], port: int) -> None:
        purpose = "STUN and TURN" if self._serves else "STUN"
        served: list[str] = []
        for host in hosts:
            try:
                port = self.port = self._forwarder.listen(host, port, tcp=False).port
            except (OSError, ValueError) as error:
                if served and isinstance(error, OSError) and error.errno in NO_SUCH_FAMILY:
                    continue
                raise _bind_error("UDP", port, host, purpose, error) from error
            served.append(host)
        for host in served if self._serves else ():
            try:
                self._forwarder.listen(host, port, tcp=True)
            except OSError as error:
                raise _bind_error("TCP", port, host, purpose, error) from error

    def _receive(self, data: bytes | None, client: FiveTuple) -> None:
        if self._closed or not client.client.port:
            return
        now = self._loop.time()
        if data is None:
            self.turn.gone(client)
        elif data.startswith(_BINDING):
            response = answer(data, client.client)
            if response is not None:
                self._forwarder.send(response, client)
            return
        elif self._serves:
            self.turn.receive(data, client, now)
        self._settle(now)

    def _settle(self, now: float) -> None:
        """Do what the machine wants done."""
        for order in self.turn.events():
            self._obey(order, now)
        for answered in self.turn.transmits():
            self._forwarder.send(answered.data, answered.client)
        when = self.turn.timeout()
        if when is not None and (self._timer is None or when < self._timer.when()):
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(when, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = self._loop.time()
        self.turn.handle_timeout(now)
        self._settle(now)

    def _obey(self, order: Order, now: float) -> None:
        forwarder = self._forwarder
        match order:
            case Open(number, client, owner, families):
                self._look_around(now)
                forwarder.open(number, client, owner)
                self.turn.opened(number, {family: self._relay(order, family) for family in families}, now)
            case CloseFamily(number, family):
                forwarder.unrelay(number, ipv6=family == IPV6)
            case Delete(number):
                forwarder.delete(number)
            case Permit(number, host):
                forwarder.permit(number, host)
            case Forbid(number, host):
                forwarder.forbid(number, host)
            case BindChannel(number, channel, peer):
                forwarder.bind_channel(number, channel, peer)
            case UnbindChannel(number, channel):
                forwarder.unbind_channel(number, channel)

    def _relay(self, order: Open, family: int) -> Address | int:
        """Bind a relayed address. Returns it, or the code that says why there is none."""
        version = 6 if family == IPV6 else 4
        local = self._local_host(order.client.server, version)
        if local is None:
            return ADDRESS_FAMILY_NOT_SUPPORTED
        public = self._public_host(version) or local
        for port in self._random_ports(even=order.even):
            try:
                return self._forwarder.relay(order.allocation, Address(local, port), public)
            except OSError as error:
                if error.errno in NO_SUCH_FAMILY:
                    return ADDRESS_FAMILY_NOT_SUPPORTED
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    reason = error.strerror or error
                    logger.warning("no relayed address: %s", reason, extra=about(Event.NO_RELAYED_ADDRESS))
                    break
        return INSUFFICIENT_CAPACITY

    def _look_around(self, now: float) -> None:
        """Learn this host's addresses, which come and go while the server runs."""
        if now >= self._look_at:
            self._look_at = now + _LOOK_INTERVAL
            self._here = self._machine.addresses()
            self._forwarder.protect([local.host.partition("%")[0] for local in self._here], ())

    def _public_host(self, version: int) -> str | None:
        named = (host for host in self._settings.addresses if ipaddress.ip_address(host).version == version)
        return next(named, None)

    def _local_host(self, server: Address, version: int) -> str | None:
        """The address to bind: the one the operator named if it is here, else the one the client reached us by."""
        here = [local for local in self._here if local.ip.version == version]
        public = self._public_host(version)
        if any(local.host == public for local in here):
            return public
        if server.ip.version == version and not server.ip.is_link_local:
            return server.host
        usable = [local for local in here if not local.ip.is_link_local]
        usable.sort(key=lambda local: Address(local.host, 0).is_private)
        return usable[0].host if usable else None

    def _random_ports(self, *, even: bool) -> Iterable[int]:
        """RFC 8656 §7.2: hard to guess."""
        ports = self._settings.ports
        if even:
            ports = ports[ports.start % 2 :: 2]
        for _ in range(_PORT_TRIES):
            yield ports[self._machine.random.getrandbits(32) % len(ports)]


def random_secret() -> str:
    """A secret for credentials that only this process takes."""
    return random_bytes(this_machine().random, _SECRET_LENGTH).hex()


def _bind_error(protocol: str, port: int, host: str, purpose: str, error: Exception) -> BindError:
    return BindError(f"{protocol} port {port} of {host} for {purpose}", error)
