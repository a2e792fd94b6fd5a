"""Short codes under attack: who guesses, from many places and for long, and a server that sits in the middle."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

import msgspec
import pytest

from quice import Endpoint
from quice.cli.codes import MAX_WRONG, Fetch, Files, enter, offer
from quice.cli.output import Output
from quice.cli.runner import UsageError
from quice.errors import CodeGoneError, CodeLimitError, GuessedCodesError, WrongCodeError
from quice.identity import Identity, PeerId
from quice.server import Server
from quice.server import mailboxes as rules
from quice.server.mailboxes import CLAIMS_BY_SOURCE, Limit, Mailbox, Mailboxes, MemoryMailboxes
from quice.signal import mailbox
from quice.signal.codes import Code, password_of, random_words
from quice.signal.pairing import Claimant, Opener
from quice.signal.protocol import (
    AttendMailbox,
    ClaimMailbox,
    CloseMailbox,
    MailboxBody,
    MailboxClosed,
    MailboxOpened,
    MailboxTaken,
    MailboxToPeer,
    MailboxToServer,
    OpenMailbox,
    PutMailbox,
)
from quice.signal.words import FIRST, SECOND

PAIRS = [(first, second) for first in FIRST for second in SECOND]


class Town:
    """People who offer codes at a server, on a clock of their own: where a code is burnt, somebody offers another one.

    What goes through the mailboxes is a guess in plain words: that SPAKE2 tells a right one from a wrong one, and
    nothing else, tests/signal/test_pairing.py shows.
    """

    def __init__(self, store: type[MemoryMailboxes] = MemoryMailboxes) -> None:
        self.now = 0.0
        self.rng = random.Random(6)
        self.mailboxes = Mailboxes(store(lambda: self.now, self.rng))
        self.codes: dict[int, tuple[PeerId, tuple[str, str]]] = {}
        self.offered = self.guessed = self.found = 0

    async def say(self, peer: PeerId, source: str, message: MailboxToServer) -> list[MailboxToPeer]:
        """What this peer is told in answer."""
        return [answer for to, answer in await self.mailboxes.handle(peer, source, message) if to == peer]

    async def offer(self) -> None:
        person = PeerId(self.rng.randbytes(32))
        (opened,) = await self.say(person, str(person), OpenMailbox(body=bytes(33)))
        assert isinstance(opened, MailboxOpened)
        self.codes[opened.number] = person, random_words(self.rng)
        self.offered += 1

    async def guess(self, peer: PeerId, source: str, number: int, words: tuple[str, str]) -> None:
        """Try a code, as the attacker does; whoever has offered it does what is to be done then."""
        (answer,) = await self.say(peer, source, ClaimMailbox(number=number))
        if isinstance(answer, MailboxClosed):
            return
        self.guessed += 1
        person, secret = self.codes[number]
        await self.say(peer, source, PutMailbox(number=number, body=b"a guess"))
        self.found += words == secret
        await self.say(person, str(person), CloseMailbox(number=number))
        if isinstance((await self.say(person, str(person), AttendMailbox(number=number)))[0], MailboxClosed):
            del self.codes[number]
            await self.offer()


class Unburnt(MemoryMailboxes):
    """A store without the defence: whoever claims a mailbox gets it, and a wrong guess changes nothing."""

    async def claim(self, number: int, claimant: PeerId) -> Mailbox | None:
        entry = self._entry(number)
        if entry is not None:
            entry.mailbox.claimant, entry.mailbox.answer = claimant, None
        return None if entry is None else entry.mailbox

    async def close(self, number: int, peer: PeerId) -> Mailbox | None:
        return None


async def attack(town: Town, guesses: int, addresses: int) -> None:
    """Guess at whatever code there is, by new peers all the time, each address as fast as the server reads."""
    for _ in range(20):
        await town.offer()
    for attempt in range(guesses):
        number = next(iter(town.codes))
        peer = PeerId(attempt.to_bytes(32, "big"))
        await town.guess(peer, f"address {attempt % addresses}", number, PAIRS[attempt % len(PAIRS)])
        town.now += 0.01 / addresses


@pytest.mark.slow
@pytest.mark.parametrize("addresses", [1, 100])
async def test_a_million_wrong_codes_are_so_few_guesses_that_none_is_right(addresses: int) -> None:
    """Who has many addresses gets more guesses, but each of them burns a code that somebody has offered."""
    town = Town()
    await attack(town, 1_000_000, addresses)
    assert town.guessed <= addresses * (CLAIMS_BY_SOURCE.burst + town.now / CLAIMS_BY_SOURCE.interval + 1)
    assert town.guessed == town.offered - len(town.codes)
    assert town.guessed / len(PAIRS) < 0.1, "the odds"
    assert town.found == 0


async def test_without_burning_and_without_limits_the_same_attack_finds_every_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("CLAIMS_BY_SOURCE", "CLAIMS_BY_PEER"):
        monkeypatch.setattr(rules, name, Limit(1, 0.0))
    town = Town(Unburnt)
    await attack(town, len(PAIRS), addresses=100)
    assert town.found == 1
    assert town.guessed == len(PAIRS)


@pytest.mark.slow
async def test_without_limits_the_odds_are_what_two_words_give(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLAIMS_BY_SOURCE", "CLAIMS_BY_PEER"):
        monkeypatch.setattr(rules, name, Limit(1, 0.0))
    monkeypatch.setattr(rules, "REST", 1.0)
    town = Town()
    await attack(town, len(PAIRS), addresses=1)
    assert town.guessed == len(PAIRS)
    # A Poisson number with a mean of one: beyond six for one seed in 12,000.
    assert town.found <= 6


async def test_who_offers_codes_notices_each_guess_and_gives_up_after_a_few(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With real WebSockets and the real exchange, as `quice send` does it."""
    async with Server("127.0.0.1", 0, 0) as server, Endpoint.bind(server=server.url, host="127.0.0.1") as alice:
        told: asyncio.Queue[Code] = asyncio.Queue()

        def words(code: Code) -> str:
            told.put_nowait(code)
            return ""

        offering = asyncio.ensure_future(offer(Output(False), alice, Files(secret=bytes(16)), Fetch, words))
        for _ in range(MAX_WRONG):
            code = await told.get()
            async with Endpoint.bind(server=server.url, host="127.0.0.1") as eve:
                with pytest.raises(WrongCodeError):
                    await eve.enter_code(wrong(code))
                with pytest.raises(CodeGoneError):
                    await eve.enter_code(code)
        with pytest.raises(GuessedCodesError):
            await offering
    assert capsys.readouterr().out.count("somebody tried a wrong code") == MAX_WRONG - 1


