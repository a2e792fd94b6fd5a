"""Where an endpoint is on the network: its sockets and candidates, its relays and its server, and who uses them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from quice.budgets import Budgets
from quice.discovery import Discovery, Exposure
from quice.errors import BindError, SignallingError
from quice.ice import Base
from quice.machine import Machine
from quice.network import Watch
from quice.pump import Pump
from quice.relaying import Relays, RelayServer
from quice.signal.rendezvous import RendezvousClient
from quice.stun.auth import LongTerm
from quice.turn.uri import ServerUri
from quice.wire import Address, Transmit

logger = logging.getLogger(__name__)

_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - every interface is the point: any may reach the peer
_PATIENCE = 3.0
"""Seconds to wait for a rendezvous server where there are other ways to be reached."""
_LOOK_AGAIN = 1.0
"""Seconds between two looks around that nobody but suspicion asked for."""


class Receiver(Protocol):
    """What gets STUN datagrams, such as a session."""

    def receive(self, data: bytes, source: Address, destination: Address) -> bool:
        """Take in a datagram; returns whether it was for this one."""


class Surroundings:
    """Shared by all connections of an endpoint. `moved` is called when the network is another than before."""

    def __init__(
        self,
        machine: Machine,
        pump: Pump,
        exposure: Exposure,
        moved: Callable[[], None],
    ) -> None:
        self.pump = pump
        self.rendezvous: RendezvousClient | None = None
        self.discovery = Discovery(lambda: self.bases, self.send, machine.random, exposure, moved)
        self.budgets = Budgets()
        """What peers may have this endpoint send to where they say that they are."""
        self.relays = Relays(pump, self.discovery, lambda: self.bases, machine.random, moved)
        self._machine = machine
        self._exposure = exposure
        self._moved = moved
        self._bound: list[Address] = []
        self._receivers: list[Receiver] = []
        # In order, as a set would not be.
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._watch: Watch | None = None
        self._check: asyncio.Task[None] | None = None
        self._stun_servers: tuple[Address, ...] = ()
        self._relay_servers: tuple[RelayServer, ...] = ()
        self._offered: tuple[Address, ...] = ()
        """The STUN servers of the rendezvous server that are asked."""
        self._loop = asyncio.get_running_loop()
        self._looked_at = float("-inf")

    @property
    def bases(self) -> list[Base]:
        """The local addresses that candidates are gathered from, with their interfaces."""
        bases: list[Base] = []
        for bound in self._bound:
            if bound.host not in _WILDCARDS:
                bases.append(Base(bound))
                continue
            family = bound.ip.version
            local = [local for local in self._machine.addresses() if local.ip.version == family]
            found = [Base(Address(address.host, bound.port), address.interface) for address in local]
            accepts = self._exposure.interfaces
            bases += [base for base in found if accepts is None or accepts(base)]
        return bases

    @property
    def port(self) -> int:
        """The UDP port; 0 before there is one."""
        return self._bound[0].port if self._bound else 0

    def bind(self, host: str | None, port: int) -> None:
        """Bind a UDP port. Raises `BindError`, and `ValueError` for a host that is no IP address."""
        if host is not None:
            self._bind_socket(host, port)
            return
        self._bind_socket(_WILDCARDS[0], port)
        try:
            self._bind_socket(_WILDCARDS[1], self.port)
        except BindError as error:
            logger.info("IPv4 alone: %s", error)

    def start(self, stun_servers: Sequence[Address], relay_servers: Sequence[RelayServer]) -> None:
        """Find out where this is, from now on, asking these servers."""
        self._stun_servers = tuple(stun_servers)
        self._relay_servers = tuple(relay_servers)
        self._watch = self._machine.watch(lambda change: self.look_again())
        if not self._exposure.lite:
            self._use_relays()
        self._gather()

    async def register(self, rendezvous: RendezvousClient) -> None:
        """Be found by this server's peers, and use what else it offers, also when it is another later.

        Raises `ServerUnreachableError`; but where STUN servers or relays are named, the endpoint does without until
        it can be reached.
        """
        if not self._exposure.lite:
            rendezvous.on_relays = lambda offered: self._on_relays()
        self.rendezvous = rendezvous
        await rendezvous.start(_PATIENCE if self._stun_servers or self._relay_servers else None)

    def look_again(self) -> None:
        """The network has changed, as far as one can see from here: find out what is true now."""
        logger.info("the network has changed")
        self.doubt(certain=True)
        self._moved()

    def doubt(self, *, certain: bool = False) -> None:
        """A peer is silent: perhaps it is not the peer."""
        now = self._loop.time()
        if not certain and now < self._looked_at + _LOOK_AGAIN:
            return
        self._looked_at = now
        self.discovery.start_again()
        self.relays.check()
        if self.rendezvous is not None:
            if self._check is not None:
                self._check.cancel()
            self._check = self.spawn(_check(self.rendezvous), "quice rendezvous check")

    def send(self, transmit: Transmit) -> None:
        """Send a datagram that is not QUIC. It may get lost."""
        if not self.relays.send(transmit):
            self.pump.send(transmit)

    def receive(self, data: bytes, source: Address, destination: Address) -> None:
        """Feed a datagram that is not QUIC."""
        if self.discovery.receive(data, source, destination) or self.relays.receive(data, source, destination):
            return
        destination = self.relays.relayed_address(destination, source)
        for receiver in self._receivers:
            if receiver.receive(data, source, destination):
                return

    def join(self, receiver: Receiver) -> None:
        """Feed this one, too."""
        self._receivers.append(receiver)

    def leave(self, receiver: Receiver) -> None:
        """Feed it no more, and let its peer in no more."""
        if receiver in self._receivers:
            self._receivers.remove(receiver)
        self.relays.release(receiver)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Do this meanwhile; it ends with the endpoint."""
        task = asyncio.create_task(work, name=name)
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)
        return task

    async def close(self) -> None:
        """End what was spawned, and everything that is sent but QUIC."""
        if self._watch is not None:
            self._watch.close()
        if self.rendezvous is not None:
            await self.rendezvous.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.discovery.close()
        self.relays.close()

    def _bind_socket(self, host: str, port: int) -> None:
        try:
            self._bound.append(self.pump.bind(host, port))
        except OSError as error:
            raise BindError(str(Address(host, port)), error) from error

    def _gather(self) -> None:
        self._offered = self.rendezvous.stun_servers if self.rendezvous is not None else ()
        self.discovery.start(() if self._exposure.lite else (*self._offered, *self._stun_servers))

    def _on_relays(self) -> None:
        """This endpoint has registered, or gets other credentials. A server that was restarted has no allocations."""
        if self.rendezvous is not None and self.rendezvous.stun_servers != self._offered:
            self._gather()
        self._use_relays()
        self.relays.check()

    def _use_relays(self) -> None:
        rendezvous = self.rendezvous
        offered, named_at = (rendezvous.relays, rendezvous.host) if rendezvous is not None else ((), None)
        servers: list[RelayServer] = []
        for each in offered:
            # Who runs the rendezvous server may write anything.
            with contextlib.suppress(ValueError):
                uris = tuple(ServerUri.parse(url) for url in each.urls)
                credentials = LongTerm(each.username, each.password, each.realm, each.nonce)
                servers.append(RelayServer(uris, credentials, named_at))
        self.relays.use((*self._relay_servers, *servers))


async def _check(rendezvous: RendezvousClient) -> None:
    # It is closed meanwhile.
    with contextlib.suppress(SignallingError):
        await rendezvous.check()
