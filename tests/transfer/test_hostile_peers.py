"""Peers that break the protocol get one error, and nothing of theirs is kept under a final name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from blake3 import blake3

from quice import Stream
from quice.errors import (
    DigestError,
    Error,
    LocalFileError,
    RemoteFileError,
    TransferProtocolError,
    UnsafePathError,
    WrongTicketError,
)
from quice.transfer.messages import (
    MAX_MESSAGE,
    Done,
    Entry,
    EntryKind,
    Fetch,
    FileHeader,
    Manifest,
    Message,
    Want,
    Wants,
    expect,
    frame,
)
from quice.transfer.paths import PARTIAL
from quice.transfer.receiver import fetch
from quice.transfer.sender import serve_stream
from quice.transfer.sources import collect
from tests.transfer.conftest import Loopback, nothing, tree
from tests.transfer.test_paths import UNSAFE

CONTENT = b"content"
FILE = Entry(EntryKind.FILE, "file", len(CONTENT))


def offering(entries: Sequence[Entry], *answers: bytes) -> Sender:
    return Sender(entries, answers)


class Sender:
    """A sender that offers these entries, and then sends these bytes whatever is wanted."""

    def __init__(self, entries: Sequence[Entry], answers: Sequence[bytes]) -> None:
        self.entries = list(entries)
        self.answers = answers

    async def __call__(self, stream: Stream) -> None:
        await expect(stream, Fetch)
        await stream.write(frame(Manifest(entries=self.entries)))
        await expect(stream, Wants)
        await stream.write(b"".join(self.answers))
        stream.finish()


def no_file(out: Path) -> bool:
    """Whether nothing is in the target but, perhaps, the unfinished."""
    return not out.exists() or all(PARTIAL in path.parts for path in out.rglob("*"))


@pytest.mark.parametrize("path", [path for path in UNSAFE if "\ud800" not in path], ids=repr)
async def test_nothing_is_written_when_one_name_is_unsafe(loopback: Loopback, out: Path, path: str) -> None:
    error = await loopback.receive_from(offering([FILE, Entry(EntryKind.FILE, path, 1)]), out)
    assert isinstance(error, UnsafePathError)
    assert not out.exists()


@pytest.mark.parametrize(
    "entries",
    [
        [FILE, FILE],
        [FILE, Entry(EntryKind.FOLDER, "file")],
        [
            Entry(EntryKind.FILE, "\N{LATIN SMALL LETTER E WITH ACUTE}"),
            Entry(EntryKind.FILE, "e\N{COMBINING ACUTE ACCENT}"),
        ],
        [Entry(EntryKind.FILE, "negative", -1)],
        [Entry(EntryKind.FILE, "more than there is", 1 << 63)],
    ],
    ids=["twice", "file and folder", "two spellings", "negative size", "huge size"],
)
async def test_an_impossible_manifest_is_refused(loopback: Loopback, out: Path, entries: list[Entry]) -> None:
    error = await loopback.receive_from(offering(entries), out)
    assert isinstance(error, UnsafePathError | TransferProtocolError)
    assert not out.exists()


async def test_a_file_below_a_file_is_refused(loopback: Loopback, out: Path) -> None:
    entries = [FILE, Entry(EntryKind.FILE, "file/below", 1)]
    error = await loopback.receive_from(
        offering(entries, frame(FileHeader(index=0, offset=0)), CONTENT, blake3(CONTENT).digest()), out
    )
    assert isinstance(error, Error)
    assert not (out / "file").is_file()


async def test_a_folder_that_is_a_link_in_the_target_is_not_followed(
    loopback: Loopback, out: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    out.mkdir()
    (out / "link").symlink_to(elsewhere)
    error = await loopback.receive_from(offering([Entry(EntryKind.FILE, "link/file", 1)]), out)
    assert isinstance(error, UnsafePathError)
    assert list(elsewhere.iterdir()) == []


async def test_a_place_for_unfinished_files_that_is_a_link_is_not_followed(
    loopback: Loopback, out: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    out.mkdir()
    (out / PARTIAL).symlink_to(elsewhere)
    error = await loopback.receive_from(offering([FILE]), out)
    assert isinstance(error, UnsafePathError)
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("size", [len(CONTENT), 3 << 20], ids=["small", "large"])
async def test_a_wrong_digest_leaves_nothing_behind(loopback: Loopback, out: Path, size: int) -> None:
    sender = offering(
        [Entry(EntryKind.FILE, "file", size)], frame(FileHeader(index=0, offset=0)), bytes(size), bytes(32)
    )
    assert isinstance(await loopback.receive_from(sender, out), DigestError)
    assert no_file(out)
    assert list((out / PARTIAL).iterdir()) == []


async def test_a_sender_that_confirms_a_file_it_does_not_have_is_caught(loopback: Loopback, out: Path) -> None:
    out.mkdir()
    (out / "file").write_bytes(b"changed")
    sender = offering([FILE], frame(FileHeader(index=0, offset=len(CONTENT))), blake3(CONTENT).digest())
    assert isinstance(await loopback.receive_from(sender, out), DigestError)
    assert tree(out)["file"] == b"changed"


HEADER = frame(FileHeader(index=0, offset=0))


@pytest.mark.parametrize(
    "answers",
    [
        [frame(FileHeader(index=1, offset=0))],
        [frame(FileHeader(index=-1, offset=0))],
        [frame(FileHeader(index=0, offset=3))],
        [frame(FileHeader(index=0, offset=-1))],
        [frame(Done())],
        [b"\x00\x00\x00\x01\xc1"],
        [b"\x00\x00\x00\x00"],
        [(MAX_MESSAGE + 1).to_bytes(4, "big")],
        [b"\xff\xff\xff\xff"],
        [],
        [HEADER[:3]],
        [HEADER],
        [HEADER, CONTENT[:3]],
        [HEADER, CONTENT],
        [HEADER, CONTENT, bytes(31)],
    ],
    ids=[
        "another file",
        "a negative index",
        "an offset that was not asked for",
        "a negative offset",
        "another message",
        "no MessagePack",
        "an empty message",
        "a message over the limit",
        "4 GB of message",
        "nothing",
        "a part of a header",
        "no content",
        "a part of the content",
        "no digest",
        "a part of a digest",
    ],
)
async def test_a_sender_that_breaks_the_protocol_gets_nothing_stored(
    loopback: Loopback, out: Path, answers: list[bytes]
) -> None:
    error = await loopback.receive_from(offering([FILE], *answers), out)
    assert isinstance(error, TransferProtocolError)
    assert no_file(out)


async def test_a_large_file_that_ends_in_the_middle_is_kept_to_go_on(loopback: Loopback, out: Path) -> None:
    size = 5 << 20
    sender = offering([Entry(EntryKind.FILE, "file", size)], HEADER, bytes(2 << 20))
    assert isinstance(await loopback.receive_from(sender, out), TransferProtocolError)
    assert no_file(out)
    assert [path.stat().st_size for path in (out / PARTIAL).iterdir()] == [2 << 20]


async def test_the_words_of_the_other_side_are_cut_to_size(loopback: Loopback, out: Path) -> None:
    async def sender(stream: Stream) -> None:
        stream.connection.close(1, "words " * 150)

    error = await loopback.receive_from(sender, out)
    assert isinstance(error, RemoteFileError)
    assert len(str(error)) < 500


@pytest.fixture
def offered(tmp_path: Path) -> Path:
    """A folder with a file to send."""
    folder = tmp_path / "offered"
    folder.mkdir()
    (folder / "file").write_bytes(os.urandom(1000))
    return folder


def wanting(*messages: Message) -> Receiver:
    return Receiver(messages)


class Receiver:
    """A receiver that says these things, and reads whatever comes."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = messages
        self.got = b""

    async def __call__(self, stream: Stream) -> None:
        await stream.write(b"".join(map(frame, self.messages)))
        stream.finish()
        try:
            while block := await stream.read():
                self.got += block
        except Error:
            return


