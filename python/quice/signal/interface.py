"""How QUIC and the exchange of candidates meet: one interface, whatever carries the messages.

draft-perkins-quic-p2p-mux §3.2 asks for it: what is exchanged is in `quice.signal.messages`; when, is in
`quice.signal.session`; how, is an application's own business, or that of `quice.signal.rendezvous`.
"""

from __future__ import annotations

from typing import Protocol

from quice.signal.messages import Message


class Signalling(Protocol):
    """What carries the messages of one session between two peers. Each side has one.

    What has come at the other side is a beginning of what was sent: in order, with nothing left out. A carrier that
    repeats a description does no harm, one that loses messages for good must end the session. Nothing has to be secret
    for the connection to be the right one, since the handshake proves who the peer is; but who reads the messages
    learns the addresses of both, and who changes them can keep the two apart.
    """

    async def send(self, message: Message) -> None:
        """Send a message to the peer: `quice.signal.encode` has its bytes. It need not have arrived when this returns.
        Raises `SignallingError` when it can't be carried."""

    async def receive(self) -> Message:
        """The peer's next message: `quice.signal.decode` reads it, and its `SignalDecodeError` may leave this. Raises
        `SignallingError` when there will be none. One task at a time waits here, and may be cancelled: the message
        that it waited for is then the next call's."""

    async def close(self) -> None:
        """End the session on this side: whoever waits in `receive` gets `SignallingClosedError`. What was sent before
        is still carried. Called once or more often, whatever has become of the session; raises nothing."""
