"""A carrier held to its interface: an application has made it, and a stranger speaks at its other end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from typing import Any

from quice.errors import SignallingError
from quice.signal.interface import Signalling
from quice.signal.messages import Bye, Message, SignalDecodeError, decode, encode

_PATIENCE = 15.0
"""Seconds that a carrier may take to take a message."""
_FAREWELL = 2.0
"""The same for the last one, and for closing: nobody is to be held up by what is over."""


class CheckedSignalling:
    """What comes is what `decode` lets through, however the carrier has read it; and whatever fails, or never ends, is
    a failure of signalling. A session has one around what it is given."""

    def __init__(self, carrier: Signalling) -> None:
        self._carrier = carrier

    async def send(self, message: Message) -> None:
        """See `Signalling`."""
        patience = _FAREWELL if isinstance(message, Bye) else _PATIENCE
        with _carrying():
            await _within(patience, self._carrier.send(message))

    async def receive(self) -> Message:
        """See `Signalling`."""
        with _carrying():
            return decode(encode(await self._carrier.receive()))

    async def close(self) -> None:
        """See `Signalling`."""
        with contextlib.suppress(SignallingError, SignalDecodeError), _carrying():
            await _within(_FAREWELL, self._carrier.close())


@contextlib.contextmanager
def _carrying() -> Iterator[None]:
    try:
        yield
    except (SignallingError, SignalDecodeError):
        raise
    except Exception as error:
        raise SignallingError(f"what carries the messages has failed: {error!r}") from error


async def _within(seconds: float, work: Coroutine[Any, Any, None]) -> None:
    """Wait for this, but no longer. Not wait_for, which can lose a cancellation that comes together with the result
    (before Python 3.12), and waits for what does not end when it is cancelled."""
    task = asyncio.create_task(work, name="quice signalling")
    task.add_done_callback(_look_at)
    try:
        await asyncio.wait([task], timeout=seconds)
    finally:
        task.cancel()
    if not task.done():
        raise SignallingError(f"what carries the messages has not taken one in {seconds:g} s")
    if task.cancelled():
        raise SignallingError("what carries the messages was cancelled")
    task.result()


def _look_at(task: asyncio.Task[None]) -> None:
    """If nobody waits any more, nobody needs to know how it has failed."""
    if not task.cancelled():
        task.exception()
