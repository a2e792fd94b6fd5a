"""The kinds of NAT that everybody knows by name, in the words of RFC 4787."""

from __future__ import annotations

import enum

from quice.sim.nat import NatBehaviour, PortAllocation
from quice.stun.discovery import Behaviour, Verdict


class Nat(str, enum.Enum):
    """What stands between a site's hosts and the internet."""

    PUBLIC = "public"
    FULL_CONE = "full_cone"
    ADDRESS_RESTRICTED = "address_restricted"
    PORT_RESTRICTED = "port_restricted"
    SYMMETRIC = "symmetric"


_INDEPENDENT = Behaviour.ENDPOINT_INDEPENDENT
_BY_ADDRESS = Behaviour.ADDRESS_DEPENDENT
_BY_PORT = Behaviour.ADDRESS_AND_PORT_DEPENDENT

CLAIMS = {
    Nat.PUBLIC: Verdict(_INDEPENDENT, _INDEPENDENT, preserves_port=True),
    Nat.FULL_CONE: Verdict(_INDEPENDENT, _INDEPENDENT, preserves_port=True),
    Nat.ADDRESS_RESTRICTED: Verdict(_INDEPENDENT, _BY_ADDRESS, preserves_port=True),
    Nat.PORT_RESTRICTED: Verdict(_INDEPENDENT, _BY_PORT, preserves_port=True),
    Nat.SYMMETRIC: Verdict(_BY_PORT, _BY_PORT, preserves_port=False),
}
"""What each kind says of itself; a probe says whether it is true."""


def behaviour(kind: Nat) -> NatBehaviour | None:
    """The behaviour of a NAT of this kind as its claim has it, None where there is no NAT."""
    if kind is Nat.PUBLIC:
        return None
    claim = CLAIMS[kind]
    ports = PortAllocation.PRESERVED if claim.preserves_port else PortAllocation.RANDOM
    return NatBehaviour(claim.mapping, claim.filtering, ports)
