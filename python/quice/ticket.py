"""A ticket: a peer and the server to find it by, in one short string to hand to somebody."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from urllib.parse import urlsplit

from quice.errors import TicketError
from quice.identity import PeerId

_PREFIX = "quice1"
_SCHEMES = ("ws", "wss")
_CHECKSUM_LENGTH = 3
_KEY_LENGTH = 32


@dataclass(frozen=True)
class Ticket:
    """Whom to connect to, and the rendezvous server's URL (`ws://` or `wss://`)."""

    peer: PeerId
    server: str

    def __str__(self) -> str:
        scheme, _, rest = self.server.partition("://")
        if scheme not in _SCHEMES:
            raise TicketError(f"a server's URL begins with ws:// or wss://, not {self.server[:40]!r}")
        body = self.peer.key + bytes([_SCHEMES.index(scheme)]) + rest.encode()
        data = body + _checksum(body)
        return _PREFIX + base64.b32encode(data).decode().rstrip("=").lower()

    @classmethod
    def parse(cls, text: str) -> Ticket:
        """Read a ticket. Raises `TicketError`, which says what is wrong with it."""
        text = text.strip().lower()
        if not text.startswith(_PREFIX):
            raise TicketError(f"it does not begin with {_PREFIX!r}")
        encoded = text[len(_PREFIX) :].upper()
        try:
            data = base64.b32decode(encoded + "=" * (-len(encoded) % 8))
        except (binascii.Error, ValueError):
            raise TicketError("it has characters that no ticket has, or is cut off") from None
        body, checksum = data[:-_CHECKSUM_LENGTH], data[-_CHECKSUM_LENGTH:]
        if len(body) <= _KEY_LENGTH + 1 or _checksum(body) != checksum:
            raise TicketError("its checksum is wrong: a character is missing or mistyped")
        scheme = body[_KEY_LENGTH]
        try:
            rest = body[_KEY_LENGTH + 1 :].decode()
            url = f"{_SCHEMES[scheme]}://{rest}"
            valid = bool(urlsplit(url).hostname) and rest.isprintable()
        except (IndexError, ValueError):
            valid = False
        if not valid:
            raise TicketError("it names no server that this version understands")
        return cls(PeerId(body[:_KEY_LENGTH]), url)


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2s(body, digest_size=_CHECKSUM_LENGTH, person=b"ticket").digest()
