"""How QUIC and the exchange of candidates meet: one interface, whatever carries the messages.

draft-perkins-quic-p2p-mux §3.2 asks for it: what is exchanged is in `quice.signal.messages`; when, is this: the
initiating side sends `Offer`, or `Restart` for a connection that there is, the responding one `Answer` or `Refuse`;
from then on each sends `CandidateFound` as it finds candidates and `EndOfCandidates` once, in any order with the other
side's; `Bye` may come at any time.
"""

from __future__ import annotations

from typing import Protocol

from quice.signal.messages import Message


class Signalling(Protocol):
    """The messages of one session between two peers. Order is kept; a message arrives once or never."""

    async def send(self, message: Message) -> None:
        """Send a message to the peer. Raises `SignallingError` when it can't be carried."""

    async def receive(self) -> Message:
        """The peer's next message. Raises `SignallingError` when there will be none."""

    async def close(self) -> None:
        """End the session; whoever waits in `receive` gets `SignallingClosedError`."""
