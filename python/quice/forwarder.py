"""The data path of a TURN server on an event loop: what it can be told, and the real one, in Rust."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from quice import _native
from quice.turn.orders import FiveTuple
from quice.turn.policy import IpNetwork
from quice.wire import Address

Dispatch = Callable[[bytes | None, FiveTuple], None]
"""Gets each request of a client; None when its connection is gone, and what was allocated on it lost."""


@dataclass(frozen=True)
class Counts:
    """What has been carried, and what has been dropped."""

    packets_to_peers: int
    bytes_to_peers: int
    packets_to_clients: int
    bytes_to_clients: int
    drops: dict[str, int]
    """Packets dropped, by reason."""


class Forwarder(Protocol):
    """What carries data between clients and peers, without looking at the control plane for each packet.

    It lets through what it has been told to, and hands on requests.
    """

    def listen(self, host: str, port: int, *, tcp: bool) -> Address:
        """Serve clients on a local address. Raises `OSError`."""

    def protect(self, hosts: Iterable[str], ports: Iterable[int]) -> None:
        """Name addresses and ports of the server itself, which no client is to reach through it."""

    def open(self, allocation: int, client: FiveTuple, owner: str) -> None:
        """Make an allocation. `owner`: whose allocations share one allowance of bytes."""

    def relay(self, allocation: int, local: Address, public: str) -> Address:
        """Bind a relayed address; returns it as its peers see it, who see `public` as its host. Raises `OSError`."""

    def unrelay(self, allocation: int, *, ipv6: bool) -> None:
        """Close the relayed address of one family."""

    def delete(self, allocation: int) -> None:
        """Close an allocation and forget all that belongs to it."""

    def permit(self, allocation: int, host: str) -> None:
        """Install a permission."""

    def forbid(self, allocation: int, host: str) -> None:
        """Remove a permission."""

    def bind_channel(self, allocation: int, number: int, peer: Address) -> None:
        """Bind a channel."""

    def unbind_channel(self, allocation: int, number: int) -> None:
        """Remove a channel."""

    def send(self, data: bytes, client: FiveTuple) -> None:
        """Answer a client."""

    def counts(self) -> Counts:
        """What has been carried and dropped so far."""

    def close(self) -> None:
        """Free all ports."""


class NativeForwarder:
    """The data path on the system's sockets: a thread of its own, without the GIL."""

    def __init__(self, rate: float | None, allowed: Iterable[IpNetwork], dispatch: Dispatch) -> None:
        """`rate`: bytes a second that each owner may have carried. `allowed`: see `PeerPolicy`."""
        networks = [(str(network.network_address), network.prefixlen) for network in allowed]
        self._relay = _native.Relay(rate, networks)
        self._dispatch = dispatch
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._relay.news_fd, self._on_news)
        self._closed = False

    def listen(self, host: str, port: int, *, tcp: bool) -> Address:
        """See `Forwarder`."""
        return Address(*self._relay.listen(host, port, tcp))

    def protect(self, hosts: Iterable[str], ports: Iterable[int]) -> None:
        """See `Forwarder`."""
        self._relay.protect(list(hosts), list(ports))

    def open(self, allocation: int, client: FiveTuple, owner: str) -> None:
        """See `Forwarder`."""
        self._relay.open(allocation, client, owner)

    def relay(self, allocation: int, local: Address, public: str) -> Address:
        """See `Forwarder`."""
        return Address(*self._relay.relay(allocation, local.host, local.port, public))

    def unrelay(self, allocation: int, *, ipv6: bool) -> None:
        """See `Forwarder`."""
        self._relay.unrelay(allocation, ipv6)

    def delete(self, allocation: int) -> None:
        """See `Forwarder`."""
        self._relay.delete(allocation)

    def permit(self, allocation: int, host: str) -> None:
        """See `Forwarder`."""
        self._relay.permit(allocation, host)

    def forbid(self, allocation: int, host: str) -> None:
        """See `Forwarder`."""
        self._relay.forbid(allocation, host)

    def bind_channel(self, allocation: int, number: int, peer: Address) -> None:
        """See `Forwarder`."""
        self._relay.bind_channel(allocation, number, peer)

    def unbind_channel(self, allocation: int, number: int) -> None:
        """See `Forwarder`."""
        self._relay.unbind_channel(allocation, number)

    def send(self, data: bytes, client: FiveTuple) -> None:
        """See `Forwarder`."""
        self._relay.send(data, client)

    def counts(self) -> Counts:
        """See `Forwarder`."""
        to_peers, to_clients, drops = self._relay.counts()
        return Counts(*to_peers, *to_clients, drops)

    def close(self) -> None:
        """See `Forwarder`."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._relay.news_fd)
            self._relay.close()

    def _on_news(self) -> None:
        # Asking again tells that all before has been dealt with.
        for news in iter(self._relay.take, []):
            for data, (client, server, tcp) in news:
                if self._closed:
                    return
                self._dispatch(data, FiveTuple(Address(*client), Address(*server), tcp))
