"""Codes beside a server, and a server's mailboxes beside peers, that say whatever they like in whatever order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

from fuzz.mutation import mutate
from fuzz.target import Target, require
from quice.errors import CodeError, ServerUnreachableError
from quice.identity import Identity, PeerId
from quice.server.mailboxes import MAX_BY_PEER, REST, Mailbox, MemoryMailboxes
from quice.server.mailboxes import Mailboxes as Service
from quice.signal import protocol
from quice.signal.codes import Code, password_of
from quice.signal.mailbox import Mailboxes, OfferedCode, Paired
from quice.signal.pairing import Claimant, Opener
from quice.signal.protocol import (
    AttendMailbox,
    ClaimMailbox,
    CloseMailbox,
    MailboxBody,
    MailboxClosed,
    MailboxEnd,
    MailboxOpened,
    MailboxTaken,
    MailboxToPeer,
    MailboxToServer,
    OpenMailbox,
    PutMailbox,
)
from quice.sim.clock import virtual_time

_US, _THEM, _OTHERS = (Identity(bytes([number]) * 32).peer for number in (1, 2, 3))
_NUMBERS = (1, 2, 3, 999_999)
_WORDS = ("crossover", "clockwork")
_TIMES = (1e-300, 0.001, 600.0, 3600.0, 1e300)
_KNOWN = b"a payload that only who knows the words can send"
_GREETING = Opener(password_of(_WORDS), _THEM, _KNOWN, random.Random(1)).greeting
_MOST_SAID = 64
"""Messages of a client with each that it gets, and each minute."""


class _Client:
    """The client's side, without a connection: what it says is kept."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.said: list[MailboxToServer] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.mailboxes = Mailboxes(_US, rng, self._send, self.spawn, lambda: "ws://server")
        self.codes: list[OfferedCode] = []
        self.greetings: list[bytes] = []
        self._right: dict[int, bytes] = {}

    async def _send(self, message: MailboxToServer) -> None:
        require(protocol.decode_to_server(protocol.encode(message)) == message, "said what the server can't read")
        self.said.append(message)
        if isinstance(message, OpenMailbox):
            self.greetings.append(message.body)

    def right_answers(self, number: int) -> list[bytes]:
        """What who knows the words would answer to each code that is offered. They cost a while, and are kept."""
        for at, (code, greeting) in enumerate(zip(self.codes, self.greetings, strict=False)):
            if at not in self._right:
                words = password_of(code.code.words)
                self._right[at] = Claimant(words, number, _THEM, _US, greeting, _KNOWN, self.rng).answer
        return list(self._right.values())

    def spawn(self, work: Coroutine[Any, Any, Any], name: str = "") -> None:
        self.tasks.append(asyncio.ensure_future(work))

    async def offer(self) -> Paired:
        code = await self.mailboxes.offer(b"ours")
        self.codes.append(code)
        return await code.wait()

    async def enter(self) -> Paired:
        return await self.mailboxes.enter(Code(self.rng.choice(_NUMBERS), _WORDS), b"ours")


def _body(rng: random.Random, client: _Client, number: int) -> bytes:
    """What a server may put in a mailbox: something right by chance, or altered."""
    samples = [_GREETING, bytes(33), bytes(32), *client.right_answers(number)]
    data = rng.choice(samples) if rng.random() < 0.5 else mutate(rng, samples)
    return data[: protocol.MAX_MAILBOX_BODY]


def _from_server(rng: random.Random, client: _Client) -> MailboxToPeer:
    number, peer = rng.choice(_NUMBERS), rng.choice((_THEM, _OTHERS, _US)).key
    choice = rng.randrange(5)
    if choice == 0:
        return MailboxOpened(number=number, lifetime=rng.choice(_TIMES), longest=rng.choice(_TIMES))
    if choice == 1:
        return MailboxTaken(number=number, peer=peer)
    if choice == 2:
        return MailboxClosed(number=rng.choice((0, number)), reason=rng.choice(list(MailboxEnd)))
    return MailboxBody(number=number, peer=peer, body=_body(rng, client, number))


async def _converse(rng: random.Random) -> None:
    client = _Client(rng)
    try:
        await _talk(rng, client)
    finally:
        # However it has ended, nothing of it goes on; what ends may have something else to do.
        while left := [task for task in client.tasks if not task.done()]:
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)


