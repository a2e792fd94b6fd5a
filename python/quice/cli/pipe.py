"""Standard input and output as the two ends of a stream."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from typing import TYPE_CHECKING

from quice.errors import PeerClosedError

if TYPE_CHECKING:
    from quice.connection import Connection
    from quice.stream import Stream

_CHUNK = 1 << 16
_DONE = 0
INTERRUPTED = 1
"""Codes of a connection's end: everything has arrived, or not."""


class Input:
    """Reads a file descriptor of any kind, a terminal, a pipe or a file, without holding the event loop up."""

    def __init__(self, descriptor: int) -> None:
        self.is_terminal = os.isatty(descriptor)
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._chunks: asyncio.Queue[bytes] = asyncio.Queue()
        self._wanted = threading.Semaphore(0)
        self._rest = b""
        # A thread that waits for input can't be stopped: as a daemon it does not hold up the program's end.
        threading.Thread(target=self._run, daemon=True).start()

    async def read(self) -> bytes:
        """What comes next; b"" at the end."""
        rest, self._rest = self._rest, b""
        return rest or await self._next()

    async def line(self) -> str:
        """The next line; "" at the end."""
        while b"\n" not in self._rest:
            chunk = await self._next()
            if not chunk:
                break
            self._rest += chunk
        line, newline, self._rest = self._rest.partition(b"\n")
        return (line + newline).decode(errors="replace")

    async def _next(self) -> bytes:
        self._wanted.release()
        return await self._chunks.get()

    def _run(self) -> None:
        while True:
            self._wanted.acquire()
            try:
                chunk = os.read(self._descriptor, _CHUNK)
            except OSError:
                chunk = b""
            try:
                self._loop.call_soon_threadsafe(self._chunks.put_nowait, chunk)
            except RuntimeError:
                # The loop is closed: nobody waits any more.
                return


async def pipe(connection: Connection, stream: Stream, source: Input, sink: int) -> None:
    """Send what comes from `source`, and write what comes from the peer to the descriptor `sink`, until both have come
    to their end; at a terminal, until the peer's has.

    Raises `ConnectionClosedError` and `StreamError` when the peer ends before it has everything, and `BrokenPipeError`
    when nobody reads what is written.
    """
    sending = asyncio.create_task(_send(source, stream))
    try:
        await _receive(stream, sink)
        if source.is_terminal:
            sending.cancel()
        await asyncio.wait([sending])
        if sending.cancelled():
            stream.finish()
        else:
            sending.result()
        await _confirm(connection)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def _send(source: Input, stream: Stream) -> None:
    while chunk := await source.read():
        await stream.write(chunk)
    stream.finish()


async def _receive(stream: Stream, sink: int) -> None:
    while chunk := await stream.read():
        await asyncio.to_thread(_write, sink, chunk)


def _write(sink: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(sink, view) :]


async def _confirm(connection: Connection) -> None:
    """Tell the peer that all of its has come, and learn from it that all of ours has. Then nothing is left to do."""
    try:
        confirmation = await connection.open_stream(unidirectional=True)
        confirmation.finish()
        await connection.accept_stream()
    except PeerClosedError as error:
        # Who has everything and has been told so may be gone before its own word has come.
        if error.code != _DONE:
            raise
    with contextlib.suppress(Exception):
        connection.close(_DONE)
