"""The error codes of TURN, and what each asks of whom it is said to (RFC 8656 §19, RFC 8489 §14.8)."""

from __future__ import annotations

import enum


class Code(enum.IntEnum):
    """Why a TURN server refuses."""

    TRY_ALTERNATE = 300
    BAD_REQUEST = 400
    UNAUTHENTICATED = 401
    FORBIDDEN = 403
    UNKNOWN_ATTRIBUTE = 420
    ALLOCATION_MISMATCH = 437
    STALE_NONCE = 438
    ADDRESS_FAMILY_NOT_SUPPORTED = 440
    WRONG_CREDENTIALS = 441
    UNSUPPORTED_TRANSPORT = 442
    PEER_ADDRESS_FAMILY_MISMATCH = 443
    QUOTA_REACHED = 486
    SERVER_ERROR = 500
    INSUFFICIENT_CAPACITY = 508


_ADVICE: dict[int, str] = {
    Code.TRY_ALTERNATE: "it names another server that can't be used from here. Configure a server that serves itself",
    Code.BAD_REQUEST: (
        "it finds fault with the request, as some servers do with a user name or password that they do not accept. "
        "Check both"
    ),
    Code.UNAUTHENTICATED: (
        "it does not accept the user name or password. Check both; time-limited ones expire, and need the clocks and "
        "the shared secret of both sides to agree"
    ),
    Code.FORBIDDEN: "it does not allow this. Ask who runs the server about its rules for peers and users",
    Code.ALLOCATION_MISMATCH: (
        "it holds another allocation for this local port, or none any more. Allocate again from a new port"
    ),
    Code.STALE_NONCE: "it takes none of its own nonces. Check that one server alone answers at its address",
    Code.ADDRESS_FAMILY_NOT_SUPPORTED: "it has no relayed addresses of this family. Ask it for the other family",
    Code.WRONG_CREDENTIALS: (
        "the allocation was made with another user name. Keep to one, or allocate again from a new port"
    ),
    Code.UNSUPPORTED_TRANSPORT: "it does not relay UDP. Use another server",
    Code.PEER_ADDRESS_FAMILY_MISMATCH: (
        "the peer's address is of a family that was not allocated. Allocate that one, or use the peer's other address"
    ),
    Code.QUOTA_REACHED: "this user has as many allocations as it allows. Close others, or wait until they expire",
    Code.SERVER_ERROR: "it has trouble of its own. Try again later",
    Code.INSUFFICIENT_CAPACITY: "it has no relayed address or bandwidth left. Try again later, or use another server",
}
_OTHERWISE = "Check that it is a TURN server as of RFC 8656 or 5766"


def explain(code: int, reason: str) -> str:
    """A refusal in words: the server's own, and what to do about it."""
    printable = "".join(c for c in reason[:80] if c.isprintable())
    said = f" ({printable})" if printable else ""
    return f"the relay refuses with {code}{said}: {_ADVICE.get(code, _OTHERWISE)}"
