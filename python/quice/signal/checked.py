"""A carrier held to its interface: an application has made it, and a stranger speaks at its other end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from quice.errors import SignallingError
from quice.signal.interface import Signalling
from quice.signal.messages import Message, SignalDecodeError, decode, encode


class CheckedSignalling:
    """What comes is what `decode` lets through, however the carrier has read it; and whatever fails is a failure of
    signalling. A session has one around what it is given."""

    def __init__(self, carrier: Signalling) -> None:
        self._carrier = carrier

    async def send(self, message: Message) -> None:
        """See `Signalling`."""
        with _carrying():
            await self._carrier.send(message)

    async def receive(self) -> Message:
        """See `Signalling`."""
        with _carrying():
            return decode(encode(await self._carrier.receive()))

    async def close(self) -> None:
        """See `Signalling`."""
        with contextlib.suppress(SignallingError, SignalDecodeError), _carrying():
            await self._carrier.close()


@contextlib.contextmanager
def _carrying() -> Iterator[None]:
    try:
        yield
    except (SignallingError, SignalDecodeError):
        raise
    except Exception as error:
        raise SignallingError(f"what carries the messages has failed: {error!r}") from error
