"""What a STUN server answers (RFC 8489 §6.3.1, §9.2.4): each function returns the response's bytes.

A response has a FINGERPRINT if its request has one (§7), and is signed, given a key, by the algorithm that the
request was signed by (§9.1.3).
"""

from __future__ import annotations

from quice.stun.attributes import Attribute, ErrorCode, Nonce, PasswordAlgorithms, Realm, UnknownAttributes
from quice.stun.auth import SecurityFeature, nonce_cookie
from quice.stun.message import Kind, Message

BAD_REQUEST = 400
UNAUTHENTICATED = 401
UNKNOWN_ATTRIBUTE = 420
STALE_NONCE = 438
ROLE_CONFLICT = 487

# RFC 8489 §14.8, RFC 8656 §19, RFC 8445 §16.2.
_REASONS = {
    300: "Try Alternate",
    BAD_REQUEST: "Bad Request",
    UNAUTHENTICATED: "Unauthenticated",
    403: "Forbidden",
    UNKNOWN_ATTRIBUTE: "Unknown Attribute",
    437: "Allocation Mismatch",
    STALE_NONCE: "Stale Nonce",
    440: "Address Family not Supported",
    441: "Wrong Credentials",
    442: "Unsupported Transport Protocol",
    443: "Peer Address Family Mismatch",
    486: "Allocation Quota Reached",
    ROLE_CONFLICT: "Role Conflict",
    500: "Server Error",
    508: "Insufficient Capacity",
}
_MAX_UNKNOWN = 16


def success(request: Message, *attributes: Attribute, key: bytes | None = None) -> bytes:
    """The success response with these attributes."""
    return _encode(request, Kind.SUCCESS, attributes, key)


def error(request: Message, code: int, *attributes: Attribute, key: bytes | None = None) -> bytes:
    """The error response with a code from 300 to 699, its reason as the RFCs word it, and these attributes."""
    return _encode(request, Kind.ERROR, (ErrorCode(code, _REASONS.get(code, "")), *attributes), key)


def unknown_attributes(request: Message, key: bytes | None = None) -> bytes:
    """The 420 for a request with attributes that must be understood and are not (§6.3.1).

    It names 16 of them at most: an answer to a forged source must not be much longer than the request.
    """
    return error(request, UNKNOWN_ATTRIBUTE, UnknownAttributes(request.unknown_required[:_MAX_UNKNOWN]), key=key)


def challenge(
    request: Message,
    code: int,
    realm: str,
    nonce: bytes,
    algorithms: tuple[tuple[int, bytes], ...] = (),
    *,
    anonymity: bool = False,
) -> bytes:
    """The 401 or 438 of the long-term mechanism (§9.2.4).

    nonce: what the server chose, without the nonce cookie, which is put before it to vouch for `algorithms` and
    `anonymity` (whether the server takes USERHASH).
    """
    features = SecurityFeature(0)
    if algorithms:
        features |= SecurityFeature.PASSWORD_ALGORITHMS
    if anonymity:
        features |= SecurityFeature.USERNAME_ANONYMITY
    offered = (PasswordAlgorithms(algorithms),) if algorithms else ()
    return error(request, code, Realm(realm), Nonce(nonce_cookie(features) + nonce), *offered)


def _encode(request: Message, kind: Kind, attributes: tuple[Attribute, ...], key: bytes | None) -> bytes:
    response = Message(request.method, kind, request.transaction_id, attributes)
    return response.encode(key, sha256=request.has_sha256, fingerprint=request.has_fingerprint)
