"""By which ways the two ends of a connection may reach each other, and what each may tell of itself."""

from __future__ import annotations

import enum
from typing import Literal

import msgspec

from quice.ice import Candidate, CandidateKind


class Policy(str, enum.Enum):
    """Which candidates one side uses, and tells the other of.

    AUTO: all. DIRECT: none of a relay, for whom data through others is worse than none. RELAY: those of its relays
    alone, so that the peer never learns an address of this side. LAN: those of networks that both are in.
    """

    AUTO = "auto"
    DIRECT = "direct"
    RELAY = "relay"
    LAN = "lan"

    @property
    def advice(self) -> str:
        """What helps where it has left no way; nothing for `AUTO`, which forbids none."""
        return _ADVICE[self]

    def uses(self, ours: Candidate) -> bool:
        """Whether a candidate of our own is used, and told of."""
        match self:
            case Policy.AUTO:
                return True
            case Policy.DIRECT:
                return ours.kind is not CandidateKind.RELAYED
            case Policy.RELAY:
                return ours.kind is CandidateKind.RELAYED
            case Policy.LAN:
                return ours.kind is CandidateKind.HOST and ours.address.is_private

    def tries(self, theirs: Candidate) -> bool:
        """Whether a candidate of the peer's is tried."""
        match self:
            case Policy.AUTO | Policy.RELAY:
                return True
            case Policy.DIRECT:
                return theirs.kind is not CandidateKind.RELAYED
            case Policy.LAN:
                return theirs.address.is_private and theirs.kind is not CandidateKind.RELAYED

    def told(self, ours: Candidate) -> Candidate:
        """The candidate as the peer is told of it."""
        # RFC 8445 §5.1.1.2: a relayed candidate's related address is where the server sees us.
        return msgspec.structs.replace(ours, related_address=None) if self is Policy.RELAY else ours


_ADVICE = {
    Policy.AUTO: "",
    Policy.DIRECT: "This side's policy is to use no relay; with the policy `auto` one may lead to the peer",
    Policy.RELAY: "This side's policy is to use its relays alone, and one at least must work: `quice serve` is one "
    "unless it was told not to; Endpoint.bind(relays=...) and `--relay` name others. Or use the policy `auto`",
    Policy.LAN: "This side's policy is to stay within its own network; `direct` and `auto` look beyond it",
}

PolicyName = Policy | Literal["auto", "direct", "relay", "lan"]
