"""Credentials for relays: time-limited, and made anew for each peer that asks."""

from __future__ import annotations

from collections.abc import Callable

from quice.identity import PeerId
from quice.machine import this_machine
from quice.signal.protocol import RelayServer
from quice.turn.credentials import time_limited

DEFAULT_LIFETIME = 6 * 3600.0
"""Seconds. They are renewed after half of it; until they expire they can't be taken back."""


class RelayCredentials:
    """Makes what registered peers are told of relays."""

    def __init__(self, secret: str, urls: tuple[str, ...], challenge: Callable[[str], tuple[str, bytes]]) -> None:
        """`urls`: of relays that take credentials made with the secret; none for no relays. `challenge`: realm and
        nonce for a host, if they are known.
        """
        self.lifetime = DEFAULT_LIFETIME
        self._secret = secret
        self._urls = urls
        self._challenge = challenge
        self._machine = this_machine()

    def issue(self, peer: PeerId, host: str) -> tuple[RelayServer, ...]:
        """The relays, with new credentials for a peer, which is on this host as far as is known."""
        if not self._urls:
            return ()
        account = time_limited(self._secret, self._machine.unix_time() + self.lifetime, str(peer))
        realm, nonce = self._challenge(host)
        relay = RelayServer(
            urls=self._urls,
            username=account.username,
            password=account.password,
            lifetime=self.lifetime,
            realm=realm,
            nonce=nonce,
        )
        return (relay,)
