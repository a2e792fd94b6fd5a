"""What a TURN server's control plane has its data path do: each order is carried out at once, in the order given.

Nothing passes that no order has allowed. Allocations are known by number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from quice.wire import Address


class FiveTuple(NamedTuple):
    """Who a client is: its address, the one it reached the server by, and the transport (RFC 8656 §3.1)."""

    client: Address
    server: Address
    tcp: bool = False


class Answer(NamedTuple):
    """Bytes for a client."""

    data: bytes
    client: FiveTuple


@dataclass(frozen=True)
class Open:
    """Make an allocation, with a relayed address of each family; `TurnServer.opened` wants to know how it went.

    owner: whose allocations share one allowance of bytes. even: whether the ports are to be even.
    """

    allocation: int
    client: FiveTuple
    owner: str
    families: tuple[int, ...]
    even: bool


@dataclass(frozen=True)
class CloseFamily:
    """Give up the relayed address of one family."""

    allocation: int
    family: int


@dataclass(frozen=True)
class Delete:
    """Forget an allocation and all that belongs to it."""

    allocation: int


@dataclass(frozen=True)
class Permit:
    """Let a peer's host send to the client, and be sent to with indications."""

    allocation: int
    host: str


@dataclass(frozen=True)
class Forbid:
    """The permission has expired."""

    allocation: int
    host: str


@dataclass(frozen=True)
class BindChannel:
    """Know a peer by a channel number."""

    allocation: int
    number: int
    peer: Address


@dataclass(frozen=True)
class UnbindChannel:
    """The channel has expired."""

    allocation: int
    number: int


Order = Open | CloseFamily | Delete | Permit | Forbid | BindChannel | UnbindChannel
