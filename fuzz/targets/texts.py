"""Texts that people paste and that other machines name: tickets, peer ids, paths, candidates; and a book of peers."""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path, PurePath

from fuzz.target import Target, parser, require
from quice.errors import DescriptionError, InvalidPeerIdError, PeerBookError, TicketError, UnsafePathError
from quice.ice import Candidate, CandidateKind
from quice.ice.sdp import SdpDecodeError, format_candidate, parse_candidate
from quice.identity import PeerId
from quice.peers import KnownPeer, PeerBook
from quice.signal import manual
from quice.signal.messages import Answer, Offer
from quice.ticket import Ticket
from quice.transfer.paths import parts_of
from quice.wire import Address

_PEER = PeerId(bytes(range(32)))
_TICKETS = tuple(
    str(Ticket(_PEER, server)).encode()
    for server in ("ws://192.0.2.1:8765", "wss://rendezvous.example.org/path", "ws://[2001:db8::1]:80")
)
_OFFERED = manual.WrittenOffer(
    _PEER,
    Offer(
        version=1,
        ufrag="0123abcd",
        pwd="0123456789abcdef" * 2,
        alpn="chat/1",
        candidates=(
            Candidate(kind=CandidateKind.HOST, address=Address("fe80::7", 6000), priority=2130706431, foundation="a"),
            Candidate(
                kind=CandidateKind.RELAYED, address=Address("203.0.113.7", 6000), priority=16777215, foundation="b"
            ),
        ),
    ),
)
_ANSWERED = manual.WrittenAnswer(_PEER, Answer(ufrag="0123abcd", pwd="0123456789abcdef" * 2), _OFFERED.tag)
_PATHS = (
    b"file.txt",
    b"folder/file.tar.gz",
    "Gr\u00fc\u00dfe/\u65e5\u672c\u8a9e/e\u0301".encode(),
    b"../secret",
    b"/etc/passwd",
    b"C:\\Windows\\System32",
    b"a/./b//c",
    b"com1.txt/NUL/lpt9",
    b".quice-partial/x",
    b"trailing./space /x",
    b"name:stream",
    b"con\xc2\xa0/aux\xc2\xb9",
)
_CANDIDATES = (
    b"candidate:1 1 udp 2130706431 192.0.2.1 5000 typ host",
    b"a=candidate:2 1 UDP 1694498815 203.0.113.7 40000 typ srflx raddr 192.168.1.11 rport 5000 generation 0",
    b"3 1 udp 2130706175 2001:db8::7 6000 typ host",
    b"4 1 udp 16777215 fe80::1%eth0 1 typ relay raddr :: rport 9",
)


def _text(data: bytes) -> str:
    """Any bytes as a text, as Python reads them from a command line: with lone surrogates for what is no UTF-8."""
    return data.decode("utf-8", "surrogateescape")


def _any_letters(rng: random.Random, data: bytes) -> bytes:
    """Letters that normalise, case-fold or print in surprising ways, put in somewhere."""
    at = rng.randrange(len(data) + 1)
    letter = rng.choice("\u0130\u0131\u00df\u212a\u017f\u2024\u2025\uff0e\uff0f\u2215\u202e\u200b\ufeff\0\n\x7f\u0085")
    return data[:at] + letter.encode() + data[at:]


def _check_ticket(ticket: Ticket, data: bytes) -> None:
    require(Ticket.parse(str(ticket)) == ticket, "a ticket changed on its way through its text")
    require(str(ticket).isascii() and str(ticket).isprintable(), "a ticket that can't be printed")


def _check_peer(peer: PeerId, data: bytes) -> None:
    """There is one text for one key, but for its case and the space around it."""
    require(str(peer) == _text(data).strip().lower(), f"read as {peer}")


def _check_path(parts: tuple[str, ...], data: bytes) -> None:
    """The path stays below the target."""
    target = PurePath("/target")
    path = target.joinpath(*parts)
    require(path.parts[: len(target.parts)] == target.parts, f"{path} leaves the target")
    require(len(path.parts) == len(target.parts) + len(parts), f"{path} has another depth")
    require(".." not in path.parts, f"{path} climbs")
    require(not any(c in part for part in parts for c in "\0\n\x7f"), "control characters")


def _check_candidate(candidate: Candidate | None, data: bytes) -> None:
    if candidate is not None:
        require(parse_candidate(format_candidate(candidate)) == candidate, f"{candidate} changed on its way")


_BOOK = json.dumps({"laptop": {"peer": str(_PEER), "servers": ["ws://192.0.2.1"]}, "nas": {"peer": str(_PEER)}})


def _read_book(data: bytes) -> list[KnownPeer]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "peers.json"
        path.write_bytes(data)
        known = list(PeerBook(path))
        PeerBook(path).add("desktop", PeerId(bytes(32)), ())
        again = [each for each in PeerBook(path) if each.name != "desktop"]
        require([each for each in known if each.name != "desktop" and each.peer.key != bytes(32)] == again, "lost some")
        return known


Written = manual.WrittenOffer | manual.WrittenAnswer


def _check_written(written: Written, data: bytes) -> None:
    """It is written again, as short, and says the same."""
    text = str(written)
    require(len(text) <= manual.MAX_TEXT and text.isalnum(), f"{text} can't be copied")
    again = type(written).parse(text)
    require(again.peer == written.peer, "another peer")
    require(str(again) == str(type(written).parse(str(again))), "a text that never settles")


def _written(kind: type[Written], sample: Written, word: str) -> tuple[Target, Target]:
    """Its text, and its content with a checksum that is right."""
    return (
        parser(word, (str(sample).encode(),), lambda data: kind.parse(_text(data)), DescriptionError, _check_written),
        parser(
            f"{word}-content",
            (manual.content(word, str(sample)),),
            lambda data: kind.parse(manual.spelt(word, data)),
            DescriptionError,
            _check_written,
        ),
    )


TARGETS = (
    *_written(manual.WrittenOffer, _OFFERED, manual.OFFER),
    *_written(manual.WrittenAnswer, _ANSWERED, manual.ANSWER),
    parser("peer-book", (_BOOK.encode(),), _read_book, PeerBookError),
    parser("ticket", _TICKETS, lambda data: Ticket.parse(_text(data)), TicketError, _check_ticket, _any_letters),
    parser(
        "peer-id",
        (str(_PEER).encode(),),
        lambda data: PeerId.parse(_text(data)),
        InvalidPeerIdError,
        _check_peer,
        _any_letters,
    ),
    parser("transfer-path", _PATHS, lambda data: parts_of(_text(data)), UnsafePathError, _check_path, _any_letters),
    parser(
        "candidate-line",
        _CANDIDATES,
        lambda data: parse_candidate(_text(data)),
        SdpDecodeError,
        _check_candidate,
        _any_letters,
    ),
)
