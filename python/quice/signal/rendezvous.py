"""Signalling through a rendezvous server: one WebSocket for all sessions of an endpoint, its codes and its relays."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

import msgspec

from quice.identity import Identity, PeerId
from quice.machine import this_machine
from quice.signal import protocol
from quice.signal.mailbox import Mailboxes
from quice.signal.protocol import (
    Delivered,
    Leaving,
    MailboxBody,
    MailboxClosed,
    MailboxOpened,
    MailboxTaken,
    ProtocolDecodeError,
    Registered,
    Relays,
    RelayServer,
    ToPeer,
    ToServer,
    Undeliverable,
)
from quice.signal.registration import Registrar
from quice.signal.sealed import RendezvousSignalling, Sessions
from quice.signal.servers import Greeting
from quice.wire import Address

logger = logging.getLogger(__name__)


class RendezvousClient:
    """A peer's registration with a rendezvous server, kept up for as long as it lives, and what it is good for.

    `on_session` is called with each session that another peer begins with us, `on_relays` whenever `relays` is new:
    with each registration, and each time the server renews their credentials.

    Of several servers it takes the first that answers, and stays with it; when that one is lost, it is tried again
    before the next. Peers at two servers find each other only if these share who is where.
    """

    def __init__(
        self,
        server: str | Sequence[str],
        identity: Identity,
        on_session: Callable[[RendezvousSignalling], None],
        on_relays: Callable[[tuple[RelayServer, ...]], None] | None = None,
    ) -> None:
        self.urls = (server,) if isinstance(server, str) else tuple(server)
        if not self.urls:
            raise ValueError("no rendezvous server: name one, or several")
        self.identity = identity
        self.stun_servers: tuple[Address, ...] = ()
        """The server's STUN service, at each of the addresses that the URL's host has."""
        self.relays: tuple[RelayServer, ...] = ()
        """The relays that the server offers, with credentials for them."""
        self.host: str | None = None
        """The IP address that the server was reached at."""
        self.on_relays = on_relays
        rng = this_machine().random
        self.registrar = Registrar(self.urls, identity, self)
        self.sessions = Sessions(identity, rng, self.registrar, on_session)
        self.mailboxes = Mailboxes(
            identity.peer, rng, self.registrar.send, self.registrar.spawn, lambda: self.registrar.url
        )

    @property
    def url(self) -> str:
        """The server that is used now, or was last."""
        return self.registrar.url

    @property
    def is_registered(self) -> bool:
        """Whether a server knows this peer, as far as is known here."""
        return self.registrar.registration is not None

    async def start(self, within: float | None = None) -> None:
        """Register; later losses are mended quietly.

        within: seconds to wait for that; if it fails, too, it goes on trying. By default `ServerUnreachableError` is
        raised then.
        """
        await self.registrar.start(within)

    async def wait_registered(self) -> None:
        """Wait until a server knows this peer. Raises `ServerUnreachableError` when this is closed."""
        await self.registrar.wait_registered()

    async def check(self, within: float | None = None) -> None:
        """Make sure that the server is there, and register again at once if it is not: call this when the network has
        changed, or there are doubts. Returns when this peer is registered for certain, however long that takes; raises
        `ServerUnreachableError` when this is closed.

        within: seconds that the server has to answer; by default three round trips. An old connection stays until a new
        one is registered, for it may be alive after all.
        """
        await self.registrar.check(within)

    def open(self, peer: PeerId) -> RendezvousSignalling:
        """Begin a session with a peer; the first message tells it. Raises `InvalidPeerIdError` when nothing can be
        sealed to this peer.
        """
        return self.sessions.open(peer)

    async def close(self) -> None:
        """Leave the server; all sessions end."""
        self.registrar.end()
        await self.mailboxes.close()
        await self.sessions.close()
        await self.registrar.close()

    def unacknowledged(self) -> Iterable[ToServer]:
        """See `Registrant`."""
        return self.sessions.unacknowledged()

    def on_registered(self, answer: Registered, greeting: Greeting) -> None:
        """See `Registrant`."""
        stun = answer.stun_port
        self.stun_servers = tuple(Address(host, stun) for host in greeting.hosts) if stun else ()
        self._take_relays(answer.relays, greeting)

    def on_adopted(self) -> None:
        """See `Registrant`."""
        self.registrar.spawn(self.mailboxes.repeat(), "quice mailboxes")

    def on_frame(self, frame: bytes | str, greeting: Greeting) -> None:
        """See `Registrant`."""
        try:
            message: ToPeer = protocol.decode_to_peer(frame)
        except ProtocolDecodeError as error:
            logger.debug("a message of the server that is none: %s", error)
            return
        match message:
            case Delivered():
                self.sessions.deliver(message)
            case Relays(relays=relays):
                self._take_relays(relays, greeting)
            case Leaving(within=within):
                self.registrar.leave(within)
            case Undeliverable(to=peer, session=session):
                self.sessions.undeliverable((PeerId(peer), session), may_return=self.registrar.peers_may_return)
            case MailboxOpened() | MailboxTaken() | MailboxBody() | MailboxClosed():
                self.mailboxes.receive(message)
            case _:
                logger.debug("unexpected from the server: %s", type(message).__name__)

    def _take_relays(self, relays: tuple[RelayServer, ...], greeting: Greeting) -> None:
        self.host = greeting.host
        here = f"[{greeting.host}]" if ":" in greeting.host else greeting.host
        self.relays = tuple(
            msgspec.structs.replace(relay, urls=tuple(_at_host(url, here) for url in relay.urls)) for relay in relays
        )
        if self.on_relays is not None:
            self.on_relays(self.relays)


def _at_host(url: str, host: str) -> str:
    """A relay's URL, with the rendezvous server's host where it names none (see `protocol.SAME_HOST`)."""
    scheme, separator, rest = url.partition(":")
    is_same = rest.startswith(":") or not rest.partition("?")[0]
    return f"{scheme}:{host}{rest}" if separator and is_same else url
