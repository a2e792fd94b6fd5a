"""An endpoint: one UDP port, shared by QUIC and STUN, on which connections are made and accepted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal

from quice import _native, manual
from quice._native import Event
from quice.alpn import answered, check, offered
from quice.challenges import IMPROVEMENTS
from quice.checks import Checks
from quice.config import TransportConfig
from quice.connection import Connection
from quice.control import CONTROL_STREAMS
from quice.discovery import Exposure
from quice.errors import (
    ConnectError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointClosedError,
    HandshakeError,
    IdleTimeoutError,
    NoServerError,
)
from quice.ice import CandidateKind, ExternalAddress
from quice.ice.gather import CandidateFilter, InterfaceFilter
from quice.identity import Identity, PeerId
from quice.introductions import Introductions
from quice.machine import this_machine
from quice.manual import ManualAnswer, ManualOffer
from quice.policy import Policy, PolicyName
from quice.relaying import RelayServer
from quice.session import tag_of
from quice.signal.codes import Code
from quice.signal.interface import Signalling
from quice.signal.mailbox import Mailboxes, OfferedCode, Paired
from quice.signal.messages import Establish
from quice.signal.rendezvous import RendezvousClient
from quice.signal.sealed import RendezvousSignalling
from quice.surroundings import Surroundings
from quice.wire import Address, random_bytes

logger = logging.getLogger(__name__)

# Connections that wait for `accept`; more are refused.
_BACKLOG = 1024
# How long closing waits for connections to drain: three times a slow path's probe timeout (RFC 9000 §10.2).
_DRAIN_TIMEOUT = 2.0
_REFUSED = 0x71


@dataclass(frozen=True)
class _Settings:
    """What `Endpoint.bind` was asked for."""

    server: tuple[str, ...]
    alpns: tuple[str, ...]
    host: str | None
    port: int
    stun_servers: tuple[Address, ...]
    relays: tuple[RelayServer, ...]
    policy: Policy
    config: TransportConfig
    checks: Checks
    exposure: Exposure


class Endpoint:
    """One UDP port for all connections of a program, as client and as server.

    Made by `Endpoint.bind`, and used as an async context manager:

        async with Endpoint.bind(identity, server="ws://...", alpns=["chat/1"]) as endpoint:
            connection = await endpoint.connect(peer, alpn="chat/1")

    As an async iterator it yields the connections that others make to it. All awaits can be cancelled.
    """

    def __init__(self, identity: Identity, settings: _Settings) -> None:
        self._loop = asyncio.get_running_loop()
        self.identity = identity
        self.peer = identity.peer
        self._settings = settings
        self._alpns = settings.alpns
        self._connections: dict[int, Connection] = {}
        self._accepted: asyncio.Queue[Connection | None] = asyncio.Queue(_BACKLOG)
        credentials = _native.Credentials.raw_key(identity.secret_key)
        improvement = IMPROVEMENTS[settings.checks]
        machine = this_machine()
        self._pump = machine.pump(
            credentials,
            answered(settings.alpns),
            improvement.configured(settings.config),
            self._dispatch,
            CONTROL_STREAMS,
        )
        self._surroundings = Surroundings(machine, self._pump, settings.exposure, self._on_moved)
        self._introductions = Introductions(
            self.peer,
            settings.alpns,
            self._surroundings,
            improvement,
            settings.policy,
            begin=self._begin,
            offer=self._offer,
            connections=lambda: list(self._connections.values()),
        )
        self._closed = False

    @classmethod
    def bind(
        cls,
        identity: Identity | None = None,
        *,
        server: str | Sequence[str] | None = None,
        alpns: Sequence[str] = (),
        host: str | None = None,
        port: int = 0,
        stun_servers: Sequence[Address] = (),
        relays: Sequence[RelayServer] = (),
        policy: PolicyName = Policy.AUTO,
        config: TransportConfig | None = None,
        checks: Checks | Literal["stun", "quic"] = Checks.STUN,
        interface_filter: InterfaceFilter | None = None,
        candidate_filter: CandidateFilter | None = None,
        external_addresses: Sequence[str | ExternalAddress] = (),
        lite: bool = False,
    ) -> _Binding:
        """Bind a UDP port on every interface, for IPv4 and IPv6, or on `host` alone.

        identity: who this endpoint is; a new one if not given. server: the rendezvous server's URL (`ws://` or
        `wss://`), by which peers find each other; or several, of which the first that answers is used, and another when
        that one is lost: they must share who is where, for peers to find each other at different ones. alpns: the
        application protocols to accept connections for; with none, only `connect` works. port: 0 lets the system
        choose. stun_servers: asked for this endpoint's public addresses, beside the rendezvous server's own. relays:
        TURN servers, beside the rendezvous server's own, through which peers reach this endpoint, and it them, until
        there is a direct way and where there is none. policy: which ways connections that peers make may take, see
        `Policy`. checks: what finds better paths for connections; with "quic", and a peer that has it too, both tell
        each other their addresses within it.

        interface_filter: asked for each address of the machine, which has an `address` and the name of its
        `interface`, whether to use it; not asked for `host`. So `lambda base: base.interface != "docker0"` keeps that
        network out. candidate_filter: asked for each way in which this endpoint might be reached, a `Candidate`,
        whether peers may be told of it and it may be tried: `lambda candidate: candidate.kind is not
        CandidateKind.HOST` keeps the machine's own addresses from them. external_addresses: public IP addresses that a
        router passes to this machine one to one, with the same ports, as clouds do, and that no interface shows; peers
        are told of them, so that no STUN server need be asked. A text stands for all addresses of the machine of its
        family, `ExternalAddress(public, local)` for one of several. lite: this machine is reached by anybody at the
        addresses that it tells, with no NAT or firewall that waits for it to send first, as a server is: it leaves it
        to peers to find out which of them works, and asks no STUN server. Where that is not true, peers do not get
        through.

        Use it in `async with`, or await it and call `close` yourself. Raises `BindError`, `ValueError` for a host or
        an external address that is no IP address and for an alpn that begins with `quice/1+`, and
        `ServerUnreachableError` when no server can be reached. An endpoint with `stun_servers` or `relays` begins
        without one then, and registers as soon as it can: each of the three does its part without the others.
        """
        external = [ExternalAddress(each) if isinstance(each, str) else each for each in external_addresses]
        if lite:
            # RFC 8445 §5.1.1: a lite agent has host candidates alone.
            external = [replace(each, kind=CandidateKind.HOST) for each in external]
        for alpn in alpns:
            check(alpn)
        exposure = Exposure(interface_filter, candidate_filter, tuple(external), lite)
        settings = _Settings(
            server=(server,) if isinstance(server, str) else tuple(server or ()),
            alpns=tuple(alpns),
            host=host,
            port=port,
            stun_servers=tuple(stun_servers),
            relays=tuple(relays),
            policy=Policy(policy),
            config=config or TransportConfig(),
            checks=Checks(checks),
            exposure=exposure,
        )
        return _Binding(lambda: cls(identity or Identity(random_bytes(this_machine().random, 32)), settings))

    @property
    def addresses(self) -> list[Address]:
        """The local addresses of this endpoint: one for each address of the machine that it uses."""
        return [base.address for base in self._surroundings.bases]

    @property
    def server(self) -> str:
        """The rendezvous server that this endpoint is registered with, or was last. Raises `NoServerError`."""
        if self._surroundings.rendezvous is None:
            raise NoServerError
        return self._surroundings.rendezvous.url

    @property
    def port(self) -> int:
        """The UDP port."""
        return self._surroundings.port

    async def connect(
        self,
        peer: PeerId,
        *,
        alpn: str,
        address: Address | None = None,
        signalling: Signalling | None = None,
        timeout: float = 15.0,
        establish: Literal["initiator", "highest-address", "simultaneous"] = "initiator",
        policy: PolicyName = Policy.AUTO,
    ) -> Connection:
        """Connect to a peer through the rendezvous server; or straight to `address`; or with `signalling`, over a
        channel of the application's own, at whose other end the peer calls `respond`.

        timeout: seconds until it gives up. establish: which of the two makes the QUIC connection, as its client. The
        "initiator", that is this side; or the peer whose highest address is the lower, so that the one with the
        "highest-address" is the server; or both at once, and that of the greater PeerId survives: "simultaneous", for
        networks that let QUIC in only where it went out. It is one connection to both applications, whoever makes it;
        but to take the peer's, this endpoint must be bound with `alpn` among its own. policy: which ways the
        connection may take, and which of this side's addresses the peer is told: "auto", "direct", "relay" or "lan",
        see `Policy`; `Connection.set_policy` changes it later.

        Raises a `ConnectError`: `ConnectTimeoutError`, `HandshakeError` when it is not the peer who answers or it does
        not speak `alpn`, `PeerUnreachableError` when the server does not know the peer, `NoPathError` when no
        candidates reach each other, `RefusedError`; and `NoServerError`. `ValueError` for a peer that is this endpoint
        itself, for an `establish` that can't be, and for an `alpn` that begins with `quice/1+`; `InvalidPeerIdError`,
        through the server, for one whose id is no key that something can be sealed to.
        """
        self._raise_if_closed()
        if peer == self.peer:
            raise ValueError("this endpoint is the peer itself")
        check(alpn)
        if establish != "initiator" and (address is not None or alpn not in self._alpns):
            raise ValueError(f"establish={establish!r} needs {alpn!r} among the endpoint's alpns, and no address")
        if Establish(establish) is Establish.UNKNOWN:
            raise ValueError(f"establish={establish!r} is none of the three ways")
        started = self._loop.time()
        if address is not None:
            connection = self._begin(peer, alpn, address)
            await self._establish(connection, timeout)
            self._introductions.accompany(connection, Policy(policy), leads=True)
        else:
            if signalling is None:
                if self._surroundings.rendezvous is None:
                    raise NoServerError
                signalling = self._surroundings.rendezvous.open(peer)
            connection = await self._introductions.reach(
                peer, alpn, signalling, timeout, Establish(establish), Policy(policy)
            )
        connection.connect_seconds = self._loop.time() - started
        return connection

    async def offer_code(self, payload: bytes = b"") -> OfferedCode:
        """Have a short code like `7-crossover-clockwork`, for one person to tell another:

            code = await endpoint.offer_code()
            print(code)
            peer, payload = await code.wait()

        Whoever enters it, in an `enter_code` at the same server, gets `payload` (256 bytes at most) and this endpoint's
        PeerId, and this side gets theirs; nobody else learns or changes any of it, the server neither. A code is good
        for one try, so that a guess succeeds once in 65,536 times and never unseen.

        Raises `CodeLimitError`, `ServerUnreachableError`, and `NoServerError`.
        """
        return await self._mailboxes.offer(payload)

    async def enter_code(self, code: Code | str, payload: bytes = b"") -> Paired:
        """Meet the peer that has offered this code. It gets `payload`, 256 bytes at most.

        Raises `InvalidCodeError` for a text that is no code; `WrongCodeError`, of which the other side is told as well;
        `CodeGoneError`, `CodeLimitError`, `ServerUnreachableError`, and `NoServerError`.
        """
        return await self._mailboxes.enter(Code.parse(code) if isinstance(code, str) else code, payload)

    @property
    def _mailboxes(self) -> Mailboxes:
        self._raise_if_closed()
        if self._surroundings.rendezvous is None:
            raise NoServerError
        return self._surroundings.rendezvous.mailboxes

    def _on_session(self, signalling: RendezvousSignalling) -> None:
        self._surroundings.spawn(self._respond_quietly(signalling), "quice response")

    async def _respond_quietly(self, signalling: RendezvousSignalling) -> None:
        try:
            await self.respond(signalling.peer, signalling)
        except ConnectError as error:
            logger.info("a peer's offer came to nothing: %s", error)

    async def respond(self, peer: PeerId, signalling: Signalling) -> None:
        """Take part in a session that `peer` begins at the other end of `signalling`, until it has connected; the
        connection comes from `accept`. Sessions through the rendezvous server need no call.

        Raises a `ConnectError`: `SignallingError`, `NoPathError`, `RefusedError`, and `ConnectTimeoutError` when
        no handshake follows.
        """
        self._raise_if_closed()
        await self._introductions.respond(peer, signalling)

    async def offer(
        self, *, alpn: str, policy: PolicyName = Policy.AUTO, patience: float = manual.PATIENCE
    ) -> ManualOffer:
        """Offer a connection to whoever gets the text that this makes, its `description`, and gives one back:

            async with await endpoint.offer(alpn="chat/1") as offer:
                print(offer.description)
                connection = await offer.complete(input())

        No rendezvous server takes part. Whoever can change the texts on their way can take the other side's place, so
        that they should go by a way that both people trust, or the ids in them, which are `ManualAnswer.peer` and
        `Connection.peer`, be compared with what is known. policy: see `connect`. patience: seconds that the answer may
        take. Takes three seconds itself if STUN servers are silent. Raises `NoPathError` if the policy leaves no way,
        and `ValueError` for an alpn that begins with `quice/1+` or has more than 64 bytes.
        """
        self._raise_if_closed()
        check(alpn)
        return await manual.offer(self._introductions, alpn, Policy(policy), patience)

    async def answer(self, description: str, *, patience: float = manual.PATIENCE) -> ManualAnswer:
        """Answer an offer that was made by `offer`; the text goes back to who has made it:

            async with await endpoint.answer(input()) as answer:
                print(answer.description)
                connection = await answer.connected()

        The endpoint must be bound with the offer's alpn among its own, and its policy counts. The connection comes from
        `connected`, not from `accept`. patience: seconds that the way back may take; meanwhile a few packets a minute
        go to the addresses in the offer. Raises `DescriptionError` for a text that is no offer, or one that this
        endpoint can't take, and `NoPathError` if the policy leaves no way.
        """
        self._raise_if_closed()
        return await manual.answer(self._introductions, description, patience)

    async def accept(self) -> Connection:
        """The next connection that a peer made to this endpoint. Raises `EndpointClosedError`."""
        self._raise_if_closed()
        connection = await self._accepted.get()
        if connection is None:
            self._accepted.put_nowait(None)
            raise EndpointClosedError
        return connection

    async def __aiter__(self) -> AsyncIterator[Connection]:
        """The connections that peers make to this endpoint, until it is closed."""
        while True:
            try:
                yield await self.accept()
            except EndpointClosedError:
                return

    async def close(self, code: int = 0, reason: str = "") -> None:
        """Close every connection with this code and reason, wait until they have said goodbye, and free the port."""
        if self._closed:
            return
        self._closed = True
        self._introductions.close()
        await self._surroundings.close()
        connections = list(self._connections.values())
        try:
            for connection in connections:
                connection.close(code, reason)
            # Those that never were established have nobody to say goodbye to.
            established = [connection for connection in connections if connection._was_established]
            if established:
                await asyncio.wait_for(_drained(established), _DRAIN_TIMEOUT)
        except asyncio.TimeoutError:
            logger.debug("%d connections were not drained in time", len(self._connections))
        finally:
            self._pump.close()
            for connection in connections:
                connection._handle_closed_endpoint()
            while self._accepted.full():
                self._accepted.get_nowait()
            self._accepted.put_nowait(None)

    async def _open(self) -> None:
        settings, surroundings = self._settings, self._surroundings
        try:
            surroundings.bind(settings.host, settings.port)
            surroundings.start(settings.stun_servers, settings.relays)
            if settings.server:
                await surroundings.register(RendezvousClient(settings.server, self.identity, self._on_session))
        except BaseException:
            self._closed = True
            await surroundings.close()
            self._pump.close()
            raise

    def _on_moved(self) -> None:
        """The network is another than before: every connection finds its way anew."""
        for connection in list(self._connections.values()):
            if connection._upkeep is not None:
                connection._upkeep.on_moved()

    def _begin(
        self,
        peer: PeerId,
        alpn: str,
        address: Address,
        local: str | None = None,
        race: int | None = None,
        initial_id: bytes | None = None,
    ) -> Connection:
        try:
            native = self._pump.engine.connect(
                address, offered(alpn), peer=peer.key, local=local, race=race, initial_id=initial_id
            )
        except OSError as error:
            raise HandshakeError(str(error)) from error
        connection = self._connections[native.id] = Connection(native, self._pump)
        self._pump.wake()
        return connection

    async def _establish(self, connection: Connection, timeout: float) -> None:
        try:
            await asyncio.wait_for(asyncio.shield(connection._established), timeout)
        except asyncio.TimeoutError:
            connection.close()
            raise ConnectTimeoutError(timeout) from None
        except IdleTimeoutError:
            raise ConnectTimeoutError(timeout, "nothing was heard from the peer") from None
        except ConnectionClosedError as error:
            raise HandshakeError(str(error)) from error
        except BaseException:
            connection.close()
            raise

    def _dispatch(self, event: Event) -> None:
        if isinstance(event, Event.Packet):
            self._surroundings.receive(event.data, Address(*event.source), Address(*event.destination))
            return
        if isinstance(event, Event.RelayOutput):
            self._surroundings.relays.on_output(event.host, event.data)
            return
        handle: int = event.connection  # type: ignore[attr-defined]
        connection = self._connections.get(handle)
        if connection is None:
            if not (isinstance(event, Event.Connected) and event.accepted):
                return
            native = self._pump.engine.connection(handle)
            connection = self._connections[handle] = Connection(native, self._pump)
        if isinstance(event, Event.Drained):
            del self._connections[handle]
        connection._handle(event)
        if isinstance(event, Event.Connected) and event.accepted:
            self._introductions.on_handshake(connection, tag_of(event.initial_id))

    def _offer(self, connection: Connection) -> None:
        """This connection is one to accept."""
        if self._closed or self._accepted.full():
            connection.close(_REFUSED, "too many connections wait to be accepted")
        else:
            self._accepted.put_nowait(connection)

    def _raise_if_closed(self) -> None:
        if self._closed:
            raise EndpointClosedError

    def __repr__(self) -> str:
        return f"<Endpoint {self.peer} port {self.port}>"


async def _drained(connections: Sequence[Connection]) -> None:
    for connection in connections:
        await connection._drained.wait()


class _Binding:
    """What `Endpoint.bind` returns: await it, or enter it."""

    def __init__(self, make: Callable[[], Endpoint]) -> None:
        self._make = make

    def __await__(self) -> Generator[object, None, Endpoint]:
        return self._bind().__await__()

    async def _bind(self) -> Endpoint:
        self._endpoint = self._make()
        await self._endpoint._open()
        return self._endpoint

    async def __aenter__(self) -> Endpoint:
        return await self._bind()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._endpoint.close()
