"""A TURN server that an endpoint may use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quice.errors import ServerUriError
from quice.ice.scope import may_refer
from quice.stun.auth import LongTerm
from quice.turn.uri import ServerUri, Service
from quice.wire import Address


@dataclass(frozen=True)
class RelayServer:
    """A TURN server, by the ways to reach it, the best first, and what it knows us by."""

    uris: tuple[ServerUri, ...]
    credentials: LongTerm
    named_at: str | None = None
    """The address of the rendezvous server that offers it; None if whoever runs this program has named it."""

    def may_be_at(self, host: str) -> bool:
        """Whether it is believed to be at this IP address."""
        if self.named_at is None:
            return True
        return may_refer(Address(self.named_at, 0).without_zone.ip, Address(host, 0).without_zone.ip)

    @classmethod
    def parse(cls, uris: str | Sequence[str], username: str, password: str) -> RelayServer:
        """`uris`: `turn:` and `turns:` URIs of one server (RFC 7065), such as `turn:relay.example.org` and
        `turns:relay.example.org:443?transport=tcp`. Raises `ValueError` for what is none."""
        texts = [uris] if isinstance(uris, str) else uris
        parsed = tuple(ServerUri.parse(text) for text in texts)
        for text, uri in zip(texts, parsed, strict=True):
            if uri.service is not Service.TURN:
                raise ServerUriError(text, "a STUN server relays nothing")
        return cls(parsed, LongTerm(username, password))