@pytest.mark.parametrize(
    "messages",
    [
        [Done()],
        [Fetch(version=2)],
        [Fetch(), Fetch()],
        [Fetch(), Wants(wants=[Want(2)])],
        [Fetch(), Wants(wants=[Want(-1)])],
        [Fetch(), Wants(wants=[Want(0)])],
        [Fetch(), Wants(wants=[Want(1), Want(1)])],
        [Fetch()],
        [Fetch(), Wants(wants=[Want(1)])],
        [Fetch(), Wants(wants=[Want(1)]), Wants(wants=[])],
    ],
    ids=[
        "another message",
        "another version",
        "twice",
        "what is not offered",
        "a negative index",
        "a folder",
        "a file twice",
        "nothing more",
        "no done",
        "something else than done",
    ],
)
async def test_a_receiver_that_breaks_the_protocol_ends_with_one_error(
    loopback: Loopback, offered: Path, messages: list[Message]
) -> None:
    assert isinstance(await loopback.send_to(wanting(*messages), offered), TransferProtocolError)


@pytest.mark.parametrize(
    "want",
    [Want(1, -5, bytes(32)), Want(1, 1 << 62, bytes(32)), Want(1, 500, b""), Want(1, 500, b"x" * 5000)],
    ids=["negative", "beyond the end", "no digest", "a long digest"],
)
async def test_a_prefix_that_is_not_the_files_is_answered_with_the_whole(
    loopback: Loopback, offered: Path, want: Want
) -> None:
    receiver = wanting(Fetch(), Wants(wants=[want]), Done())
    assert await loopback.send_to(receiver, offered) == 1000
    content = (offered / "file").read_bytes()
    assert receiver.got.endswith(frame(FileHeader(index=1, offset=0)) + content + blake3(content).digest())


