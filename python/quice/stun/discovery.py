"""How a NAT maps and filters (RFC 4787)."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Behaviour(str, enum.Enum):
    """What a mapping or a filter depends on (RFC 4787 §4.1, §5)."""

    ENDPOINT_INDEPENDENT = "endpoint_independent"
    ADDRESS_DEPENDENT = "address_dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address_and_port_dependent"


@dataclass(frozen=True)
class Verdict:
    """How a NAT maps and filters, claimed or measured."""

    mapping: Behaviour
    filtering: Behaviour
    preserves_port: bool
    """Whether a host's port is also its port on the internet while that is free (RFC 4787 §4.2.1)."""
