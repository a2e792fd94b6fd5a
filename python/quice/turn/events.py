"""What a TURN client tells the layer above."""

from __future__ import annotations

from dataclasses import dataclass

from quice.wire import Address


@dataclass(frozen=True)
class Allocated:
    """There is a relayed address, or one of each family.

    mapped: the address that the server sees us at; over TCP and TLS it is one of TCP, and no candidate.
    """

    relayed: tuple[Address, ...]
    mapped: Address
    lifetime: float


@dataclass(frozen=True)
class Failed:
    """There will be no allocation. `code` is None when no answer was one; `reason` says what to do."""

    code: int | None
    reason: str


@dataclass(frozen=True)
class Bound:
    """The server knows the channel. Data may have been sent on it before."""

    peer: Address
    channel: int


@dataclass(frozen=True)
class Unbound:
    """The server refuses the channel, or to keep it: what is sent to the peer goes as Send indications now."""

    peer: Address
    channel: int
    code: int
    reason: str


@dataclass(frozen=True)
class PermissionRefused:
    """The server lets nothing through between us and this IP address."""

    host: str
    code: int
    reason: str


@dataclass(frozen=True)
class Received:
    """A peer's datagram came to the relayed address."""

    data: bytes
    peer: Address


@dataclass(frozen=True)
class Lost:
    """The allocation is gone, with all channels and permissions. A new client, on a new port, may get another.

    `code`: what the server refuses to keep it with, if it says so. 441: from here it has one that was made with another
    user name, as when a NAT gives us a port again. That one may carry what is sent through it until it expires.
    """

    reason: str
    code: int | None = None


@dataclass(frozen=True)
class Redirected:
    """The server has named another one, which is asked from now on: transmits go there.

    domain: the name that its certificate is for, over TLS.
    """

    server: Address
    domain: str | None


Event = Allocated | Failed | Bound | Unbound | PermissionRefused | Received | Lost | Redirected