async def test_an_address_that_guesses_is_soon_heard_no_more() -> None:
    """Even where somebody offers one code after the other, and the attacker is a new peer each time."""
    guesses = refused = 0
    async with Server("127.0.0.1", 0, 0) as server, Endpoint.bind(server=server.url, host="127.0.0.1") as alice:
        for _ in range(CLAIMS_BY_SOURCE.burst + 5):
            offered = await alice.offer_code()
            waiting = asyncio.ensure_future(offered.wait())
            async with Endpoint.bind(server=server.url, host="127.0.0.1") as eve:
                try:
                    await eve.enter_code(wrong(offered.code))
                except WrongCodeError:
                    guesses += 1
                    with pytest.raises(WrongCodeError):
                        await waiting
                except CodeLimitError:
                    refused += 1
                    waiting.cancel()
                    await asyncio.wait([waiting])
    assert guesses <= CLAIMS_BY_SOURCE.burst + 5 / CLAIMS_BY_SOURCE.interval
    assert refused > 0


@pytest.mark.parametrize("length", [0, 15, 17, 200])
async def test_a_secret_that_makes_no_ticket_is_refused_as_what_is_not_known(length: int) -> None:
    """Of somebody who has told the right code, and means no good all the same."""
    async with (
        Server("127.0.0.1", 0, 0) as server,
        Endpoint.bind(server=server.url, host="127.0.0.1") as evil,
        Endpoint.bind(server=server.url, host="127.0.0.1") as bob,
    ):
        offered = await evil.offer_code(msgspec.msgpack.encode({"type": "files", "secret": bytes(length)}))
        waiting = asyncio.ensure_future(offered.wait())
        with pytest.raises(UsageError, match="does not know"):
            await enter(bob, offered.code, Fetch(), Files)
        await waiting


