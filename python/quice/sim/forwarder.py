"""The data path of a TURN server on a simulated machine: the rules of the real one (`src/relay`), packet by packet."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections import Counter
from collections.abc import Iterable, Iterator
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from quice.forwarder import Counts, Dispatch
from quice.sim.packet import Packet, Protocol
from quice.stun.attributes import Data, StunDecodeError, XorPeerAddress
from quice.stun.message import TRANSACTION_ID_LENGTH, Kind, Message, Method
from quice.turn.channel import decode_channel_data, encode_channel_data, is_channel_data
from quice.turn.framing import FramingError, Splitter, framed
from quice.turn.orders import FiveTuple
from quice.turn.policy import IpNetwork
from quice.wire import Address

if TYPE_CHECKING:
    from quice.sim.clock import SimLoop
    from quice.sim.host import Binding, Host
    from quice.sim.tcp_stack import SimServer, Tcp

_BURST_SECONDS = 1.0
_MAX_WAITING = 512 << 10
"""Bytes that may wait for a slow reader on TCP; data beyond that is dropped."""


class _DroppedError(Exception):
    """Data goes no further; the text says why."""


@dataclass
class _Bucket:
    """How many bytes an owner's allocations may carry, all together."""

    rate: float | None
    left: float
    filled: float

    def take(self, count: int, now: float) -> bool:
        if self.rate is None:
            return True
        burst = self.rate * _BURST_SECONDS
        self.left, self.filled = min(burst, self.left + (now - self.filled) * self.rate), now
        if self.left < count:
            return False
        self.left -= count
        return True


@dataclass
class _Allocation:
    client: FiveTuple
    bucket: _Bucket
    sockets: dict[bool, tuple[Binding, Address]] = field(default_factory=dict)
    """By whether it is IPv6: the socket, and the relayed address as peers see it."""
    permissions: set[str] = field(default_factory=set)
    peers: dict[int, Address] = field(default_factory=dict)

    def channel_of(self, peer: Address) -> int | None:
        return next((number for number, bound in self.peers.items() if bound == peer), None)


