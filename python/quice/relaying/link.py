"""One allocation at a relay: its TURN client, what carries that, and the engine's route through it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

from quice import turn
from quice.driver import Driver
from quice.pump import Pump
from quice.stun.auth import LongTerm
from quice.tunnel import Tunnel
from quice.wire import Address, Random, Transmit

_MAX_CHANNELS = 64
"""Channels that peers whom we have permitted can make us bind, by sending from so many ports."""
_MAX_BUFFERED = 256 << 10
"""Bytes that may wait in a tunnel; more is dropped, as a full socket would, and QUIC sends slower."""


class LinkObserver(Protocol):
    """What a link tells."""

    def on_allocated(self, link: Link) -> None:
        """There is a relayed address."""

    def on_ended(self, link: Link, event: turn.Failed | turn.Lost) -> None:
        """There is none, or no longer."""


class Link:
    """The way to a relay's server: from one local address by UDP, or through one tunnel."""

    def __init__(
        self,
        pump: Pump,
        rng: Random,
        observer: LinkObserver,
        server: Address,
        source: Address,
        credentials: LongTerm,
        tunnel: Tunnel | None = None,
    ) -> None:
        """`source`: the local address."""
        self.source = source
        self.relayed: tuple[Address, ...] = ()
        """The relayed addresses: one, or one of each family."""
        self.mapped: Address | None = None
        self.host = ""
        """What the engine calls this route, once there is one."""
        self._pump = pump
        self._now = asyncio.get_running_loop().time
        self._observer = observer
        self._tunnel = tunnel
        self._channels: set[Address] = set()
        """The peers that have one."""
        self._closed = self._heard = False
        reliable, families = tunnel is not None, turn.AddressFamilies.BOTH
        self._client = turn.Client(server, source, credentials, rng, self._now(), families=families, reliable=reliable)
        self._driver: Driver[turn.Event] = Driver(self._client, self._transmit, self._handle)
        if tunnel is not None:
            self.host = pump.engine.add_relay(server, stream=True)
            tunnel.on_data = self._on_stream
            tunnel.on_closed = self._on_stream_closed

    @property
    def server(self) -> Address:
        """The server's address."""
        return self._client.server

    @property
    def is_datagram(self) -> bool:
        """Whether the server is reached by UDP."""
        return self._tunnel is None

    @property
    def is_heard(self) -> bool:
        """Whether the server has said anything."""
        return self._heard

    def is_from_here(self, addresses: Iterable[Address]) -> bool:
        """Whether what it is sent from is among our addresses."""
        return self.source.host in {address.host for address in addresses}

    def start(self) -> None:
        """Ask for the allocation."""
        self._driver.step()

    def reaches(self, peer: Address) -> bool:
        """Whether it has a relayed address of the peer's family."""
        return self.address_for(peer) is not None

    def address_for(self, peer: Address) -> Address | None:
        """The relayed address that the peer sees."""
        version = peer.ip.version
        return next((address for address in self.relayed if address.ip.version == version), None)

    def receive(self, data: bytes, source: Address, destination: Address) -> bool:
        """Feed a STUN datagram; returns whether it was from the server, and about this allocation."""
        here = destination == self.source if self._tunnel is None else destination.host == self.host
        if not here or not self._driver.receive(data, source, self.source):
            return False
        self._heard = True
        return True

    def permit(self, peers: list[Address]) -> None:
        """Let these in."""
        if not self._closed:
            self._client.permit([peer for peer in peers if self.reaches(peer)], self._now())
            self._driver.step()

    def open(self, peer: Address) -> None:
        """Make a channel to the peer, which QUIC can use at once: what is sent behind the request arrives behind it."""
        if self._closed or peer in self._channels:
            return
        number = self._client.bind(peer, self._now())
        self._channels.add(peer)
        self._driver.step()
        self._pump.engine.bind_channel(self.host, peer, number)

    def send(self, data: bytes, peer: Address) -> None:
        """Send a datagram that is not QUIC to the peer."""
        if not self._closed:
            self._client.send(data, peer, self._now())
            self._driver.step()

    def forget(self, peer: Address) -> None:
        """Nothing goes to this peer any more, nor is anything from it let in for long."""
        # The engine keeps the channel: the server may send on it until it ends there (RFC 8656 §12).
        self._channels.discard(peer)
        if not self._closed:
            self._client.unbind(peer)
            self._client.forget(peer.host)

    def check(self) -> None:
        """Find out whether the allocation is still there."""
        if not self._closed:
            self._client.check(self._now())
            self._driver.step()

    def on_output(self, data: bytes) -> None:
        """The engine has this for the tunnel."""
        if self._tunnel is not None:
            self._tunnel.send(data)
            self._relieve()

    def close(self) -> None:
        """Give the allocation back."""
        if not self._closed:
            self._client.close(self._now())
            self._driver.step()
        self._end()

    def _end(self) -> None:
        self._closed = True
        self._driver.close()
        if self.host:
            self._pump.engine.remove_relay(self.host)
        if self._tunnel is not None:
            self._tunnel.on_closed = None
            self._tunnel.close()

    def _transmit(self, transmit: Transmit) -> None:
        if self._tunnel is None:
            self._pump.send(transmit)
        else:
            self._tunnel.send(transmit.data)

    def _on_stream(self, data: bytes) -> None:
        self._pump.engine.receive_stream(self.host, data)
        self._relieve()
        self._pump.wake()

    def _relieve(self) -> None:
        if self._tunnel is not None:
            self._pump.engine.set_relay_congested(self.host, self._tunnel.buffered > _MAX_BUFFERED)

    def _on_stream_closed(self, error: Exception | None) -> None:
        if not self._closed:
            self._end()
            self._observer.on_ended(self, turn.Lost(f"the stream to the server has ended: {error or 'closed'}"))

    def _handle(self, event: turn.Event) -> None:
        match event:
            case turn.Allocated(relayed=relayed, mapped=mapped):
                self.relayed, self.mapped = relayed, mapped
                if self._tunnel is None:
                    self.host = self._pump.engine.add_relay(self.server, local=self.source.host)
                self._observer.on_allocated(self)
            case turn.Lost(code=turn.Code.WRONG_CREDENTIALS):
                # What QUIC has there goes on until there is another way, or the route is closed.
                self._closed = True
                self._driver.close()
                self._observer.on_ended(self, event)
            case turn.Failed() | turn.Lost():
                self._end()
                self._observer.on_ended(self, event)
            case turn.Received(data=data, peer=peer):
                if len(self._channels) < _MAX_CHANNELS:
                    # It talks to us, and will want an answer.
                    self.open(peer)
                self._pump.engine.receive_relayed(self.host, peer, data)
                self._pump.wake()
            case turn.Unbound(peer=peer):
                self._channels.discard(peer)
                self._pump.engine.unbind_channel(self.host, peer)
            case _:
                pass
