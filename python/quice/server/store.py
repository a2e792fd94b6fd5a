"""What the processes of one service share: where each peer is registered, and the way there.

A process knows its own peers, and delivers between them by itself. For all else it asks its store, which is in memory
where one process is the whole service, and in Redis where there are several (`redis_store.py`).
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from typing import Protocol

from quice.machine import this_machine
from quice.server.mailboxes import MailboxStore, MemoryMailboxes

PeerKey = bytes
"""A peer's public key. Not a `PeerId`, which costs more to make than a message to deliver."""


class Taken(enum.Enum):
    """What became of a message for a peer."""

    YES = "yes"
    """It is on its way on the peer's connection."""
    ABSENT = "absent"
    FULL = "full"
    """The peer does not read what is sent to it."""


class LocalPeers(Protocol):
    """The peers that are registered at this process, as its store sees them."""

    def take(self, peer: PeerKey, message: bytes) -> Taken:
        """Give a peer this message, which is encoded as it goes to the peer."""

    def replaced(self, peer: PeerKey) -> None:
        """The peer has registered at another process since."""


class Store(Protocol):
    """The service as one of its processes sees it."""

    async def open(self, local: LocalPeers) -> None:
        """Begin. Raises `StoreUnreachableError` when what it stands on is not there."""

    async def claim(self, peer: PeerKey, *, replace: bool) -> bool:
        """Have the peer registered here, and nowhere else. Returns whether it is: not if it is registered elsewhere and
        is not to be replaced.
        """

    def release(self, peer: PeerKey) -> None:
        """The peer has left this process."""

    def forward(self, to: PeerKey, message: bytes, failed: Callable[[], None]) -> None:
        """Send a message, encoded as it goes to the peer, to one that is not here. `failed` is called, perhaps at once,
        unless it has been given to the peer.
        """

    @property
    def mailboxes(self) -> MailboxStore:
        """Those of the whole service."""

    @property
    def trouble(self) -> str | None:
        """What is wrong now, if anything is."""

    async def settle(self) -> None:
        """Wait until all that was sent has been given to its peer or has failed."""

    async def close(self) -> None:
        """End. What others have sent here is theirs again."""


class MemoryStore:
    """One process is all there is."""

    trouble = None

    def __init__(self) -> None:
        self.mailboxes: MailboxStore = MemoryMailboxes(asyncio.get_running_loop().time, this_machine().random)

    async def open(self, local: LocalPeers) -> None:
        """See `Store`."""

    async def claim(self, peer: PeerKey, *, replace: bool) -> bool:
        """See `Store`."""
        return True

    def release(self, peer: PeerKey) -> None:
        """See `Store`."""

    def forward(self, to: PeerKey, message: bytes, failed: Callable[[], None]) -> None:
        """See `Store`."""
        failed()

    async def settle(self) -> None:
        """See `Store`."""

    async def close(self) -> None:
        """See `Store`."""