class SimForwarder:
    """See `quice.forwarder.Forwarder`."""

    def __init__(
        self,
        loop: SimLoop,
        host: Host,
        tcp: Tcp,
        rate: float | None,
        allowed: Iterable[IpNetwork],
        dispatch: Dispatch,
    ) -> None:
        self._loop = loop
        self._host = host
        self._tcp = tcp
        self._rate = rate
        self._allowed = tuple(allowed)
        self._dispatch = dispatch
        self._listeners: list[Binding] = []
        self._servers: list[SimServer] = []
        self._streams: dict[FiveTuple, _Stream] = {}
        self._allocations: dict[int, _Allocation] = {}
        self._by_client: dict[FiveTuple, int] = {}
        self._relayed: dict[Address, int] = {}
        self._buckets: dict[str, _Bucket] = {}
        self._own: set[str] = set()
        self._own_ports: set[int] = set()
        self._to_peers = self._bytes_to_peers = self._to_clients = self._bytes_to_clients = 0
        self._drops: Counter[str] = Counter()
        self._indications = 0
        # Packets come from no program in particular: what they set off runs on this machine.
        self._context = copy_context()

    def listen(self, host: str, port: int, *, tcp: bool) -> Address:
        """See `Forwarder`."""
        if tcp:
            server = self._tcp.serve(lambda: _Stream(self), host, port)
            self._servers.append(server)
            return Address(*server.sockets[0].getsockname())
        binding = self._host.bind(Protocol.UDP, Address(host, port), self._on_packet)
        self._listeners.append(binding)
        return binding.local

    def protect(self, hosts: Iterable[str], ports: Iterable[int]) -> None:
        """See `Forwarder`."""
        self._own.update(hosts)
        self._own_ports.update(ports)

    def open(self, allocation: int, client: FiveTuple, owner: str) -> None:
        """See `Forwarder`."""
        if owner not in self._buckets:
            self._buckets[owner] = _Bucket(self._rate, (self._rate or 0) * _BURST_SECONDS, self._loop.time())
        self._allocations[allocation] = _Allocation(client, self._buckets[owner])
        self._by_client[client] = allocation

    def relay(self, allocation: int, local: Address, public: str) -> Address:
        """See `Forwarder`."""

        def deliver(packet: Packet) -> None:
            with self._counted():
                self._carry_in(allocation, packet.source, packet.data)

        binding = self._host.bind(Protocol.UDP, local, deliver)
        seen = Address(public, binding.local.port)
        self._allocations[allocation].sockets[":" in public] = binding, seen
        self._relayed[seen] = allocation
        self._own.update((public, local.host))
        return seen

    def unrelay(self, allocation: int, *, ipv6: bool) -> None:
        """See `Forwarder`."""
        binding, seen = self._allocations[allocation].sockets.pop(ipv6)
        del self._relayed[seen]
        binding.close()

    def delete(self, allocation: int) -> None:
        """See `Forwarder`."""
        for ipv6 in list(self._allocations[allocation].sockets):
            self.unrelay(allocation, ipv6=ipv6)
        del self._by_client[self._allocations.pop(allocation).client]

    def permit(self, allocation: int, host: str) -> None:
        """See `Forwarder`."""
        self._allocations[allocation].permissions.add(host)

    def forbid(self, allocation: int, host: str) -> None:
        """See `Forwarder`."""
        self._allocations[allocation].permissions.discard(host)

    def bind_channel(self, allocation: int, number: int, peer: Address) -> None:
        """See `Forwarder`."""
        self._allocations[allocation].peers[number] = peer

    def unbind_channel(self, allocation: int, number: int) -> None:
        """See `Forwarder`."""
        self._allocations[allocation].peers.pop(number, None)

    def send(self, data: bytes, client: FiveTuple) -> None:
        """See `Forwarder`."""
        if client.tcp:
            stream = self._streams.get(client)
            if stream is not None:
                stream.write(framed(data))
            return
        for listener in self._listeners:
            if (":" in listener.local.host) == (":" in client.client.host):
                # What the kernel refuses to send is a lost datagram.
                with contextlib.suppress(OSError):
                    listener.send(data, client.client, client.server.host)

    def counts(self) -> Counts:
        """See `Forwarder`."""
        return Counts(self._to_peers, self._bytes_to_peers, self._to_clients, self._bytes_to_clients, dict(self._drops))

    def close(self) -> None:
        """See `Forwarder`."""
        for number in list(self._allocations):
            self.delete(number)
        for listener in self._listeners:
            listener.close()
        for server in self._servers:
            server.close()
        for stream in list(self._streams.values()):
            stream.abort()
        self._listeners.clear()
        self._servers.clear()

    def opened(self, client: FiveTuple, stream: _Stream) -> None:
        """A client has connected."""
        self._streams[client] = stream

    def lost(self, client: FiveTuple) -> None:
        """Its connection is gone."""
        del self._streams[client]
        if client in self._by_client:
            self._dispatch(None, client)

    def receive(self, data: bytes, client: FiveTuple) -> None:
        """Take in a datagram of a client, or a message of its stream."""
        with self._counted():
            if not self._carry_out(data, client):
                self._dispatch(data, client)

    def _on_packet(self, packet: Packet) -> None:
        self._context.run(self.receive, packet.data, FiveTuple(packet.source, packet.destination))

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            yield
        except _DroppedError as dropped:
            self._drops[str(dropped)] += 1

    def _carry_out(self, data: bytes, client: FiveTuple) -> bool:
        """Pass a client's data on; returns False for a request. Raises `_DroppedError`."""
        number = self._by_client.get(client)
        if is_channel_data(data):
            decoded = decode_channel_data(data)
            if decoded is None:
                raise _DroppedError("malformed")
            if number is None:
                raise _DroppedError("no allocation")
            peer = self._allocations[number].peers.get(decoded[0])
            if peer is None:
                raise _DroppedError("no channel")
            self._forward(number, peer, decoded[1])
            return True
        try:
            message = Message.decode(data)
        except StunDecodeError:
            raise _DroppedError("malformed") from None
        if message.kind is Kind.REQUEST:
            return False
        named, content = message.get(XorPeerAddress), message.get(Data)
        sends = message.method is Method.SEND and message.kind is Kind.INDICATION and not message.unknown_required
        if not sends or named is None or content is None:
            raise _DroppedError("malformed")
        if number is None:
            raise _DroppedError("no allocation")
        if named.address.host not in self._allocations[number].permissions:
            raise _DroppedError("no permission")
        self._forward(number, named.address, content.value)
        return True

    def _forward(self, number: int, peer: Address, data: bytes) -> None:
        allocation = self._allocations[number]
        if (":" in peer.host) not in allocation.sockets:
            raise _DroppedError("no allocation")
        binding, relayed = allocation.sockets[":" in peer.host]
        if not allocation.bucket.take(len(data), self._loop.time()):
            raise _DroppedError("rate")
        other = self._relayed.get(peer)
        if other is None:
            named = any(ipaddress.ip_address(peer.host) in network for network in self._allowed)
            if not peer.port or (peer.host in self._own and (not named or peer.port in self._own_ports)):
                raise _DroppedError("forbidden")
        self._to_peers += 1
        self._bytes_to_peers += len(data)
        if other is not None:
            self._carry_in(other, relayed, data)
        else:
            with contextlib.suppress(OSError):
                binding.send(data, peer)

    def _carry_in(self, number: int, peer: Address, data: bytes) -> None:
        """Pass data on that came to a relayed address. Raises `_DroppedError`."""
        allocation = self._allocations[number]
        if peer.host not in allocation.permissions:
            raise _DroppedError("no permission")
        if not allocation.bucket.take(len(data), self._loop.time()):
            raise _DroppedError("rate")
        channel = allocation.channel_of(peer)
        if channel is not None:
            message = encode_channel_data(channel, data)
        else:
            self._indications += 1
            identifier = self._indications.to_bytes(TRANSACTION_ID_LENGTH, "big")
            indication = Message(Method.DATA, Kind.INDICATION, identifier, (XorPeerAddress(peer), Data(data)))
            message = indication.encode(fingerprint=False)
        stream = self._streams.get(allocation.client)
        if stream is not None and stream.waiting > _MAX_WAITING:
            raise _DroppedError("full")
        self._to_clients += 1
        self._bytes_to_clients += len(data)
        self.send(message, allocation.client)


class _Stream(asyncio.Protocol):
    """A client's TCP connection."""

    def __init__(self, forwarder: SimForwarder) -> None:
        self._forwarder = forwarder
        self._splitter = Splitter()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        client, server = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        self._client = FiveTuple(Address(*client[:2]), Address(*server[:2]), tcp=True)
        self._forwarder.opened(self._client, self)

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._splitter.feed(data):
                self._forwarder.receive(message, self._client)
        except FramingError:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forwarder.lost(self._client)

    @property
    def waiting(self) -> int:
        """Bytes that wait to be sent."""
        return self._transport.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def abort(self) -> None:
        self._transport.abort()
