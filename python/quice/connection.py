"""A QUIC connection to a peer, for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from quice import _native
from quice._native import Event, Loss
from quice.alpn import agreed
from quice.control import ControlChannel
from quice.errors import (
    ConnectionClosedError,
    DatagramError,
    Error,
    IdleTimeoutError,
    LocallyClosedError,
    PeerClosedError,
    PeerRestartedError,
    ProtocolError,
)
from quice.identity import PeerId
from quice.path import Path, PathEvents, PathLog, Places, carrying
from quice.policy import Policy
from quice.stream import Stream

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from quice.ice import Report
    from quice.paths import PathObserver
    from quice.policy import PolicyName
    from quice.pump import Pump
    from quice.session import Session
    from quice.upkeep import Upkeep


@dataclass(frozen=True)
class ConnectionStats:
    """Counts over a connection's life: datagrams and bytes of UDP payload, packets of QUIC.

    `refused_probes`: how often we did not send to an address that the peer named for NAT traversal.
    """

    sent_datagrams: int
    sent_bytes: int
    received_datagrams: int
    received_bytes: int
    sent_packets: int
    lost_packets: int
    lost_bytes: int
    refused_probes: int
    acks_received: int


class Connection:
    """A connection to a peer who has proven its key. `Endpoint.connect` and `Endpoint.accept` return it.

    It lives until one side closes it, or nothing has been heard for the idle timeout. As an async context
    manager it closes itself at the end of the block; as an async iterator it yields the streams that the peer
    opens. Every await can be cancelled.
    """

    connect_seconds: float
    """From the call of `connect`, or from the peer's offer, to the established connection. 0 where the peer connected
    straight to the address, without an offer."""

    def __init__(self, native: _native.Connection, pump: Pump) -> None:
        self._native = native
        self._pump = pump
        self._peer: PeerId | None = None
        self._alpn = ""
        self._error: Error | None = None
        # Weak: a stream that nobody holds any more is given up, and takes its engine half and its entry with it.
        self._streams: dict[int, weakref.ref[Stream]] = {}
        self._incoming: deque[Stream] = deque()
        self._changed: list[asyncio.Future[None]] = []
        self._loop = asyncio.get_running_loop()
        self._established: asyncio.Future[None] = self._loop.create_future()
        self._drained = asyncio.Event()
        self._session: Session | None = None
        self._upkeep: Upkeep | None = None
        self._observer: PathObserver | None = None
        self._places = Places()
        """What stands for what in the ends of its paths."""
        self._log: PathLog | None = None
        self._control: ControlChannel | None = None
        """Once established, with a peer that has one, too."""
        self.connect_seconds = 0.0

    @property
    def peer(self) -> PeerId:
        """Who is at the other end, proven by the handshake. Raises `LookupError` for a peer with X.509."""
        if self._peer is None:
            raise LookupError("this peer has no PeerId: it speaks X.509, or the handshake is not over")
        return self._peer

    @property
    def alpn(self) -> str:
        """The application protocol agreed on."""
        return self._alpn

    @property
    def report(self) -> Report | None:
        """What the connectivity checks that led here tried and found; None when they were not needed."""
        return self._session.report if self._session is not None else None

    @property
    def is_closed(self) -> bool:
        """Whether the connection is over, however that came."""
        return self._error is not None

    async def open_stream(self, *, unidirectional: bool = False) -> Stream:
        """Open a stream, waiting while the peer allows no more. The peer learns of it by the first write.

        Raises `ConnectionClosedError`.
        """
        while True:
            self._raise_if_closed()
            try:
                stream_id = self._native.open(unidirectional=unidirectional)
            except _native.ConnectionGone:
                raise self._gone() from None
            if stream_id is None:
                await self._change()
            elif self._is_visible(stream_id):
                return self._stream(stream_id)

    async def accept_stream(self) -> Stream:
        """The next stream the peer opened. Raises `ConnectionClosedError` once the connection is over."""
        while not self._incoming:
            self._raise_if_closed()
            await self._change()
        return self._incoming.popleft()

    async def __aiter__(self) -> AsyncIterator[Stream]:
        """The streams the peer opens, until one side closes the connection; other ends raise."""
        while True:
            try:
                yield await self.accept_stream()
            except (PeerClosedError, LocallyClosedError):
                return

    def send_datagram(self, data: Buffer) -> bool:
        """Send a datagram (RFC 9221), which may get lost. Returns False when it was dropped at once, because
        the buffer is full. Raises `DatagramError` when it is too large, `ConnectionClosedError`."""
        self._raise_if_closed()
        try:
            sent = self._native.send_datagram(data)
        except _native.DatagramRefused as error:
            raise DatagramError(str(error)) from None
        except _native.ConnectionGone:
            raise self._gone() from None
        self._pump.wake()
        return sent

    async def receive_datagram(self) -> bytes:
        """The next datagram from the peer. Raises `ConnectionClosedError`."""
        while True:
            try:
                datagram = self._native.receive_datagram()
            except _native.ConnectionGone:
                raise self._gone() from None
            if datagram is not None:
                return datagram
            self._raise_if_closed()
            await self._change()

    @property
    def max_datagram_size(self) -> int:
        """Bytes that a datagram may have now; 0 when the peer takes none. Raises `ConnectionClosedError`."""
        self._raise_if_closed()
        try:
            return self._native.max_datagram_size() or 0
        except _native.ConnectionGone:
            raise self._gone() from None

    @property
    def paths(self) -> list[Path]:
        """The network paths in use; none once the connection is gone."""
        try:
            return [self._places.path(values) for values in self._native.paths()]
        except _native.ConnectionGone:
            return []

    @property
    def path(self) -> Path | None:
        """The network path that data goes over; None once the connection is gone."""
        return carrying(self.paths)

    def path_events(self) -> PathEvents:
        """What happens to the paths from now on, as an async iterator of `PathOpened`, `PathClosed`,
        `PathStatusChanged` and, when data goes another way than before, `PathChanged`.

        It ends with the connection. Of what nobody reads, only the last 256 are kept.
        """
        events = PathEvents(self._pump.flush)
        if self._error is not None:
            events._end()
            return events
        if self._log is None:
            self._log = PathLog()
        self._log.add(events, self.paths)
        return events

    @property
    def stats(self) -> ConnectionStats:
        """Counts so far. Raises `ConnectionClosedError` once the connection is gone."""
        try:
            return ConnectionStats(**self._native.stats())
        except _native.ConnectionGone:
            raise self._gone() from None

    def set_policy(self, policy: PolicyName) -> None:
        """Let the connection take other ways, and tell the peer of other addresses, from now on. So one that began with
        "relay", and has found out whom it talks to, becomes direct with "auto".

        Raises `ConnectionClosedError`, and `LookupError` for a connection that can't change its ways: the peer speaks
        plain QUIC, or the endpoint has `checks="quic"`.
        """
        self._raise_if_closed()
        if self._upkeep is None:
            raise LookupError("this connection stays on the paths that it has")
        self._upkeep.set_policy(Policy(policy))

    def close(self, code: int = 0, reason: str = "") -> None:
        """Close the connection at once: what the peer has not yet received is lost to it.

        The peer sees `PeerClosedError(code, reason)`; its meaning is the application's. No effect when closed.
        """
        if self._error is None:
            self._native.close(code, reason.encode())
            self._pump.wake()
            self._end(LocallyClosedError())

    async def wait_closed(self) -> None:
        """Wait until the connection is over, whoever ends it. Never raises what it ended with."""
        while self._error is None:
            await self._change()

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    @property
    def _was_established(self) -> bool:
        """Whether there ever was a peer at the other end."""
        established = self._established
        return established.done() and not established.cancelled() and established.exception() is None

    def _handle(self, event: Event) -> None:
        """Take in an event of the engine that names this connection."""
        _HANDLERS[type(event)](self, event)

    def _on_connected(self, event: Event.Connected) -> None:
        self._peer = PeerId(event.peer) if event.peer is not None else None
        self._alpn, has_control = agreed(event.alpn)
        if has_control:
            self._control = ControlChannel(self._loop, is_client=not event.accepted)
            if not event.accepted:
                self._open_control()
        if not self._established.done():
            self._established.set_result(None)

    def _open_control(self) -> None:
        """As the client, open the channel before the application opens a stream."""
        with contextlib.suppress(_native.ConnectionGone):
            stream_id = self._native.open(unidirectional=False)
            if stream_id is not None:
                self._is_visible(stream_id)

    def _is_visible(self, stream_id: int) -> bool:
        """Whether the application gets to see a stream that was opened just now."""
        return self._control is None or not self._control.takes(self, stream_id)

    def _on_lost(self, event: Event.Lost) -> None:
        self._end(_loss_error(event))

    def _on_opened(self, event: Event.Opened) -> None:
        if self._is_visible(event.stream):
            self._incoming.append(self._stream(event.stream))
            self._notify()

    def _on_readable(self, event: Event.Readable) -> None:
        if (stream := self._held(event.stream)) is not None:
            stream._on_readable()

    def _on_writable(self, event: Event.Writable) -> None:
        if (stream := self._held(event.stream)) is not None:
            stream._on_writable()

    def _on_stopped(self, event: Event.Stopped) -> None:
        if (stream := self._held(event.stream)) is not None:
            stream._on_stopped()

    @property
    def _paths(self) -> PathObserver | None:
        """What looks after the paths."""
        return self._observer

    @_paths.setter
    def _paths(self, observer: PathObserver | None) -> None:
        self._observer = observer
        if observer is not None:
            observer.on_ranked = self._look_at_paths

    def _look_at_paths(self) -> None:
        """The paths may be others than before, or in another order: by the engine's events, or by our observer."""
        if self._log is not None and self._log.is_read:
            self._log.update(self.paths, self._loop.time())

    def _on_path_opened(self, event: Event.PathOpened) -> None:
        self._look_at_paths()
        if self._observer is not None:
            self._observer.on_opened(event.path)
        if self._upkeep is not None:
            self._upkeep.on_path_opened()

    def _on_path_lost(self, event: Event.PathLost) -> None:
        if self._log is not None:
            self._log.lose(event.path, event.reason, self._loop.time())
        self._look_at_paths()
        if self._observer is not None:
            self._observer.on_lost(event.path)
        if self._upkeep is not None and event.reason is _native.PathLoss.TimedOut:
            self._upkeep.on_path_lost()

    def _on_path_status(self, event: Event.PathStatus) -> None:
        self._look_at_paths()
        self._notify()

    def _on_named(self, event: Event.AddressAdded | Event.AddressRemoved) -> None:
        if self._observer is not None:
            self._observer.on_named()

    def _on_change(self, event: Event) -> None:
        self._notify()

    def _on_drained(self, event: Event.Drained) -> None:
        self._handle_closed_endpoint()

    def _handle_closed_endpoint(self) -> None:
        self._end(LocallyClosedError())
        self._drained.set()

    def _end(self, error: Error) -> None:
        if self._error is not None:
            return
        self._error = error
        observer, self._observer = self._observer, None
        if observer is not None:
            observer.close()
        if self._upkeep is not None:
            self._upkeep.close()
        if self._log is not None:
            self._log.close()
        if self._control is not None:
            self._control.close()
        if not self._established.done():
            self._established.set_exception(error)
            # Whoever waits sees it; when nobody does, it is no news.
            self._established.exception()
        for stream_id in list(self._streams):
            if (stream := self._held(stream_id)) is not None:
                stream._on_connection_closed()
        self._notify()

    def _gone(self) -> Error:
        """Why the connection is over, which the engine knows before its event has been dispatched."""
        if self._error is None:
            self._pump.wake()
            self._pump.flush()
        return self._error or LocallyClosedError()

    def _raise_if_closed(self) -> None:
        if self._error is not None:
            raise self._error

    def _stream(self, stream_id: int) -> Stream:
        stream = Stream(self, self._native, stream_id)
        self._streams[stream_id] = weakref.ref(stream)
        return stream

    def _held(self, stream_id: int) -> Stream | None:
        """The stream with this id, if the application still holds it."""
        reference = self._streams.get(stream_id)
        return reference() if reference is not None else None

    async def _change(self) -> None:
        """Wait until something about the connection has changed."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._changed.append(waiter)
        self._pump.flush()
        await waiter

    def _notify(self) -> None:
        waiters, self._changed = self._changed, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def __repr__(self) -> str:
        state = type(self._error).__name__ if self._error else "open"
        return f"<Connection {self._native.id & 0xFFFFFFFF} to {self._peer} {state}>"


def _loss_error(event: Event.Lost) -> ConnectionClosedError:
    match event.loss:
        case Loss.ClosedByApplication:
            return PeerClosedError(event.code, event.reason)
        case Loss.TimedOut:
            return IdleTimeoutError()
        case Loss.Reset:
            return PeerRestartedError()
        case Loss.Outraced:
            return LocallyClosedError()
        case Loss.NoCommonVersion:
            return ProtocolError("the peer has no QUIC version of ours")
        case _:
            return ProtocolError(event.reason)


_HANDLERS: dict[type[Event], Callable[[Connection, object], None]] = cast(
    "dict[type[Event], Callable[[Connection, object], None]]",
    {
        Event.Connected: Connection._on_connected,
        Event.Lost: Connection._on_lost,
        Event.Opened: Connection._on_opened,
        Event.Readable: Connection._on_readable,
        Event.Writable: Connection._on_writable,
        Event.Stopped: Connection._on_stopped,
        Event.StreamsAvailable: Connection._on_change,
        Event.DatagramReceived: Connection._on_change,
        Event.DatagramsUnblocked: Connection._on_change,
        Event.PathOpened: Connection._on_path_opened,
        Event.PathLost: Connection._on_path_lost,
        Event.PathStatus: Connection._on_path_status,
        Event.AddressAdded: Connection._on_named,
        Event.AddressRemoved: Connection._on_named,
        Event.Drained: Connection._on_drained,
    },
)
