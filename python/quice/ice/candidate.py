"""Candidates: the addresses at which a peer might be reached (RFC 8445 §5.1)."""

from __future__ import annotations

import enum
import hashlib
import ipaddress

import msgspec

from quice.ice.scope import may_check
from quice.wire import Address

COMPONENT = 1
"""QUIC is one component: one port for everything (RFC 8445 §13, draft-perkins-quic-p2p-mux §3.1)."""


class CandidateKind(str, enum.Enum):
    """Where a candidate comes from, in the spelling of SDP (RFC 8839 §5.1)."""

    HOST = "host"
    SERVER_REFLEXIVE = "srflx"
    PEER_REFLEXIVE = "prflx"
    RELAYED = "relay"


# RFC 8445 §5.1.2.2: the recommended type preferences.
_TYPE_PREFERENCE = {
    CandidateKind.HOST: 126,
    CandidateKind.PEER_REFLEXIVE: 110,
    CandidateKind.SERVER_REFLEXIVE: 100,
    CandidateKind.RELAYED: 0,
}
MAX_LOCAL_PREFERENCE = 65535


class Candidate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An address of an agent, with what the other side needs to know of it.

    `base`, the local address that is sent from, is known for our own candidates alone.
    """

    kind: CandidateKind
    address: Address
    priority: int
    foundation: str
    component: int = COMPONENT
    related_address: Address | None = None
    base: Address | None = None

    @property
    def sent_from(self) -> Address:
        """The base: a relayed candidate's is its own address, which names the route through its server (§5.1.1.2)."""
        return self.base or self.address

    def __str__(self) -> str:
        return f"{self.kind.value} {self.address}"


def priority(kind: CandidateKind, local_preference: int) -> int:
    """A candidate's priority (§5.1.2.1); `local_preference` is from 0 to 65535, the best highest."""
    return _TYPE_PREFERENCE[kind] << 24 | local_preference << 8 | 256 - COMPONENT


def foundation(kind: CandidateKind, base: str, server: str = "") -> str:
    """Equal for candidates of one kind, base address, server and transport (§5.1.1.3): 8 ice-chars."""
    return hashlib.sha256(f"{kind.value} {base} {server} udp".encode()).hexdigest()[:8]


def can_pair(local: Address, remote: Address, *, heard: bool = False) -> bool:
    """Whether checks may go from one address to the other: `quice.ice.scope` says why not, and what `heard` means."""
    return remote.port != 0 and may_check(local.without_zone.ip, remote.without_zone.ip, heard=heard)


def on_link_of(base: Address, remote: Candidate) -> Candidate:
    """The peer's candidate as it is addressed from this base: an IPv6 link-local one in our zone (RFC 4007 §6).

    The peer's own name of the link means nothing here.
    """
    host, _, zone = remote.address.host.partition("%")
    ours = base.host.partition("%")[2] if ipaddress.ip_address(host).is_link_local else ""
    if zone == ours:
        return remote
    address = Address(f"{host}%{ours}" if ours else host, remote.address.port)
    return msgspec.structs.replace(remote, address=address)
