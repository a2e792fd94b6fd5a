"""The kinds of NAT that everybody knows by name, in the words of RFC 4787."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterable
from typing import NamedTuple

from quice.sim.nat import Hairpinning, NatBehaviour, PortAllocation
from quice.stun.discovery import Behaviour, Verdict


class Nat(str, enum.Enum):
    """What stands between a site's hosts and the internet."""

    PUBLIC = "public"
    FULL_CONE = "full_cone"
    ADDRESS_RESTRICTED = "address_restricted"
    PORT_RESTRICTED = "port_restricted"
    SYMMETRIC = "symmetric"
    FULL_CONE_RANDOM = "full_cone_random"
    ADDRESS_RESTRICTED_RANDOM = "address_restricted_random"
    PORT_RESTRICTED_RANDOM = "port_restricted_random"
    SYMMETRIC_SEQUENTIAL = "symmetric_sequential"
    HAIRPINNING = "hairpinning"


CLASSIC = (Nat.PUBLIC, Nat.FULL_CONE, Nat.ADDRESS_RESTRICTED, Nat.PORT_RESTRICTED, Nat.SYMMETRIC)
"""The kinds that RFC 3489 named."""

_INDEPENDENT = Behaviour.ENDPOINT_INDEPENDENT
_BY_ADDRESS = Behaviour.ADDRESS_DEPENDENT
_BY_PORT = Behaviour.ADDRESS_AND_PORT_DEPENDENT

BEHAVIOURS = {
    Nat.FULL_CONE: NatBehaviour(_INDEPENDENT, _INDEPENDENT),
    Nat.ADDRESS_RESTRICTED: NatBehaviour(_INDEPENDENT, _BY_ADDRESS),
    Nat.PORT_RESTRICTED: NatBehaviour(_INDEPENDENT, _BY_PORT),
    Nat.SYMMETRIC: NatBehaviour(_BY_PORT, _BY_PORT, PortAllocation.RANDOM),
    Nat.FULL_CONE_RANDOM: NatBehaviour(_INDEPENDENT, _INDEPENDENT, PortAllocation.RANDOM),
    Nat.ADDRESS_RESTRICTED_RANDOM: NatBehaviour(_INDEPENDENT, _BY_ADDRESS, PortAllocation.RANDOM),
    Nat.PORT_RESTRICTED_RANDOM: NatBehaviour(_INDEPENDENT, _BY_PORT, PortAllocation.RANDOM),
    Nat.SYMMETRIC_SEQUENTIAL: NatBehaviour(_BY_PORT, _BY_PORT, PortAllocation.SEQUENTIAL),
    Nat.HAIRPINNING: NatBehaviour(_INDEPENDENT, _BY_PORT, hairpinning=Hairpinning.EXTERNAL_SOURCE),
}
"""How each kind behaves; PUBLIC is no NAT."""


def _claim(kind: Nat) -> Verdict:
    if kind is Nat.PUBLIC:
        return Verdict(_INDEPENDENT, _INDEPENDENT, preserves_port=True)
    known = BEHAVIOURS[kind]
    return Verdict(known.mapping, known.filtering, preserves_port=known.ports is PortAllocation.PRESERVED)


CLAIMS = {kind: _claim(kind) for kind in Nat}
"""What each kind says of itself; a probe says whether it is true."""


def behaviour(kind: Nat) -> NatBehaviour | None:
    """The behaviour of a NAT of this kind, None where there is no NAT."""
    return BEHAVIOURS.get(kind)


class NatPair(NamedTuple):
    """Where two peers are: the one that connects, and the one that is connected to."""

    here: Nat
    there: Nat

    @property
    def can_punch(self) -> bool:
        """Whether hole punching can connect the two.

        The port that a symmetric NAT maps for a new partner can't be known, and some filters let in only that.
        """
        return not any(
            CLAIMS[one].mapping is not _INDEPENDENT and CLAIMS[other].filtering is _BY_PORT
            for one, other in ((self.here, self.there), (self.there, self.here))
        )

    def __str__(self) -> str:
        return f"{self.here.value}-{self.there.value}"


def pairs(kinds: Iterable[Nat]) -> list[NatPair]:
    """Every ordered pair of these kinds."""
    return [NatPair(*pair) for pair in itertools.product(kinds, repeat=2)]
