"""A QUIC stream for asyncio."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from quice import _native
from quice.errors import StreamClosedError, StreamResetError, StreamStoppedError

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from quice.connection import Connection

_DEFAULT_READ = 1 << 16


class Stream:
    """A byte stream of a connection; both ways, or one way.

    One task may read while another writes; two that read, or two that write, at the same time raise
    `RuntimeError`. Every await can be cancelled: nothing that was received is lost by it.
    """

    def __init__(self, connection: Connection, native: _native.Connection, stream_id: int) -> None:
        self.connection = connection
        self.id = stream_id
        self._native = native
        # RFC 9000 §2.1: bit 1 tells one-way streams, bit 0 those that the server opened.
        self._one_way = bool(stream_id & 2)
        self._at_end = False
        self._kept = bytearray()
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._bytes_written = 0

    @property
    def unidirectional(self) -> bool:
        """Whether only the side that opened the stream writes to it."""
        return self._one_way

    @property
    def bytes_written(self) -> int:
        """Bytes accepted by `write` so far: after a cancelled write, how far it came."""
        return self._bytes_written

    @property
    def priority(self) -> int:
        """Streams of higher priority send first; 0 for all at first."""
        try:
            return self._native.priority(self.id)
        except Exception as error:
            raise self._translated(error) from None

    @priority.setter
    def priority(self, value: int) -> None:
        try:
            self._native.set_priority(self.id, value)
        except Exception as error:
            raise self._translated(error) from None

    async def read(self, n: int = _DEFAULT_READ) -> bytes:
        """Return what is there, up to `n` bytes, waiting if nothing is; b"" at the end of the stream.

        Raises `StreamResetError` when the peer abandoned the stream, `ConnectionClosedError` when the
        connection is over, `StreamClosedError` when this side does not read the stream (any more).
        """
        if n <= 0:
            return b""
        if self._kept:
            data = bytes(self._kept[:n])
            del self._kept[:n]
            return data
        while not self._at_end:
            try:
                chunk = self._native.read(self.id, n)
            except Exception as error:
                raise self._translated(error) from None
            if chunk is None:
                await self._readable()
                continue
            self.connection._pump.wake()
            self._at_end = not chunk
            return chunk
        return b""

    async def readinto(self, buffer: Buffer) -> int:
        """Fill a writable buffer with what is there, waiting if nothing is; returns the count, 0 at the end.

        Raises as `read`.
        """
        if self._kept:
            with memoryview(buffer).cast("B") as view:
                count = min(len(view), len(self._kept))
                view[:count] = self._kept[:count]
            del self._kept[:count]
            return count
        while not self._at_end:
            try:
                count_or_none = self._native.readinto(self.id, buffer)
            except Exception as error:
                raise self._translated(error) from None
            if count_or_none is None:
                await self._readable()
                continue
            self.connection._pump.wake()
            if count_or_none == 0 and memoryview(buffer).nbytes:
                self._at_end = True
            return count_or_none
        return 0

    async def readexactly(self, n: int) -> bytes:
        """Return exactly `n` bytes. Raises `asyncio.IncompleteReadError` with what there was if the stream
        ends before, else as `read`. What had arrived when it is cancelled, the next read returns."""
        gathered = bytearray()
        try:
            while len(gathered) < n:
                chunk = await self.read(n - len(gathered))
                if not chunk:
                    raise asyncio.IncompleteReadError(bytes(gathered), n)
                gathered += chunk
        except asyncio.CancelledError:
            self._kept[:0] = gathered
            raise
        return bytes(gathered)

    async def write(self, data: Buffer) -> None:
        """Hand over all of `data`, waiting while the peer or the network takes no more.

        When it returns, the bytes are quice's; that the peer has them, only its answer tells. Cancelled, it
        may have handed over a part: `bytes_written` tells. Raises `StreamStoppedError` when the peer reads no
        more, `StreamClosedError` after `finish` or `reset`, `ConnectionClosedError`.
        """
        size = memoryview(data).nbytes
        offset = 0
        while True:
            try:
                taken = self._native.write(self.id, data, offset)
            except Exception as error:
                raise self._translated(error) from None
            offset += taken
            self._bytes_written += taken
            self.connection._pump.wake()
            if offset >= size:
                return
            await self._writable()

    def finish(self) -> None:
        """End this side's half after what was written; the peer reads b"" there.

        Raises `StreamStoppedError`, `StreamClosedError`, `ConnectionClosedError`.
        """
        try:
            self._native.finish(self.id)
        except Exception as error:
            raise self._translated(error) from None
        self.connection._pump.wake()

    def reset(self, code: int = 0) -> None:
        """Abandon this side's half: the peer's reads raise `StreamResetError(code)`. No effect when over."""
        self._abandon(self._native.reset, code)

    def stop(self, code: int = 0) -> None:
        """Read no more: the peer's writes raise `StreamStoppedError(code)`. No effect when over."""
        self._at_end = True
        self._kept.clear()
        self._abandon(self._native.stop, code)

    def _abandon(self, act: _Abandon, code: int) -> None:
        try:
            act(self.id, code)
        except (_native.StreamClosed, _native.ConnectionGone):
            return
        self.connection._pump.wake()

    async def _readable(self) -> None:
        if self._reader is not None:
            raise RuntimeError("two tasks read from this stream at the same time")
        self.connection._raise_if_closed()
        self._reader = self.connection._loop.create_future()
        self.connection._pump.flush()
        try:
            await self._reader
        finally:
            self._reader = None

    async def _writable(self) -> None:
        if self._writer is not None:
            raise RuntimeError("two tasks write to this stream at the same time")
        self.connection._raise_if_closed()
        self._writer = self.connection._loop.create_future()
        self.connection._pump.flush()
        try:
            await self._writer
        finally:
            self._writer = None

    def _on_readable(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _on_writable(self) -> None:
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)

    def _on_stopped(self) -> None:
        # The next write tells.
        self._on_writable()

    def _on_connection_closed(self) -> None:
        self._on_readable()
        self._on_writable()

    def _translated(self, error: Exception) -> Exception:
        """The public error for one of the engine's."""
        match error:
            case _native.StreamReset():
                self._at_end = False
                return StreamResetError(error.args[0])
            case _native.StreamStopped():
                return StreamStoppedError(error.args[0])
            case _native.StreamClosed():
                return self.connection._error or StreamClosedError()
            case _native.ConnectionGone():
                return self.connection._gone()
            case _:
                return error

    def __del__(self) -> None:
        self.connection._streams.pop(self.id, None)
        # What is collected after the loop has ended has nobody to say so.
        if self._native.release(self.id) and not self.connection._loop.is_closed():
            self.connection._pump.wake()

    def __repr__(self) -> str:
        return f"<Stream {self.id}>"


if TYPE_CHECKING:
    from collections.abc import Callable

    _Abandon = Callable[[int, int], None]
