"""The names of peers, in a file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from quice.errors import PeerBookError, PeerNameError, UnknownPeerError
from quice.identity import Identity
from quice.peers import MAX_NAME, KnownPeer, PeerBook

LAPTOP, PHONE = (Identity.generate().peer for _ in range(2))
SERVERS = ("ws://192.0.2.1:4780", "wss://rendezvous.example.org")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "peers.json"


def test_a_peer_is_found_by_its_name_in_whatever_case_by_every_program(path: Path) -> None:
    assert list(PeerBook(path)) == []
    PeerBook(path).add(" Laptop", LAPTOP, SERVERS)
    PeerBook(path).add("phone", PHONE, ())
    laptop = KnownPeer("laptop", LAPTOP, SERVERS)
    assert PeerBook(path).find("LAPTOP") == laptop
    assert list(PeerBook(path)) == [laptop, KnownPeer("phone", PHONE, ())]
    assert PeerBook(path).name_of(PHONE) == "phone"
    assert PeerBook(path).name_of(Identity.generate().peer) is None


def test_nobody_else_can_read_the_file_and_nothing_is_left_beside_it(path: Path) -> None:
    old = os.umask(0)
    try:
        PeerBook(path).add("laptop", LAPTOP, ())
        PeerBook(path).add("phone", PHONE, ())
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_peer_has_one_name_and_a_name_one_peer(path: Path) -> None:
    book = PeerBook(path)
    book.add("laptop", LAPTOP, ())
    book.add("work", LAPTOP, SERVERS)
    assert list(book) == [KnownPeer("work", LAPTOP, SERVERS)]
    book.add("work", PHONE, ())
    assert list(book) == [KnownPeer("work", PHONE, ())]


def test_a_peer_that_is_removed_is_unknown(path: Path) -> None:
    book = PeerBook(path)
    book.add("laptop", LAPTOP, ())
    assert book.remove("Laptop").peer == LAPTOP
    with pytest.raises(UnknownPeerError):
        book.remove("laptop")


def test_who_mistypes_a_name_is_told_which_may_be_meant(path: Path) -> None:
    book = PeerBook(path)
    book.add("laptop", LAPTOP, ())
    with pytest.raises(UnknownPeerError, match="perhaps 'laptop'"):
        book.find("labtop")
    with pytest.raises(UnknownPeerError, match=r"'printer'\. `quice peers`"):
        book.find("printer")


@pytest.mark.parametrize("name", ["", " ", "-x", ".x", "a b", "a/b", "a\nb", "x" * (MAX_NAME + 1), "a\x1b[31m"])
def test_what_can_be_no_name_is_refused(path: Path, name: str) -> None:
    with pytest.raises(PeerNameError):
        PeerBook(path).add(name, LAPTOP, ())
    assert not path.exists()


@pytest.mark.parametrize("name", ["x", "Bürorechner", "host.local", "nas-2", "x" * MAX_NAME])
def test_names_are_what_machines_are_called(path: Path, name: str) -> None:
    assert PeerBook(path).add(name, LAPTOP, ()).name == name.lower()


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ("Laptop", "laptop-2"),
        ("my nas", "my-nas"),
        ("\x1b[31m", "31m"),
        ("", "peer"),
        ("..", "peer"),
        ("x" * 300, "x" * 60),
    ],
)
def test_the_name_that_a_peer_wants_becomes_one_that_is_free(path: Path, wanted: str, name: str) -> None:
    book = PeerBook(path)
    book.add("laptop", LAPTOP, ())
    assert book.free_name(wanted) == name
    assert book.add(name, PHONE, ()).name == name


@pytest.mark.parametrize("content", [b"", b"[]", b'{"laptop": {"peer": "me"}}', b'{"laptop": 1}', b"\xff"])
def test_a_file_that_holds_something_else_is_left_alone(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    for attempt in (lambda: list(PeerBook(path)), lambda: PeerBook(path).add("laptop", LAPTOP, ())):
        with pytest.raises(PeerBookError, match="Mend the file"):
            attempt()
    assert path.read_bytes() == content


def test_what_cannot_be_stored_leaves_what_was_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = PeerBook(path)
    book.add("laptop", LAPTOP, ())

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PeerBookError, match="No space left"):
        book.add("phone", PHONE, ())
    assert list(book) == [KnownPeer("laptop", LAPTOP, ())]
    assert list(path.parent.iterdir()) == [path]