@pytest.mark.parametrize("secret", [b"", b"y" * 16, b"x" * 15, b"x" * 17])
async def test_a_receiver_without_the_tickets_secret_learns_nothing(
    loopback: Loopback, offered: Path, out: Path, secret: bytes
) -> None:
    sources = collect([offered], lambda *_: None)
    outcome = await loopback.play(
        lambda stream: serve_stream(stream, sources, nothing, secret=b"x" * 16),
        lambda stream: fetch(stream, out, nothing, secret=secret),
    )
    assert isinstance(outcome.sent, WrongTicketError)
    assert isinstance(outcome.received, RemoteFileError)
    assert "ticket" in str(outcome.received)
    assert not out.exists()


async def test_an_error_of_the_receivers_disk_is_told_on_both_sides(
    loopback: Loopback, offered: Path, out: Path
) -> None:
    out.mkdir()
    (out / "offered").write_bytes(b"a file in the way of the folder")
    sources = collect([offered], lambda *_: None)
    outcome = await loopback.play(
        lambda stream: serve_stream(stream, sources, nothing), lambda stream: fetch(stream, out, nothing)
    )
    assert isinstance(outcome.received, LocalFileError)
    assert str(out / "offered") in str(outcome.received)
    assert isinstance(outcome.sent, RemoteFileError)
    assert "offered: File exists" in str(outcome.sent)
    assert str(out) not in str(outcome.sent)


async def test_a_source_that_has_gone_is_told_on_both_sides(loopback: Loopback, offered: Path, out: Path) -> None:
    sources = collect([offered], lambda *_: None)
    (offered / "file").unlink()
    outcome = await loopback.play(
        lambda stream: serve_stream(stream, sources, nothing), lambda stream: fetch(stream, out, nothing)
    )
    assert isinstance(outcome.sent, LocalFileError)
    assert isinstance(outcome.received, RemoteFileError)
    assert "file: No such file" in str(outcome.received)
    assert str(offered) not in str(outcome.received)