def wrong(code: Code) -> Code:
    first, second = code.words
    return Code(code.number, (first, "clover" if second != "clover" else "clockwork"))


class Middle:
    """A server that runs an exchange of its own with each side, under keys of its own, with the words that it guesses.

    Two clients are connected to it, with no network between.
    """

    def __init__(self, guess: tuple[str, str]) -> None:
        self.guess = guess
        self.rng = random.Random(1)
        self.identity = Identity.generate().peer
        """Whom it gives itself out for, on either side."""
        self.heard: list[bytes] = []
        """What it has got to know."""
        self.alice, self.bob = Identity.generate().peer, Identity.generate().peer
        self.of_alice = self._client(self.alice)
        self.of_bob = self._client(self.bob)
        self._to_bob: Opener | None = None
        self._to_alice: Claimant | None = None
        self._greeting = b""
        self._tasks: list[asyncio.Task[None]] = []

    def _client(self, peer: PeerId) -> mailbox.Mailboxes:
        async def send(message: MailboxToServer) -> None:
            asyncio.get_running_loop().call_soon(self._handle, peer, message)

        def spawn(work: Coroutine[Any, Any, None], name: str) -> object:
            self._tasks.append(asyncio.create_task(work))
            return None

        return mailbox.Mailboxes(peer, self.rng, send, spawn, lambda: "ws://middle")

    def _handle(self, peer: PeerId, message: MailboxToServer) -> None:
        match message:
            case OpenMailbox(body=body):
                self._greeting = body
                self.of_alice.receive(MailboxOpened(number=7, lifetime=600.0, longest=3600.0))
            case ClaimMailbox():
                self.claimed()
            case PutMailbox(body=body):
                self.put(peer, body)
            case _:
                pass

    def claimed(self) -> None:
        password = password_of(self.guess)
        self._to_bob = Opener(password, self.identity, b"of the middle", self.rng)
        self._to_alice = Claimant(password, 7, self.identity, self.alice, self._greeting, b"of the middle", self.rng)
        self.of_bob.receive(MailboxBody(number=7, peer=self.identity.key, body=self._to_bob.greeting))
        self.of_alice.receive(MailboxTaken(number=7, peer=self.identity.key))
        self.of_alice.receive(MailboxBody(number=7, peer=self.identity.key, body=self._to_alice.answer))

    def put(self, peer: PeerId, body: bytes) -> None:
        assert self._to_bob is not None
        assert self._to_alice is not None
        try:
            if peer == self.alice:
                self.heard.append(self._to_alice.finish(body))
            else:
                reply, payload = self._to_bob.settle(7, self.bob, body)
                self.heard.append(payload)
                self.of_bob.receive(MailboxBody(number=7, peer=self.identity.key, body=reply))
        except WrongCodeError:
            # The best that it can do with what it has not read: say something.
            self.of_bob.receive(MailboxBody(number=7, peer=self.identity.key, body=bytes(32)))


async def meet(middle: Middle, words: tuple[str, str] | None = None) -> tuple[object, object]:
    """What alice, who offers a code, and bob, who enters it, come to know or raise."""
    offered = await middle.of_alice.offer(b"of alice")
    if words is not None:
        middle.guess = offered.code.words
    return tuple(  # type: ignore[return-value]
        await asyncio.gather(offered.wait(), middle.of_bob.enter(offered.code, b"of bob"), return_exceptions=True)
    )


