"""An offer and its answer as texts that people carry: copied into a chat, read from a QR code.

A text is a word that says what it is, then in base32: a version, what the agent is like, the pace it proposes, the
peer's id, ufrag and pwd; of an offer the application protocol, of an answer which offer it is for; the candidates; and
a checksum. Nobody trickles by hand, so that a text is also the end of candidates. Base32 passes every chat unharmed
and, in capitals, packs well into a QR code; both are read, whatever spaces and line breaks have come into them.

It is kept short: foundations become numbers, related addresses are left out, and of many candidates those are told of
that stand for most, the best of each kind and address family first. Six of them, two IPv6 and four IPv4, make a text of
some 230 characters.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import ipaddress
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from quice.errors import DescriptionError, SignallingClosedError
from quice.ice.candidate import MAX_LOCAL_PREFERENCE, Candidate, CandidateKind, priority
from quice.identity import PeerId
from quice.signal import messages
from quice.signal.messages import (
    Answer,
    Description,
    DescriptionFields,
    EndOfCandidates,
    Message,
    Offer,
    SignalDecodeError,
)
from quice.wire import Address

VERSION = 1
MAX_TEXT = 300
"""Characters of a text, at most: so that it fits into a chat line, and a QR code that a telephone reads at once."""
MAX_ALPN = 64
"""Bytes of an application protocol's name: with it there is room for three candidates at least."""
OFFER = "quiceoffer1"
ANSWER = "quiceanswer1"
_CHECKSUM_LENGTH = 3
_TAG_LENGTH = 4
# Version, flags, pace in ms, the peer's key, ufrag and pwd, and how long the alpn or the offer's tag is that follows.
# Checks spell ufrag and pwd as lower-case hexadecimal digits.
_HEAD = struct.Struct("!BBH32s4s16sB")
_LITE, _RENOMINATION = 1, 2
# The octet before each candidate: its kind in two bits, these two, and the number of its foundation in four.
_IPV6, _FIRST_PORT = 1 << 2, 1 << 3
_FOUNDATION_SHIFT = 4
_MAX_FOUNDATIONS = 16
_KINDS = (
    CandidateKind.HOST,
    CandidateKind.SERVER_REFLEXIVE,
    CandidateKind.PEER_REFLEXIVE,
    CandidateKind.RELAYED,
)

DescriptionT = TypeVar("DescriptionT", Offer, Answer)


@dataclass(frozen=True)
class WrittenOffer:
    """What an offer's text says: who offers, and what."""

    peer: PeerId
    offer: Offer

    def __str__(self) -> str:
        return _write(OFFER, self.peer, self.offer, self.offer.alpn.encode())

    @classmethod
    def parse(cls, text: str) -> WrittenOffer:
        """Read it. Raises `DescriptionError`, which says what is wrong."""
        peer, alpn, fields = _read(OFFER, text)
        try:
            name = alpn.decode()
        except UnicodeDecodeError:
            raise DescriptionError("the alpn is not allowed") from None
        return cls(peer, _checked(Offer(version=messages.VERSION, alpn=name, **fields)))

    @property
    def tag(self) -> bytes:
        """What an answer names the offer by."""
        credentials = f"{self.offer.ufrag}:{self.offer.pwd}"
        return hashlib.sha256(credentials.encode()).digest()[:_TAG_LENGTH]


@dataclass(frozen=True)
class WrittenAnswer:
    """What an answer's text says: who answers, what, and to which offer."""

    peer: PeerId
    answer: Answer
    tag: bytes

    def __str__(self) -> str:
        return _write(ANSWER, self.peer, self.answer, self.tag)

    @classmethod
    def parse(cls, text: str) -> WrittenAnswer:
        """Read it. Raises `DescriptionError`, which says what is wrong."""
        peer, tag, fields = _read(ANSWER, text)
        return cls(peer, _checked(Answer(**fields)), tag)


def _write(word: str, peer: PeerId, description: Description, particular: bytes) -> str:
    flags = (_LITE if description.lite else 0) | (_RENOMINATION if description.renomination else 0)
    credentials = bytes.fromhex(description.ufrag), bytes.fromhex(description.pwd)
    body = _HEAD.pack(VERSION, flags, description.pacing, peer.key, *credentials, len(particular)) + particular
    room = (MAX_TEXT - len(word)) * 5 // 8 - len(body) - _CHECKSUM_LENGTH
    body += b"".join(_packed(_fitting(description.candidates, room)))
    return spelt(word, body)


def _read(word: str, text: str) -> tuple[PeerId, bytes, DescriptionFields]:
    body = content(word, text)
    try:
        version, flags, pacing, key, ufrag, pwd, length = _HEAD.unpack_from(body)
        if version != VERSION:
            raise DescriptionError(f"it is of version {version}, and this side knows version {VERSION} alone")
        start = _HEAD.size + length
        if len(body) < start:
            raise IndexError
        fields = DescriptionFields(
            ufrag=ufrag.hex(),
            pwd=pwd.hex(),
            candidates=tuple(_unpacked(body[start:])),
            lite=bool(flags & _LITE),
            pacing=pacing,
            renomination=bool(flags & _RENOMINATION),
        )
    except (struct.error, IndexError) as error:
        raise DescriptionError("it ends too early") from error
    return PeerId(key), body[_HEAD.size : start], fields


