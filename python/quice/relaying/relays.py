"""All relays of an endpoint, and who is let in through them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence

from quice.discovery import Discovery
from quice.ice import Base, Budget
from quice.pump import Pump
from quice.relaying.link import Link
from quice.relaying.relay import Relay
from quice.relaying.server import RelayServer
from quice.turn.uri import ServerUri
from quice.wire import Address, Random, Transmit

RELAYS_AT_ONCE, RELAYS_PER_SECOND = 16, 0.25
"""Relays that an endpoint begins with in quick succession, and in the long run: a rendezvous server may name other ones
as often as it likes, and each of them is tried at all of its addresses."""


class Relays:
    """The routes through relays: a relayed address is one of this endpoint's own, from which datagrams are sent and to
    which they come. The engine knows it by a name of its own, an address that no network has."""

    def __init__(
        self,
        pump: Pump,
        discovery: Discovery,
        bases: Callable[[], Sequence[Base]],
        rng: Random,
        replaced: Callable[[], None],
    ) -> None:
        """`replaced`: called when a relay has given us another address than before."""
        self._replaced = replaced
        self._pump = pump
        self._discovery = discovery
        self._bases = bases
        self._rng = rng
        # By the ways to the server: with other credentials it is the same one, and what it has given us stays.
        self._relays: dict[tuple[ServerUri, ...], Relay] = {}
        self._awaited: set[tuple[ServerUri, ...]] = set()
        self._wanted: tuple[RelayServer, ...] = ()
        self._allowance = Budget(RELAYS_AT_ONCE, RELAYS_PER_SECOND)
        self._later: asyncio.TimerHandle | None = None
        self._peers: dict[Address, list[object]] = {}

    @property
    def are_there(self) -> bool:
        """Whether there is one at all, working or not."""
        return bool(self._relays)

    @property
    def problems(self) -> list[str]:
        """Of those that have given us no address: why, as far as is known."""
        return [relay.problem for relay in self._relays.values() if relay.problem is not None]

    def use(self, servers: Sequence[RelayServer]) -> None:
        """Have allocations at these servers, and at no others; at new ones later, if there were many lately."""
        self._wanted = tuple(servers)
        if self._later is not None:
            self._later.cancel()
            self._later = None
        self._adopt()

    def _adopt(self) -> None:
        loop = asyncio.get_running_loop()
        wanted = {server.uris: server for server in self._wanted}
        for uris in [known for known in self._relays if known not in wanted]:
            self._awaited.discard(uris)
            self._relays.pop(uris).close()
        for uris, server in wanted.items():
            if uris in self._relays:
                self._relays[uris].server = server
            elif not self._allowance.take(1, loop.time()):
                self._later = loop.call_later(1 / RELAYS_PER_SECOND, self._adopt)
                break
            else:
                self._awaited.add(uris)
                self._relays[uris] = self._relay(server)
        self._discovery.await_relays(bool(self._awaited))

    def check(self) -> None:
        """The network may have changed: see which allocations are still there."""
        for relay in self._relays.values():
            relay.check()

    def is_relayed(self, address: Address) -> bool:
        """Whether it is a relayed address of ours."""
        return self._link_of(address) is not None

    def host_of(self, base: Address) -> str:
        """The local host that a connection or path is to have which leaves from this base, relayed or not."""
        link = self._link_of(base)
        return base.host if link is None else link.host

    def is_host(self, host: str) -> bool:
        """Whether the engine calls a relay so that is there."""
        return self._link_at(host) is not None

    def open(self, base: Address, peer: Address, owner: object) -> None:
        """Make way for QUIC to this peer, if the base is a relayed address, until the owner releases it."""
        if (link := self._link_of(base)) is not None:
            self._hold(owner, peer)
            link.open(peer)

    def hold(self, host: str, peer: Address, owner: object) -> None:
        """Keep the way to this peer through the relay that the engine calls so, if it is one, until released."""
        if (link := self._link_at(host)) is not None:
            self._hold(owner, peer)
            link.open(peer)

    def relayed_address(self, destination: Address, source: Address) -> Address:
        """What the engine says a datagram has come to, as the peer, its source, sees it."""
        return self.address_at(destination, source) or destination

    def address_at(self, local: Address, peer: Address) -> Address | None:
        """The relayed address that a path from this local one has, None if no relay is at it."""
        link = self._link_at(local.host)
        return link.address_for(peer) if link is not None else None

    def permit(self, owner: object, peers: Iterable[Address]) -> None:
        """Let these in, until the owner releases them."""
        new = [peer for peer in peers if self._hold(owner, peer)]
        if new:
            for link in self._links:
                link.permit(new)

    def release(self, owner: object, keep: Collection[Address | None] = ()) -> None:
        """Whom this one wanted in need no longer be, but for these."""
        for peer, owners in list(self._peers.items()):
            if owner in owners and peer not in keep:
                owners.remove(owner)
                if not owners:
                    del self._peers[peer]
                    for link in self._links:
                        link.forget(peer)

    def send(self, transmit: Transmit) -> bool:
        """Send a datagram that is not QUIC, if its source is a relayed address; returns whether it is."""
        link = self._link_of(transmit.source) if transmit.source is not None else None
        if link is None:
            return False
        link.send(transmit.data, transmit.destination)
        return True

    def receive(self, data: bytes, source: Address, destination: Address) -> bool:
        """Feed a STUN datagram; returns whether it was a relay's own."""
        return any(link.receive(data, source, destination) for relay in self._relays.values() for link in relay.links)

    def on_output(self, host: str, data: bytes) -> None:
        """The engine has this for the relay of that name."""
        if (link := self._link_at(host)) is not None:
            link.on_output(data)

    def close(self) -> None:
        """Give all allocations back."""
        self.use(())

    @property
    def _links(self) -> list[Link]:
        return [link for relay in self._relays.values() for link in relay.routes]

    def _relay(self, server: RelayServer) -> Relay:
        return Relay(
            server,
            self._pump,
            self._rng,
            self._bases,
            self._discovery,
            concluded=lambda: self._on_concluded(server.uris),
            allocated=lambda link: link.permit(list(self._peers)),
            replaced=self._replaced,
        )

    def _on_concluded(self, uris: tuple[ServerUri, ...]) -> None:
        self._awaited.discard(uris)
        self._discovery.await_relays(bool(self._awaited))

    def _hold(self, owner: object, peer: Address) -> bool:
        owners = self._peers.setdefault(peer, [])
        if owner not in owners:
            owners.append(owner)
        return len(owners) == 1

    def _link_of(self, address: Address) -> Link | None:
        return next((link for link in self._links if address in link.relayed), None)

    def _link_at(self, host: str) -> Link | None:
        return next((link for link in self._links if link.host == host), None)
