"""An endpoint: one UDP port, shared by QUIC and STUN, on which connections are made and accepted."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Literal

from quice import _native
from quice._native import Event
from quice.alpn import answered, check, offered
from quice.challenges import IMPROVEMENTS
from quice.checks import Checks
from quice.config import TransportConfig
from quice.connection import Connection
from quice.control import CONTROL_STREAMS
from quice.discovery import Discovery, Exposure
from quice.errors import (
    BindError,
    ConnectError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointClosedError,
    HandshakeError,
    IdleTimeoutError,
    NoServerError,
    SignallingError,
)
from quice.ice import Base, CandidateKind, CandidatePair, ExternalAddress
from quice.ice.gather import CandidateFilter, InterfaceFilter
from quice.identity import Identity, PeerId
from quice.machine import this_machine
from quice.meeting import Meeting, refuse
from quice.network import NetworkChange, Watch
from quice.paths import PathKeeper
from quice.session import Session, tag_of
from quice.signal.interface import Signalling
from quice.signal.messages import VERSION, Establish, Offer, Refuse, RefuseReason, SignalDecodeError
from quice.signal.rendezvous import RendezvousClient, RendezvousSignalling
from quice.wire import Address, Transmit, random_bytes

logger = logging.getLogger(__name__)

_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - every interface is the point: any may reach the peer
# Connections that wait for `accept`; more are refused.
_BACKLOG = 1024
# How long closing waits for connections to drain: three times a slow path's probe timeout (RFC 9000 §10.2).
_DRAIN_TIMEOUT = 2.0
_REFUSED = 0x71
# Seconds from the choice of a pair to the handshake of the peer who began the session: it follows at once.
_HANDSHAKE_TIMEOUT = 10.0
_MAX_RESPONSES = 64
# Seconds for which the peers can tell each other of more candidates once they are connected.
_SIGNALLING_LINGERS = 10.0


class Endpoint:
    """One UDP port for all connections of a program, as client and as server.

    Made by `Endpoint.bind`, and used as an async context manager:

        async with Endpoint.bind(identity, server="ws://...", alpns=["chat/1"]) as endpoint:
            connection = await endpoint.connect(peer, alpn="chat/1")

    As an async iterator it yields the connections that others make to it. All awaits can be cancelled.
    """

    def __init__(
        self,
        identity: Identity,
        server: str | Sequence[str] | None,
        alpns: Sequence[str],
        host: str | None,
        port: int,
        stun_servers: Sequence[Address],
        config: TransportConfig,
        checks: Checks,
        exposure: Exposure,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._machine = this_machine()
        self.identity = identity
        self.peer = identity.peer
        self._server = server
        self._stun_servers = tuple(stun_servers)
        self._host = host
        self._port = port
        self._connections: dict[int, Connection] = {}
        self._accepted: asyncio.Queue[Connection | None] = asyncio.Queue(_BACKLOG)
        credentials = _native.Credentials.raw_key(identity.secret_key)
        self._improvement = IMPROVEMENTS[checks]
        self._pump = self._machine.pump(
            credentials, answered(alpns), self._improvement.configured(config), self._dispatch, CONTROL_STREAMS
        )
        self._bound: list[Address] = []
        self._alpns = tuple(alpns)
        self._rendezvous: RendezvousClient | None = None
        self._watch: Watch | None = None
        self._check: asyncio.Task[None] | None = None
        self._exposure = exposure
        self._discovery = Discovery(lambda: self.bases, self.send, self._machine.random, exposure)
        self._sessions: list[Session] = []
        self._races = itertools.count(1)
        self._meetings: dict[bytes, Meeting] = {}
        self._responding = 0
        # In order, as a set would not be.
        self._tasks: dict[asyncio.Task[None], None] = {}
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
        choose. stun_servers: asked for this endpoint's public addresses, beside the rendezvous server's own. checks:
        what finds better paths for connections; with "quic", and a peer that has it too, those made straight to an
        address as well, and both tell each other their addresses within the connection.

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
        `ServerUnreachableError` when the server can't be reached.
        """
        external = [ExternalAddress(each) if isinstance(each, str) else each for each in external_addresses]
        if lite:
            # RFC 8445 §5.1.1: a lite agent has host candidates alone.
            external = [replace(each, kind=CandidateKind.HOST) for each in external]
        for alpn in alpns:
            check(alpn)
        exposure = Exposure(interface_filter, candidate_filter, tuple(external), lite)
        return _Binding(
            lambda: cls(
                identity or Identity(random_bytes(this_machine().random, 32)),
                server,
                alpns,
                host,
                port,
                stun_servers,
                config or TransportConfig(),
                Checks(checks),
                exposure,
            )
        )

    @property
    def addresses(self) -> list[Address]:
        """The local addresses of this endpoint: one for each address of the machine that it uses."""
        return [base.address for base in self.bases]

    @property
    def server(self) -> str:
        """The rendezvous server that this endpoint is registered with, or was last. Raises `NoServerError`."""
        if self._rendezvous is None:
            raise NoServerError
        return self._rendezvous.url

    @property
    def port(self) -> int:
        """The UDP port."""
        return self._bound[0].port

    async def connect(
        self,
        peer: PeerId,
        *,
        alpn: str,
        address: Address | None = None,
        signalling: Signalling | None = None,
        timeout: float = 15.0,
        establish: Literal["initiator", "highest-address", "simultaneous"] = "initiator",
    ) -> Connection:
        """Connect to a peer through the rendezvous server; or straight to `address`; or with `signalling`, over a
        channel of the application's own, at whose other end the peer calls `respond`.

        timeout: seconds until it gives up. establish: which of the two makes the QUIC connection, as its client. The
        "initiator", that is this side; or the peer whose highest address is the lower, so that the one with the
        "highest-address" is the server; or both at once, and that of the greater PeerId survives: "simultaneous", for
        networks that let QUIC in only where it went out. It is one connection to both applications, whoever makes it;
        but to take the peer's, this endpoint must be bound with `alpn` among its own.

        Raises a `ConnectError`: `ConnectTimeoutError`, `HandshakeError` when it is not the peer who answers or it does
        not speak `alpn`, `PeerUnreachableError` when the server does not know the peer, `NoPathError` when no
        candidates reach each other, `RefusedError`; and `NoServerError`. `ValueError` for a peer that is this endpoint
        itself, for an `establish` that can't be, and for an `alpn` that begins with `quice/1+`.
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
            connection._paths = self._improvement.lead(connection._native, self._pump, self._discovery)
        else:
            if signalling is None:
                if self._rendezvous is None:
                    raise NoServerError
                signalling = self._rendezvous.open(peer)
            connection = await self._reach(peer, alpn, signalling, timeout, Establish(establish))
        connection.connect_seconds = self._loop.time() - started
        return connection

    async def _reach(
        self, peer: PeerId, alpn: str, signalling: Signalling, timeout: float, establish: Establish
    ) -> Connection:
        """Connect by candidates."""
        meeting, session = self._meet(peer, alpn, signalling)
        try:
            connection = await asyncio.wait_for(self._initiate(session, meeting, alpn, establish), timeout)
        except BaseException as error:
            meeting.close()
            await self._end(session)
            if isinstance(error, asyncio.TimeoutError):
                raise ConnectTimeoutError(timeout, "no pair of candidates was found to work") from None
            if isinstance(error, ConnectionClosedError):
                raise HandshakeError(str(error)) from error
            raise
        self._settle(session, meeting, connection)
        return connection

    async def _initiate(self, session: Session, meeting: Meeting, alpn: str, establish: Establish) -> Connection:
        await session.initiate(alpn, establish)
        return await meeting.connected

    def _meet(
        self, peer: PeerId, alpn: str, signalling: Signalling, offer: Offer | None = None
    ) -> tuple[Meeting, Session]:
        number = next(self._races)

        def attempt(pair: CandidatePair) -> Connection:
            local, remote = pair.base.host, pair.remote.address
            return self._begin(peer, alpn, remote, local, number, session.new_initial_id())

        def learn(remote: Address) -> None:
            session.learn(remote)

        meeting = Meeting(self.peer, peer, offer is None, attempt, learn, _HANDSHAKE_TIMEOUT)
        session = Session(self._discovery, self.send, signalling, meeting, offer)
        self._sessions.append(session)
        self._meetings[session.tag] = meeting
        return meeting, session

    def _settle(self, session: Session, meeting: Meeting, connection: Connection) -> None:
        """The session has its connection, whose client looks after its paths."""
        pair = meeting.pair
        improve = self._improvement.follow if pair is None else self._improvement.lead
        connection._paths = improve(connection._native, self._pump, self._discovery)
        if connection._paths is not None:
            self._dismiss(session, connection)
            return
        if pair is not None:
            connection._paths = keeper = PathKeeper(connection._native, self._pump, pair, session)
            session.observe(keeper)
            if session.selected is not None:
                keeper.on_selected(session.selected)
        else:
            pair = session.pair_of(connection)
        if pair is not None:
            session.use(pair)
        self._keep(session, connection)

    async def _end(self, session: Session) -> None:
        self._sessions.remove(session)
        self._meetings.pop(session.tag, None)
        await session.close()

    def _keep(self, session: Session, connection: Connection) -> None:
        """The session goes on for as long as its connection does."""
        connection._session = session
        session.entrust()
        self._spawn(self._accompany(session, connection), "quice session")

    def _dismiss(self, session: Session, connection: Connection) -> None:
        """The connection looks for better paths by itself: the session has done its part."""
        connection._session = session
        self._spawn(self._end(session), "quice session's end")

    async def _accompany(self, session: Session, connection: Connection) -> None:
        try:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(connection.wait_closed(), _SIGNALLING_LINGERS)
            await session.hang_up()
            await connection.wait_closed()
        finally:
            await self._end(session)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)
        return task

    @property
    def bases(self) -> list[Base]:
        """The local addresses that candidates are gathered from, with their interfaces."""
        bases: list[Base] = []
        for bound in self._bound:
            if bound.host not in _WILDCARDS:
                bases.append(Base(bound))
                continue
            family = bound.ip.version
            local = [local for local in self._machine.addresses() if local.ip.version == family]
            found = [Base(Address(address.host, bound.port), address.interface) for address in local]
            accepts = self._exposure.interfaces
            bases += [base for base in found if accepts is None or accepts(base)]
        return bases

    def send(self, transmit: Transmit) -> None:
        """Send a datagram that is not QUIC from this endpoint's port. It may get lost."""
        if not self._closed:
            self._pump.send(transmit)

    def _on_session(self, signalling: RendezvousSignalling) -> None:
        self._spawn(self._respond_quietly(signalling), "quice response")

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
        try:
            offer = await signalling.receive()
            if isinstance(offer, Offer):
                if (refusal := self._refusal(offer)) is None:
                    await self._respond(peer, offer, signalling)
                    return
                await signalling.send(refusal)
        except SignalDecodeError as error:
            raise SignallingError(f"the peer's message was not understood: {error}") from None
        except BaseException:
            await signalling.close()
            raise
        await signalling.close()

    async def _respond(self, peer: PeerId, offer: Offer, signalling: Signalling) -> None:
        meeting, session = self._meet(peer, offer.alpn, signalling, offer)
        self._responding += 1
        try:
            await session.respond()
            connection = await meeting.connected
        except BaseException:
            meeting.close()
            await self._end(session)
            raise
        finally:
            self._responding -= 1
        connection.connect_seconds = self._loop.time() - meeting.began
        self._settle(session, meeting, connection)
        self._offer(connection)

    def _refusal(self, offer: Offer) -> Refuse | None:
        if offer.version != VERSION:
            return Refuse(reason=RefuseReason.VERSION)
        if offer.alpn not in self._alpns:
            return Refuse(reason=RefuseReason.ALPN)
        if offer.establish is Establish.UNKNOWN:
            return Refuse(reason=RefuseReason.ESTABLISH, text="this side does not know that way of establishing")
        if self._closed or self._responding >= _MAX_RESPONSES:
            return Refuse(reason=RefuseReason.BUSY)
        return None

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
        if self._watch is not None:
            self._watch.close()
        if self._rendezvous is not None:
            await self._rendezvous.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._discovery.close()
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
        try:
            self._bind_sockets()
            if self._server is not None:
                rendezvous = RendezvousClient(self._server, self.identity, self._on_session)
                await rendezvous.start()
                self._rendezvous = rendezvous
            known = self._rendezvous.stun_servers if self._rendezvous is not None else ()
            self._discovery.start(() if self._exposure.lite else (*known, *self._stun_servers))
            if self._rendezvous is not None:
                self._watch = self._machine.watch(self._on_network_change)
        except BaseException:
            self._closed = True
            self._pump.close()
            raise

    def _on_network_change(self, change: NetworkChange) -> None:
        if self._rendezvous is not None:
            if self._check is not None:
                self._check.cancel()
            self._check = self._spawn(_check(self._rendezvous), "quice rendezvous check")

    def _bind_sockets(self) -> None:
        if self._host is not None:
            self._bind_socket(self._host, self._port)
            return
        self._bind_socket(_WILDCARDS[0], self._port)
        try:
            self._bind_socket(_WILDCARDS[1], self.port)
        except BindError as error:
            logger.info("IPv4 alone: %s", error)

    def _bind_socket(self, host: str, port: int) -> None:
        try:
            self._bound.append(self._pump.bind(host, port))
        except OSError as error:
            raise BindError(str(Address(host, port)), error.strerror or str(error)) from error

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
            self._on_packet(event)
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
            self._take(connection, tag_of(event.initial_id))

    def _take(self, connection: Connection, tag: bytes | None) -> None:
        """A peer has made this connection, for the session with this tag or for none."""
        if tag is None:
            connection._paths = self._improvement.follow(connection._native, self._pump, self._discovery)
            self._offer(connection)
        elif (meeting := self._meetings.get(tag)) is not None:
            meeting.on_handshake(connection)
        else:
            refuse(connection)

    def _offer(self, connection: Connection) -> None:
        """This connection is one to accept."""
        if self._closed or self._accepted.full():
            connection.close(_REFUSED, "too many connections wait to be accepted")
        else:
            self._accepted.put_nowait(connection)

    def _on_packet(self, event: Event.Packet) -> None:
        source, destination = Address(*event.source), Address(*event.destination)
        if self._discovery.receive(event.data, source, destination):
            return
        for session in self._sessions:
            if session.receive(event.data, source, destination):
                return

    def _raise_if_closed(self) -> None:
        if self._closed:
            raise EndpointClosedError

    def __repr__(self) -> str:
        return f"<Endpoint {self.peer} port {self._bound[0].port if self._bound else None}>"


async def _drained(connections: Sequence[Connection]) -> None:
    for connection in connections:
        await connection._drained.wait()


async def _check(rendezvous: RendezvousClient) -> None:
    # It is closed meanwhile.
    with contextlib.suppress(SignallingError):
        await rendezvous.check()


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
