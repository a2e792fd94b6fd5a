"""Credentials for a TURN server that are made from a secret shared with it, and end with time."""

from __future__ import annotations

import base64
import hmac

from quice.stun.auth import LongTerm


def time_limited(secret: str, expires: float, name: str = "") -> LongTerm:
    """Credentials that a server with the same secret accepts until a time, in seconds since 1970.

    They are those of draft-uberti-behave-turn-rest-00, which coturn calls `use-auth-secret` and hosted services give
    out: who has the secret makes them for others, who do not learn it. name: whom the server's log shows.
    """
    username = f"{int(expires)}:{name}" if name else str(int(expires))
    digest = hmac.digest(secret.encode(), username.encode(), "sha1")
    return LongTerm(username, base64.b64encode(digest).decode())


def expiry(credentials: LongTerm) -> float | None:
    """When time-limited credentials end, in seconds since 1970; None for others."""
    text = credentials.username.partition(":")[0]
    return float(text) if text.isascii() and text.isdigit() and len(text) <= 12 else None
