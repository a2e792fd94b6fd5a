"""Candidates as lines of SDP (RFC 8839 §5.1), by which agents of all makers tell each other theirs.

    candidate:5cbbd5f3 1 udp 2130706431 192.0.2.1 5000 typ host

Only what a candidate is stands in such a line. Ufrag, pwd and the end of candidates have lines of their own, which are
the application's business.
"""

from __future__ import annotations

import ipaddress
import re

from quice.ice.candidate import COMPONENT, Candidate, CandidateKind
from quice.wire import Address

MAX_LINE = 1024
"""Characters of one line, many times what a candidate needs."""
_PREFIX = re.compile(r"(?:a=)?candidate:", re.IGNORECASE)
_FOUNDATION = re.compile(r"[A-Za-z0-9+/]{1,32}")
_NUMBER = re.compile(r"[0-9]{1,10}")
_FIXED = 8
"""Words that every candidate has; its related address and extensions follow."""
_MAX_COMPONENT = 256
_MAX_PRIORITY = (1 << 31) - 1
_MAX_PORT = (1 << 16) - 1
# §5.1: what stands for a related address that is kept back.
_NO_ADDRESS = Address("0.0.0.0", 9)  # noqa: S104 -- nothing is bound to it
_NO_ADDRESS_V6 = Address("::", 9)


class SdpDecodeError(ValueError):
    """What came is no candidate line; the text says why."""


def format_candidate(candidate: Candidate) -> str:
    """The candidate as a line: what follows `a=` in SDP, and what a browser's RTCIceCandidate takes.

    Zones are left out (RFC 4007 §6), and so is the base. A reflexive or relayed candidate without a related address
    gets the one that stands for none.
    """
    host, port = candidate.address.without_zone
    line = (
        f"candidate:{candidate.foundation} {candidate.component} udp {candidate.priority} {host} {port}"
        f" typ {candidate.kind.value}"
    )
    if candidate.kind is CandidateKind.HOST:
        return line
    related = candidate.related_address or (_NO_ADDRESS_V6 if ":" in host else _NO_ADDRESS)
    return f"{line} raddr {related.without_zone.host} rport {related.port}"


def parse_candidate(line: str) -> Candidate | None:
    """Read a candidate, with or without `a=` and `candidate:` before it.

    None for a candidate that has to be ignored (§5.1): of another transport, component or type than are known here,
    or by a name instead of an address, as browsers hide theirs by. Raises `SdpDecodeError` for anything else.
    """
    if len(line) > MAX_LINE:
        raise SdpDecodeError(f"a line of {len(line)} characters; {MAX_LINE} are allowed")
    line = line.strip()
    prefix = _PREFIX.match(line)
    words = line[prefix.end() if prefix else 0 :].split()
    if len(words) < _FIXED or words[6].lower() != "typ":
        raise SdpDecodeError("not a candidate line")
    foundation, component, transport, priority, host, port, _, kind = words[:_FIXED]
    if _FOUNDATION.fullmatch(foundation) is None:
        raise SdpDecodeError("the foundation is not allowed")
    number = _number(component, 1, _MAX_COMPONENT, "component")
    weight = _number(priority, 1, _MAX_PRIORITY, "priority")
    address = _address(host, _number(port, 0, _MAX_PORT, "port"))
    known = next((each for each in CandidateKind if each.value == kind.lower()), None)
    if transport.lower() != "udp" or number != COMPONENT or known is None or address is None:
        return None
    return Candidate(
        kind=known,
        address=address,
        priority=weight,
        foundation=foundation,
        related_address=_related_address(words[_FIXED:]),
    )


def _number(text: str, least: int, most: int, what: str) -> int:
    if _NUMBER.fullmatch(text) is None or not least <= int(text) <= most:
        raise SdpDecodeError(f"the {what} is not a number from {least} to {most}")
    return int(text)


def _address(host: str, port: int) -> Address | None:
    """The address in the one form that compares equal with what packets come from, or None where there is none."""
    try:
        # A zone is the peer's own name of a link.
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    # RFC 8445 §5.1.1.1: an IPv4-mapped address is not to be sent.
    mapped = isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None
    return None if mapped or ip.is_unspecified or port == 0 else Address(str(ip), port)


def _related_address(words: list[str]) -> Address | None:
    """The words after a candidate's type: only these two of them mean something, and only to a person (§5.1)."""
    if len(words) < 4 or (words[0].lower(), words[2].lower()) != ("raddr", "rport"):
        return None
    return _address(words[1], _number(words[3], 0, _MAX_PORT, "related port"))
