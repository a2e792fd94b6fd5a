"""`quice connect`: standard input and output of two machines, joined."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import secrets
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quice.cli.output import Output
from quice.cli.pipe import INTERRUPTED, Input, pipe
from quice.cli.runner import IdentityFile, Json, Server, UsageError, own_identity, run, server_urls
from quice.cli.watch import path_changes
from quice.cli.ways import PolicyOption, RelayPassword, RelayUri, RelayUser, Ways
from quice.errors import DescriptionError, Error, PeerClosedError, PeerInterruptedError
from quice.identity import Identity
from quice.policy import Policy
from quice.signal.manual import OFFER
from quice.ticket import SECRET_LENGTH, Ticket
from quice.turn.uri import ServerUri
from quice.wire import Address

if TYPE_CHECKING:
    from quice.connection import Connection
    from quice.endpoint import Endpoint
    from quice.stream import Stream

    Joined = tuple[Connection, Stream]

_ALPN = "quice-connect/1"
_STDIN, _STDOUT = 0, 1
_STRANGER = 2
_GREETING = 10.0
"""Seconds in which who connects has to show that it has the ticket."""
_NO_SECRET = bytes(SECRET_LENGTH)
"""What the stream begins with where the texts have introduced both sides: so the other side sees it at once."""


def connect(
    text: Annotated[
        str | None, typer.Argument(metavar="TEXT", help="The ticket or the offer that the other side has printed.")
    ] = None,
    listen: Annotated[bool, typer.Option("--listen", help="Print a ticket, and wait for who has it.")] = False,
    manual: Annotated[
        bool, typer.Option("--manual", help="With no server: copy an offer to the other side, and its answer back.")
    ] = False,
    stun: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST[:PORT]",
            help="A STUN server, to be told this machine's public address by. May be given again.",
        ),
    ] = None,
    identity: IdentityFile = None,
    server: Server = None,
    relay: RelayUri = None,
    relay_user: RelayUser = None,
    relay_password: RelayPassword = None,
    policy: PolicyOption = Policy.AUTO,
    json: Json = False,
) -> None:
    """Join standard input and output of two machines, until both have come to their end.

    `quice connect --listen` prints a ticket for `quice connect TICKET`. Without a rendezvous server, `quice connect
    --manual` prints an offer for `quice connect --manual OFFER`, whose answer goes back. Events are told on standard
    error.
    """
    output = Output(json, sys.stderr)
    if listen and (manual or text is not None):
        raise typer.BadParameter("it goes with neither --manual nor a text", param_hint="--listen")
    if not (listen or manual or text is not None):
        raise typer.BadParameter("a ticket, or --listen or --manual", param_hint="TEXT")
    ways = Ways.of(policy, relay, relay_user, relay_password)
    # A text that is broken into lines is one text.
    text = None if text is None else "".join(text.split())
    manual = manual or (text is not None and text.lower().startswith(OFFER))
    call = _Call(output, text, listen, manual, stun or [], server, ways)
    run(output, call.join(identity))


@dataclass(frozen=True)
class _Call:
    """What was asked for on the command line."""

    output: Output
    text: str | None
    listens: bool
    manual: bool
    stun: list[str]
    servers: list[str] | None
    ways: Ways

    async def join(self, identity_file: Path | None) -> None:
        from quice.endpoint import Endpoint

        source = Input(_STDIN)
        ticket = None if self.listens or self.manual or self.text is None else Ticket.parse(self.text)
        # Who listens is the same peer each time; who connects is nobody in particular.
        identity = own_identity(identity_file) if self.listens else Identity.generate()
        servers = None if self.manual else server_urls(self.servers, [] if ticket is None else [ticket.server])
        async with Endpoint.bind(
            identity,
            server=servers,
            alpns=[_ALPN],
            stun_servers=await self._stun_servers(),
            relays=self.ways.relays,
            policy=self.ways.policy,
        ) as endpoint:
            connection, stream = await self._reach(endpoint, ticket, source)
            try:
                async with path_changes(self.output, connection):
                    await pipe(connection, stream, source, _STDOUT)
            except PeerClosedError as closed:
                if closed.code != INTERRUPTED:
                    raise
                raise PeerInterruptedError from None
            finally:
                # It is closed, unless something has gone wrong.
                connection.close(INTERRUPTED)

    async def _reach(self, endpoint: Endpoint, ticket: Ticket | None, source: Input) -> Joined:
        if ticket is not None:
            connection = await endpoint.connect(ticket.peer, alpn=_ALPN, policy=self.ways.policy)
            return connection, await _opened(connection, ticket.secret or _NO_SECRET)
        if self.listens:
            return await self._listen(endpoint)
        return await (self._offer(endpoint, source) if self.text is None else self._answer(endpoint, self.text))

    async def _listen(self, endpoint: Endpoint) -> Joined:
        ticket = Ticket(endpoint.peer, endpoint.server, secrets.token_bytes(SECRET_LENGTH))
        self.output.event("ticket", f"On the other machine:\n\n    quice connect {ticket}\n", ticket=str(ticket))
        joined: asyncio.Future[Joined] = asyncio.get_running_loop().create_future()

        async def greet(connection: Connection) -> None:
            stream = await _greeted(connection, ticket.secret)
            if stream is None or joined.done():
                connection.close(_STRANGER, "it is for who has the ticket")
            else:
                joined.set_result((connection, stream))

        async def accept() -> None:
            async for connection in endpoint:
                tasks.add(asyncio.create_task(greet(connection)))

        tasks = {asyncio.create_task(accept())}
        try:
            return await joined
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _offer(self, endpoint: Endpoint, source: Input) -> Joined:
        async with await endpoint.offer(alpn=_ALPN, policy=self.ways.policy) as offer:
            self.output.event(
                "offer",
                f"On the other machine:\n\n    quice connect --manual {offer.description}\n\nPaste its answer here:",
                description=offer.description,
            )
            keyboard = _keyboard(source)
            while True:
                answer = await keyboard.line()
                if not answer:
                    raise UsageError("no answer was pasted")
                try:
                    connection = await offer.complete(answer)
                except DescriptionError as error:
                    if not keyboard.is_terminal:
                        raise
                    self.output.error(error)
                else:
                    return connection, await _opened(connection, _NO_SECRET)

    async def _answer(self, endpoint: Endpoint, text: str) -> Joined:
        async with await endpoint.answer(text) as answer:
            self.output.event(
                "answer", f"Back to the first machine:\n\n    {answer.description}\n", description=answer.description
            )
            connection = await answer.connected()
            stream = await connection.accept_stream()
            await stream.readexactly(SECRET_LENGTH)
            return connection, stream

    async def _stun_servers(self) -> list[Address]:
        loop = asyncio.get_running_loop()
        found: list[Address] = []
        for each in self.stun:
            uri = ServerUri.parse(each if each.lower().startswith("stun:") else f"stun:{each}")
            try:
                addresses = await loop.getaddrinfo(uri.host, uri.port, type=socket.SOCK_DGRAM)
            except OSError as error:
                reason = error.strerror or str(error)
                self.output.event("stun", f"no address of {each} is known: {reason}", server=each, reason=reason)
            else:
                found += dict.fromkeys(Address(*address[4][:2]) for address in addresses)
        return found


async def _opened(connection: Connection, greeting: bytes) -> Stream:
    stream = await connection.open_stream()
    await stream.write(greeting)
    return stream


async def _greeted(connection: Connection, secret: bytes) -> Stream | None:
    """The peer's stream, if the peer has the ticket."""
    with contextlib.suppress(Error, asyncio.IncompleteReadError, asyncio.TimeoutError):
        stream = await asyncio.wait_for(connection.accept_stream(), _GREETING)
        greeting = await asyncio.wait_for(stream.readexactly(SECRET_LENGTH), _GREETING)
        if hmac.compare_digest(greeting, secret):
            return stream
    return None


def _keyboard(source: Input) -> Input:
    """Where the answer is pasted: where data are piped in, that is the terminal itself, if there is one."""
    if not source.is_terminal:
        with contextlib.suppress(OSError):
            return Input(os.open("/dev/tty", os.O_RDONLY))
    return source