async def test_a_server_that_takes_each_sides_place_is_noticed_by_both_and_reads_nothing() -> None:
    middle = Middle(("crossover", "clockwork"))
    alice, bob = await meet(middle)
    assert isinstance(alice, WrongCodeError)
    assert isinstance(bob, WrongCodeError)
    assert middle.heard == []


async def test_it_would_get_through_if_it_knew_the_words() -> None:
    """Nothing but the words keeps it out: this is the guess that succeeds once in 65,536 times."""
    middle = Middle(("", ""))
    alice, bob = await meet(middle, words=("known", "known"))
    assert alice == (middle.identity, b"of the middle")
    assert bob == (middle.identity, b"of the middle")
    assert sorted(middle.heard) == [b"of alice", b"of bob"]


class Hurried(Middle):
    """One that gives mailboxes next to no time, so that an opener would have to say all the time that it is there."""

    def _handle(self, peer: PeerId, message: MailboxToServer) -> None:
        if isinstance(message, OpenMailbox):
            self.of_alice.receive(MailboxOpened(number=7, lifetime=1e-9, longest=3600.0))
        self.said += isinstance(message, AttendMailbox)

    said = 0


async def test_a_server_that_gives_a_code_no_time_hears_of_it_no_more_than_once_a_second() -> None:
    middle = Hurried(("", ""))
    waiting = asyncio.create_task((await middle.of_alice.offer(b"of alice")).wait())
    await asyncio.sleep(1.5)
    assert middle.said == 1
    waiting.cancel()
    await asyncio.wait([waiting])


class Swapping(Middle):
    """One that lets the exchange through, and swaps the keys that it tells of."""

    def claimed(self) -> None:
        self.of_bob.receive(MailboxBody(number=7, peer=self.opener.key, body=self._greeting))
        self.of_alice.receive(MailboxTaken(number=7, peer=self.claimant.key))

    def put(self, peer: PeerId, body: bytes) -> None:
        if peer == self.bob:
            self.of_alice.receive(MailboxBody(number=7, peer=self.claimant.key, body=body))
        else:
            self.of_bob.receive(MailboxBody(number=7, peer=self.opener.key, body=body))

    @property
    def opener(self) -> PeerId:
        return self.identity if self.swaps == "alice" else self.alice

    @property
    def claimant(self) -> PeerId:
        return self.identity if self.swaps == "bob" else self.bob

    swaps = ""


@pytest.mark.parametrize("swaps", ["alice", "bob", ""])
async def test_a_server_that_swaps_the_key_of_either_side_is_noticed(
    swaps: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailbox, "_PATIENCE", 0.2)
    middle = Swapping(("", ""))
    middle.swaps = swaps
    alice, bob = await meet(middle)
    if swaps:
        assert isinstance(alice, WrongCodeError)
        assert isinstance(bob, CodeGoneError), "nobody has answered it"
    else:
        assert (alice, bob) == ((middle.bob, b"of bob"), (middle.alice, b"of alice"))


class Guessing(Middle):
    """One that has a second guess, which is right, behind a first that is not."""

    def claimed(self) -> None:
        for guess in (("", ""), self.guess):
            attempt = Claimant(
                password_of(guess), 7, self.identity, self.alice, self._greeting, b"of the middle", self.rng
            )
            self.of_alice.receive(MailboxTaken(number=7, peer=self.identity.key))
            self.of_alice.receive(MailboxBody(number=7, peer=self.identity.key, body=attempt.answer))

    def put(self, peer: PeerId, body: bytes) -> None:
        self.heard.append(body)


async def test_a_server_has_one_guess_even_if_it_keeps_the_code_alive() -> None:
    middle = Guessing(("", ""))
    offered = await middle.of_alice.offer(b"of alice")
    middle.guess = offered.code.words
    middle.claimed()
    with pytest.raises(WrongCodeError):
        await offered.wait()
    assert middle.heard == []