async def _talk(rng: random.Random, client: _Client) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(rng.randrange(1, 4)):
        client.spawn(client.offer() if rng.random() < 0.6 else client.enter())
    await asyncio.sleep(0)
    heard, began = 0, loop.time()
    for _ in range(rng.choice((2, 5, 10, 30))):
        message = protocol.decode_to_peer(protocol.encode(_from_server(rng, client)))
        client.mailboxes.receive(message)  # type: ignore[arg-type]
        heard += 1
        if rng.random() < 0.1:
            await client.mailboxes.repeat()
            heard += len(client.codes) + len(client.tasks)
        if rng.random() < 0.05 and client.codes:
            await rng.choice(client.codes).close()
        await asyncio.sleep(rng.choice((0, 0, 0.001, 5, 31)))
        most = _MOST_SAID * (1 + heard + (loop.time() - began) / 60)
        require(len(client.said) <= most, f"{len(client.said)} messages for {heard} in {loop.time() - began:g} s")
    await client.mailboxes.close()
    await asyncio.wait(client.tasks, timeout=1)
    require(not client.mailboxes._boxes, "a mailbox is left")
    for task in client.tasks:
        require(task.done(), "somebody still waits")
        if isinstance(error := task.exception(), CodeError | ServerUnreachableError):
            continue
        if error is not None:
            raise error
        found = task.result()
        require(found is None or (found.payload == _KNOWN and found.peer == _THEM), f"paired with {found}")


def _play_client(rng: random.Random) -> None:
    failures: list[dict[str, Any]] = []
    with virtual_time() as loop:
        loop.set_exception_handler(lambda _, context: failures.append(context))
        loop.run_until_complete(_converse(rng))
    require(not failures, f"{failures}")


def _to_server(rng: random.Random, bodies: tuple[bytes, ...]) -> MailboxToServer:
    number, body = rng.choice((1, 2, 3, 4, 5, 6, 7, 8, 9, 999_999)), rng.choice(bodies)
    return rng.choice(
        (
            OpenMailbox(body=body),
            OpenMailbox(body=body),
            AttendMailbox(number=number),
            ClaimMailbox(number=number),
            PutMailbox(number=number, body=body),
            CloseMailbox(number=number),
        )
    )


async def _serve(rng: random.Random) -> None:
    now = 0.0
    store = MemoryMailboxes(lambda: now, rng)
    service = Service(store)
    people = [PeerId(bytes([number]) * 32) for number in range(4)]
    bodies = tuple(rng.randbytes(8) for _ in range(4))
    claimed: dict[int, tuple[Mailbox, PeerId]] = {}
    for _ in range(rng.choice((10, 30, 100))):
        peer, now = rng.choice(people), now + rng.choice((0.0, 1.0, 61.0, 601.0))
        message = _to_server(rng, bodies)
        answers = await service.handle(peer, f"source {people.index(peer) % 2}", message)
        require(len(answers) <= 2, "more answers than sides")
        for to, answer in answers:
            protocol.decode_to_peer(protocol.encode(answer))
            if isinstance(answer, MailboxBody | MailboxTaken):
                mailbox = store._entries[answer.number].mailbox
                require(mailbox.claimant is not None, "told of a mailbox that nobody has claimed")
                _, claimant = claimed.setdefault(id(mailbox), (mailbox, mailbox.claimant or to))
                require(mailbox.claimant == claimant, "a third peer at a mailbox")
                require({to, PeerId(answer.peer)} == {mailbox.opener, claimant}, "told somebody else")
        require(all(len(own) <= MAX_BY_PEER for own in store._by_peer.values()), "too many mailboxes of one peer")
    now += 2 * REST + 3600
    require(len(store) == 0, "mailboxes that do not end")
    now += 2 * REST
    require(len(store) == 0 and not store._entries and not store._by_peer and not store._by_source, "something is left")


def _play_server(rng: random.Random) -> None:
    with virtual_time() as loop:
        loop.run_until_complete(_serve(rng))


TARGETS = (Target("mailbox-client", _play_client), Target("mailbox-server", _play_server))