def spelt(word: str, body: bytes) -> str:
    """The text of this content."""
    return word + base64.b32encode(body + _checksum(word, body)).decode().rstrip("=").lower()


def content(word: str, text: str) -> bytes:
    """What a text says, without its word and checksum. Raises `DescriptionError`."""
    text = "".join(text.split()).lower()
    if not text.startswith(word):
        for other, name in ((OFFER, "an offer"), (ANSWER, "an answer")):
            if text.startswith(other):
                raise DescriptionError(f"it is {name}, and what belongs here begins with {word!r}")
        raise DescriptionError(f"it does not begin with {word!r}")
    if len(text) > MAX_TEXT:
        raise DescriptionError(f"it has more than {MAX_TEXT} characters")
    encoded = text[len(word) :].upper()
    try:
        data = base64.b32decode(encoded + "=" * (-len(encoded) % 8))
    except (binascii.Error, ValueError):
        raise DescriptionError("it has characters that do not belong there, or is cut off") from None
    body, checksum = data[:-_CHECKSUM_LENGTH], data[-_CHECKSUM_LENGTH:]
    if _checksum(word, body) != checksum:
        raise DescriptionError("its checksum is wrong: a character is missing or mistyped")
    return body


def _checked(message: DescriptionT) -> DescriptionT:
    """The message, if it is one that a peer may send."""
    try:
        messages.decode(messages.encode(message))
    except SignalDecodeError as error:
        raise DescriptionError(str(error)) from None
    return message


def _fitting(candidates: Iterable[Candidate], room: int) -> list[Candidate]:
    """Those that find room: the best of each kind and family, then the second best of each, and so on."""
    ranks: Counter[tuple[CandidateKind, int]] = Counter()
    ranked: list[tuple[int, Candidate]] = []
    for candidate in sorted(candidates, key=lambda candidate: -candidate.priority):
        sort = candidate.kind, candidate.address.ip.version
        ranked.append((ranks[sort], candidate))
        ranks[sort] += 1
    chosen: list[Candidate] = []
    for _, candidate in sorted(ranked, key=lambda each: each[0]):
        if sum(map(len, _packed([*chosen, candidate]))) <= room:
            chosen.append(candidate)
    return sorted(chosen, key=lambda candidate: -candidate.priority)


def _packed(candidates: list[Candidate]) -> Iterator[bytes]:
    foundations: dict[str, int] = {}
    for candidate in candidates:
        address = candidate.address
        number = foundations.setdefault(candidate.foundation, len(foundations) % _MAX_FOUNDATIONS)
        octet = _KINDS.index(candidate.kind) | number << _FOUNDATION_SHIFT
        octet |= _IPV6 if address.ip.version == 6 else 0
        octet |= _FIRST_PORT if candidate is not candidates[0] and address.port == candidates[0].address.port else 0
        port = b"" if octet & _FIRST_PORT else address.port.to_bytes(2, "big")
        preference = candidate.priority >> 8 & MAX_LOCAL_PREFERENCE
        yield bytes([octet]) + address.ip.packed + port + preference.to_bytes(2, "big")


def _unpacked(data: bytes) -> Iterator[Candidate]:
    """Read candidates. Raises `IndexError` where the data end too early."""
    first_port, position = 0, 0

    def take(length: int) -> bytes:
        nonlocal position
        position += length
        if position > len(data):
            raise IndexError
        return data[position - length : position]

    while position < len(data):
        (octet,) = take(1)
        ip = ipaddress.ip_address(take(16 if octet & _IPV6 else 4))
        port = first_port if octet & _FIRST_PORT else int.from_bytes(take(2), "big")
        first_port = first_port or port
        kind = _KINDS[octet & len(_KINDS) - 1]
        yield Candidate(
            kind=kind,
            address=Address(str(ip), port),
            priority=priority(kind, int.from_bytes(take(2), "big")),
            foundation=str(octet >> _FOUNDATION_SHIFT),
        )


def _checksum(word: str, body: bytes) -> bytes:
    return hashlib.blake2s(body, digest_size=_CHECKSUM_LENGTH, person=word[5:].encode()).digest()


class ManualSignalling:
    """What people carry, as `quice.signal.Signalling`: a description each way, and nothing else."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.said: asyncio.Future[Description] = loop.create_future()
        """What is to be carried to the peer."""
        self._incoming: asyncio.Queue[Message | None] = asyncio.Queue()

    async def send(self, message: Message) -> None:
        """See `Signalling`. All that follows a description stays here: nobody would carry it."""
        if isinstance(message, Description):
            self.said.set_result(message)

    def bring(self, *messages: Message) -> None:
        """These have been carried here. The peer says nothing more."""
        for message in (*messages, EndOfCandidates()):
            self._incoming.put_nowait(message)

    async def receive(self) -> Message:
        """See `Signalling`."""
        message = await self._incoming.get()
        if message is None:
            self._incoming.put_nowait(None)
            raise SignallingClosedError
        return message

    async def close(self) -> None:
        """See `Signalling`."""
        self._incoming.put_nowait(None)
