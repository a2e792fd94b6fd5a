"""The nonces of a TURN server, which it need not remember (RFC 8489 §9.2, RFC 8656 §5).

A nonce says when it was made, and proves by an HMAC that it was made here, for this client's host: nobody elsewhere
can replay what was signed with it. It is as short as that allows, for the answer that carries it may not be longer
than the request of a stranger.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import struct

from quice.wire import Address

LIFETIME = 3600.0
"""Seconds. RFC 8656 §5 recommends at most an hour."""
_TICK = 60.0
_TICKS = 1 << 16
_MAC_LENGTH = 4
_STAMP = struct.Struct("!H")


class Nonces:
    """Makes nonces and knows them again."""

    def __init__(self, key: bytes) -> None:
        """`key`: secret, and random."""
        self._key = key

    def make(self, client: Address, now: float) -> bytes:
        """A nonce for clients on this host, on any port: eight ASCII characters."""
        stamp = _STAMP.pack(int(now / _TICK) % _TICKS)
        return base64.b64encode(stamp + self._mac(stamp, client))

    def is_valid(self, nonce: bytes, client: Address, now: float) -> bool:
        """Whether the nonce was made for this client's host, and not too long ago."""
        try:
            raw = base64.b64decode(nonce, validate=True)
        except binascii.Error:
            return False
        stamp, mac = raw[: _STAMP.size], raw[_STAMP.size :]
        if not hmac.compare_digest(mac, self._mac(stamp, client)):
            return False
        made: int = _STAMP.unpack(stamp)[0]
        return (int(now / _TICK) - made) % _TICKS * _TICK <= LIFETIME

    def _mac(self, stamp: bytes, client: Address) -> bytes:
        return hmac.digest(self._key, stamp + client.host.encode(), "sha256")[:_MAC_LENGTH]
