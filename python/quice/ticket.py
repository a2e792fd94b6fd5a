"""A ticket: a peer and the server to find it by, in one short string to hand to somebody."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from quice.errors import TicketError
from quice.identity import PeerId

SECRET_LENGTH = 16
_PREFIX = "quice1"
_SCHEMES = ("ws", "wss")
# The octet after the key: which scheme, and whether a secret follows.
_SCHEME_MASK = 1
_HAS_SECRET = 2
_CHECKSUM_LENGTH = 3
_KEY_LENGTH = 32


@dataclass(frozen=True)
class Ticket:
    """Whom to connect to, the rendezvous server's URL (`ws://` or `wss://`), and what proves that the bearer was
    given the ticket: `SECRET_LENGTH` bytes, or none.

    A peer's id is no secret, the server knows it: what only bearers may have, the secret guards. Raises
    `ValueError` for a secret of another length or another kind of URL.
    """

    peer: PeerId
    server: str
    secret: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        if self.server.partition("://")[0] not in _SCHEMES:
            raise ValueError(f"a server's URL begins with ws:// or wss://, not {self.server[:40]!r}")
        if len(self.secret) not in (0, SECRET_LENGTH):
            raise ValueError(f"a ticket's secret has {SECRET_LENGTH} bytes")

    def __str__(self) -> str:
        scheme, _, rest = self.server.partition("://")
        kind = _SCHEMES.index(scheme) | (_HAS_SECRET if self.secret else 0)
        body = self.peer.key + bytes([kind]) + self.secret + rest.encode()
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
        key, kind, rest = body[:_KEY_LENGTH], body[_KEY_LENGTH], body[_KEY_LENGTH + 1 :]
        secret_length = SECRET_LENGTH if kind & _HAS_SECRET else 0
        secret, host = rest[:secret_length], rest[secret_length:]
        if kind & ~(_SCHEME_MASK | _HAS_SECRET) or not _is_host(host):
            raise TicketError("it names no server that this version understands")
        return cls(PeerId(key), f"{_SCHEMES[kind & _SCHEME_MASK]}://{host.decode()}", secret)


def _is_host(rest: bytes) -> bool:
    try:
        return rest.decode().isprintable() and bool(urlsplit(f"ws://{rest.decode()}").hostname)
    except ValueError:
        return False


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2s(body, digest_size=_CHECKSUM_LENGTH, person=b"ticket").digest()
