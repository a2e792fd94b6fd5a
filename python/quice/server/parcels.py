"""Messages on their way to peers at other processes of the service: sans-I/O.

What goes to one process is packed into parcels, and the process says of each what became of its messages. Until then
the sender of a parcel answers for them: one of which nothing is heard is reported as failed. A parcel that was never
taken out of the other process's inbox may go elsewhere instead; of one that was, nobody knows, so that it is not sent
again. So a message is given to its peer once at most, and its sender is told unless it is known to have been.

The processes trust each other: whoever writes to their Redis may say what it likes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from quice.server.store import PeerKey, Taken

PATIENCE = 5.0
"""Seconds after which a message of which nothing is heard is reported as failed."""
STALLED = 0.5
"""Seconds without a word of a process after which what is in its inbox goes where its peers are by now."""
MAX_BYTES = 64 << 20
"""Bytes of messages that one process has on their way at the same time; what is more fails at once."""
_MAX_PARCEL = 256 << 10
_OVERHEAD = 200
"""Bytes that a message takes beside its own."""
_CODES = {Taken.ABSENT: 1, Taken.FULL: 2}
_OUTCOMES = {code: taken for taken, code in _CODES.items()}


class Place(NamedTuple):
    """Where a peer is registered: by which process, and as which of its registrations."""

    process: str
    claim: int


class Letter:
    """A message and whoever wants to know if it fails."""

    __slots__ = ("failed", "message", "refused_at", "size", "to", "until")

    def __init__(self, to: PeerKey, message: bytes, failed: Callable[[], None], until: float) -> None:
        self.to = to
        self.message = message
        self.failed = failed
        self.until = until
        self.refused_at: Place | None = None
        """Where the peer was not, though it was to be there."""
        self.size = len(message) + _OVERHEAD
        """Bytes that it takes."""


Receipt = tuple[int, dict[int, int]]
"""The number of a parcel, and what became of those of its messages that were not given to their peers."""


class Parcel(msgspec.Struct, frozen=True, array_like=True):
    """What one process sends another. number: 0 if there are no messages, so that no receipt is wanted. replaced: peers
    that have registered at the sender, and which of their registrations ended with that.
    """

    sender: str
    number: int
    messages: list[tuple[PeerKey, bytes]]
    receipts: list[Receipt]
    replaced: list[tuple[PeerKey, int]]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Parcel)


def decode(data: bytes) -> Parcel | None:
    """Read a parcel; None if it is none, for example of another version."""
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError:
        return None


@dataclass(eq=False)
class Sent:
    """A parcel that is on its way."""

    to: str
    number: int
    letters: list[Letter]
    receipts: list[Receipt]
    replaced: list[tuple[PeerKey, int]]
    data: bytes
    at: float


class Outbox:
    """What is to go to other processes, and what has gone and is not settled.

    Times are seconds on the caller's clock.
    """

    def __init__(self, process: str) -> None:
        """`process`: who sends."""
        self._process = process
        self._numbers = itertools.count(1)
        self.letters: list[Letter] = []
        """Those that are to go now."""
        self.here: list[Letter] = []
        """Those whose peer has come here meanwhile."""
        self._held: list[Letter] = []
        """Those to peers whose process has ended, and who may be on their way to another."""
        self._receipts: dict[str, list[Receipt]] = {}
        self._replaced: dict[str, list[tuple[PeerKey, int]]] = {}
        self._sent: dict[int, Sent] = {}
        self._on_their_way = 0
        """Bytes."""
        self._heard: dict[str, float] = {}
        """When each process last said what became of something."""
        self.places: dict[PeerKey, Place] = {}
        """Where peers were when they were last asked for."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits, and nothing is on its way."""
        return not (self.letters or self._held or self._sent or self._receipts)

    @property
    def has_work(self) -> bool:
        """Whether something is to go now."""
        return bool(self.letters or self._receipts or self._replaced)

    def put(self, letter: Letter) -> None:
        """Send a message."""
        if self._on_their_way >= MAX_BYTES:
            letter.failed()
        else:
            self._on_their_way += letter.size
            self.letters.append(letter)

    def acknowledge(self, parcel: Parcel, outcomes: Iterable[Taken]) -> None:
        """Tell the sender of a parcel what became of its messages."""
        failures = {number: _CODES[taken] for number, taken in enumerate(outcomes) if taken is not Taken.YES}
        self._receipts.setdefault(parcel.sender, []).append((parcel.number, failures))

    def tell_replaced(self, place: Place, peer: PeerKey) -> None:
        """Tell a process that a peer is registered elsewhere now."""
        self._replaced.setdefault(place.process, []).append((peer, place.claim))

    def unknown(self) -> list[PeerKey]:
        """The peers that have to be asked for before `pack`."""
        return list(dict.fromkeys(letter.to for letter in self.letters if letter.to not in self.places))

    def pack(self, absent: set[PeerKey], now: float) -> list[Sent]:
        """All that is to go now. `absent`: the peers that are nowhere."""
        letters, self.letters = self.letters, []
        bundles: dict[str, list[Letter]] = {}
        for letter in letters:
            place = self.places.get(letter.to)
            if place is None and letter.to not in absent:
                # It has been said meanwhile that the peer is not where it was.
                self.letters.append(letter)
            elif place is None or place == letter.refused_at:
                self._fail(letter)
            elif place.process == self._process:
                self.here.append(letter)
            else:
                bundles.setdefault(place.process, []).append(letter)
        receipts, self._receipts = self._receipts, {}
        replaced, self._replaced = self._replaced, {}
        parcels: list[Sent] = []
        for process in dict.fromkeys([*bundles, *receipts, *replaced]):
            pieces = list(_pieces(bundles.get(process, [])))
            parcels.append(self._parcel(process, pieces[0], receipts.get(process, []), replaced.get(process, []), now))
            parcels += [self._parcel(process, piece, [], [], now) for piece in pieces[1:]]
        return parcels

    def _parcel(
        self,
        to: str,
        letters: list[Letter],
        receipts: list[Receipt],
        replaced: list[tuple[PeerKey, int]],
        now: float,
    ) -> Sent:
        number = next(self._numbers) if letters else 0
        messages = [(letter.to, letter.message) for letter in letters]
        data = _encoder.encode(Parcel(self._process, number, messages, receipts, replaced))
        sent = Sent(to, number, letters, receipts, replaced, data, now)
        if letters:
            self._sent[number] = sent
            self._heard.setdefault(to, now)
        return sent

    def hand_out(self, take: Callable[[PeerKey, bytes], Taken]) -> None:
        """Give the messages that have stayed here to their peers."""
        here, self.here = self.here, []
        for letter in here:
            self.places.pop(letter.to, None)
            if take(letter.to, letter.message) is Taken.YES:
                self._on_their_way -= letter.size
            else:
                self._fail(letter)

    def settle(self, sender: str, receipts: Iterable[Receipt], now: float) -> None:
        """Take in what a process says of parcels that it got."""
        for number, failures in receipts:
            sent = self._sent.pop(number, None)
            if sent is None:
                continue
            self._heard[sender] = now
            for index, letter in enumerate(sent.letters):
                code = failures.get(index)
                if code is None:
                    self._on_their_way -= letter.size
                elif _OUTCOMES.get(code) is Taken.ABSENT and letter.until > now:
                    letter.refused_at = self.places.pop(letter.to, None)
                    self.letters.append(letter)
                else:
                    self._fail(letter)

    def stalled(self, now: float) -> list[Sent]:
        """The parcels to processes of which nothing is heard, and those that have waited long enough."""
        return [
            sent
            for sent in self._sent.values()
            if now - sent.at >= STALLED
            and (now - self._heard.get(sent.to, 0.0) >= STALLED or now - sent.at >= PATIENCE)
        ]

    def returned(self, sent: Sent, now: float) -> None:
        """A parcel was not taken: what is in it may go elsewhere."""
        self._sent.pop(sent.number, None)
        if sent.receipts:
            self._receipts.setdefault(sent.to, []).extend(sent.receipts)
        if sent.replaced:
            self._replaced.setdefault(sent.to, []).extend(sent.replaced)
        for letter in sent.letters:
            self.places.pop(letter.to, None)
            if letter.until > now:
                self.letters.append(letter)
            else:
                self._fail(letter)

    def bounced(self, sent: Sent) -> None:
        """The process that a parcel was for has ended. Its peers may come back at another."""
        self._sent.pop(sent.number, None)
        self._heard.pop(sent.to, None)
        for letter in sent.letters:
            self.places.pop(letter.to, None)
        self._held += sent.letters

    def lost(self, sent: Sent) -> None:
        """Nobody knows what became of a parcel, nor ever will."""
        if self._sent.pop(sent.number, None) is not None:
            for letter in sent.letters:
                self._fail(letter)

    def expire(self, now: float) -> None:
        """Give held messages another try, or up."""
        held, self._held = self._held, []
        for letter in held:
            if letter.until > now:
                self.letters.append(letter)
            else:
                self._fail(letter)

    def give_up(self) -> None:
        """Report all that has not gone."""
        for letter in [*self.letters, *self._held]:
            self._fail(letter)
        self.letters, self._held = [], []

    def overdue(self, now: float) -> Iterator[Sent]:
        """The parcels of which nothing was heard for so long that nothing will be."""
        return (sent for sent in list(self._sent.values()) if now - sent.at >= PATIENCE)

    def _fail(self, letter: Letter) -> None:
        self._on_their_way -= letter.size
        letter.failed()


def _pieces(letters: list[Letter]) -> Iterator[list[Letter]]:
    """The letters in parcels of a bearable size; one of none if there are none."""
    start = size = 0
    for number, letter in enumerate(letters):
        size += letter.size
        if size > _MAX_PARCEL and number > start:
            yield letters[start:number]
            start, size = number, letter.size
    yield letters[start:]
