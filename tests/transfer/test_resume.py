"""Transfers that are interrupted, and go on."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from pathlib import Path

import pytest

from quice import Stream
from quice.errors import LocalFileError, RemoteFileError, RemoteInterruptedError
from quice.transfer.paths import PARTIAL
from quice.transfer.receiver import fetch
from quice.transfer.sender import serve_stream
from quice.transfer.sources import collect
from tests.transfer.conftest import Loopback, Outcome, nothing, tree

SIZE = 24 << 20


class KilledError(Exception):
    """The receiver dies here."""


async def interrupt(loopback: Loopback, paths: list[Path], out: Path, after: int) -> Outcome:
    """Begin to receive, and die after so many bytes."""
    sources = collect(paths, lambda *_: None)

    def die(done: int, total: int) -> None:
        if done >= after:
            raise KilledError

    return await loopback.play(
        lambda stream: serve_stream(stream, sources, nothing), lambda stream: fetch(stream, out, die)
    )


def partial_of(out: Path) -> Path:
    (partial,) = (out / PARTIAL).iterdir()
    return partial


@pytest.fixture
def large(source: Path) -> Path:
    """A file that takes several blocks."""
    path = source / "large"
    path.write_bytes(os.urandom(SIZE))
    return path


async def test_it_goes_on_where_it_was_and_cleans_up(loopback: Loopback, large: Path, out: Path) -> None:
    outcome = await interrupt(loopback, [large], out, SIZE // 2)
    assert isinstance(outcome.received, KilledError)
    assert not (out / "large").exists()
    kept = partial_of(out).stat().st_size
    assert kept >= SIZE // 2 - (2 << 20)
    sent, _ = await loopback.transfer([large], out)
    assert sent == SIZE - kept
    assert tree(out) == {"large": large.read_bytes()}


async def test_the_files_that_were_done_are_not_sent_again(
    loopback: Loopback, source: Path, large: Path, out: Path
) -> None:
    (source / "first").write_bytes(bytes(3 << 20))
    await interrupt(loopback, [source / "first", large], out, (3 << 20) + SIZE // 2)
    assert (out / "first").exists()
    sent, _ = await loopback.transfer([source / "first", large], out)
    assert sent < SIZE
    assert (out / "first").read_bytes() == bytes(3 << 20)
    assert (out / "large").read_bytes() == large.read_bytes()


async def test_a_numbered_file_that_was_done_is_not_sent_again(
    loopback: Loopback, source: Path, large: Path, out: Path
) -> None:
    (source / "a").write_bytes(b"new!" * 100)
    out.mkdir()
    (out / "a").write_bytes(b"old")
    await interrupt(loopback, [source / "a", large], out, SIZE // 2)
    await loopback.transfer([source / "a", large], out)
    assert tree(out).keys() == {"a", "a (1)", "large"}


async def test_a_source_that_changed_meanwhile_is_sent_anew(loopback: Loopback, large: Path, out: Path) -> None:
    await interrupt(loopback, [large], out, SIZE // 2)
    with open(large, "r+b") as file:
        file.write(b"changed")
    sent, _ = await loopback.transfer([large], out)
    assert sent == SIZE
    assert (out / "large").read_bytes() == large.read_bytes()


async def test_a_source_that_shrank_below_what_was_received_is_right_in_the_end(
    loopback: Loopback, large: Path, out: Path
) -> None:
    await interrupt(loopback, [large], out, SIZE // 2)
    content = large.read_bytes()[: 2 << 20]
    large.write_bytes(content)
    await loopback.transfer([large], out)
    assert tree(out) == {"large": content}


async def test_a_damaged_unfinished_file_is_not_trusted(loopback: Loopback, large: Path, out: Path) -> None:
    await interrupt(loopback, [large], out, SIZE // 2)
    with open(partial_of(out), "r+b") as file:
        file.seek(1 << 20)
        file.write(b"bit rot")
    sent, _ = await loopback.transfer([large], out)
    assert sent == SIZE
    assert (out / "large").read_bytes() == large.read_bytes()


async def test_an_unfinished_file_that_is_longer_than_the_source_is_cut(
    loopback: Loopback, large: Path, out: Path
) -> None:
    await interrupt(loopback, [large], out, SIZE // 2)
    partial_of(out).write_bytes(large.read_bytes() + b"and more")
    sent, _ = await loopback.transfer([large], out)
    assert sent == 0
    assert (out / "large").read_bytes() == large.read_bytes()


async def test_a_link_in_the_place_of_an_unfinished_file_is_not_followed(
    loopback: Loopback, large: Path, out: Path, tmp_path: Path
) -> None:
    await interrupt(loopback, [large], out, SIZE // 2)
    partial = partial_of(out)
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    partial.unlink()
    partial.symlink_to(precious)
    sources = collect([large], lambda *_: None)
    outcome = await loopback.play(
        lambda stream: serve_stream(stream, sources, nothing), lambda stream: fetch(stream, out, nothing)
    )
    assert isinstance(outcome.received, LocalFileError)
    assert precious.read_bytes() == b"precious"


async def test_replacing_a_file_of_the_same_size_goes_on_where_it_was_too(
    loopback: Loopback, large: Path, out: Path
) -> None:
    out.mkdir()
    (out / "large").write_bytes(bytes(SIZE))
    await interrupt(loopback, [large], out, SIZE // 2)
    sent, _ = await loopback.transfer([large], out, overwrite=True)
    assert sent < SIZE
    assert tree(out) == {"large": large.read_bytes()}


async def test_nothing_is_under_its_final_name_before_it_is_whole(loopback: Loopback, large: Path, out: Path) -> None:
    seen: list[bool] = []
    sources = collect([large], lambda *_: None)
    await loopback.play(
        lambda stream: serve_stream(stream, sources, nothing),
        lambda stream: fetch(stream, out, lambda done, _: seen.append(done < SIZE and (out / "large").exists())),
    )
    assert len(seen) > SIZE >> 20
    assert not any(seen)
    assert (out / "large").exists()


async def test_a_source_that_changes_while_it_is_sent_is_not_stored(loopback: Loopback, large: Path, out: Path) -> None:
    sources = collect([large], lambda *_: None)

    def change(done: int, total: int) -> None:
        if done == 4 << 20:
            with open(large, "r+b") as file:
                file.seek(1 << 20)
                file.write(b"changed behind the reader")

    outcome = await loopback.play(
        lambda stream: serve_stream(stream, sources, change), lambda stream: fetch(stream, out, nothing)
    )
    assert isinstance(outcome.sent, LocalFileError)
    assert isinstance(outcome.received, RemoteFileError)
    assert "large: it changed while it was sent" in str(outcome.received)
    assert not (out / "large").exists()
    await loopback.transfer([large], out)
    assert (out / "large").read_bytes() == large.read_bytes()


async def test_a_source_that_is_cut_short_while_it_is_sent_is_told_on_both_sides(
    loopback: Loopback, large: Path, out: Path
) -> None:
    sources = collect([large], lambda *_: None)

    def cut(done: int, total: int) -> None:
        os.truncate(large, 1 << 20)

    outcome = await loopback.play(
        lambda stream: serve_stream(stream, sources, cut), lambda stream: fetch(stream, out, nothing)
    )
    assert isinstance(outcome.sent, LocalFileError)
    assert isinstance(outcome.received, RemoteFileError)
    assert not (out / "large").exists()


async def test_two_receivers_of_one_file_in_one_folder_do_not_mix_their_bytes(
    loopback: Loopback, large: Path, out: Path
) -> None:
    await interrupt(loopback, [large], out, SIZE // 2)
    with open(partial_of(out), "rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        sources = collect([large], lambda *_: None)
        outcome = await loopback.play(
            lambda stream: serve_stream(stream, sources, nothing), lambda stream: fetch(stream, out, nothing)
        )
    assert isinstance(outcome.received, LocalFileError)
    assert "another transfer is receiving it" in str(outcome.received)
    sent, _ = await loopback.transfer([large], out)
    assert sent < SIZE


async def test_a_receiver_that_is_cancelled_leaves_no_thread_at_work_and_tells_the_sender(
    loopback: Loopback, large: Path, out: Path
) -> None:
    sources = collect([large], lambda *_: None)
    begun = asyncio.Event()

    def progress(done: int, total: int) -> None:
        if done > SIZE // 4:
            begun.set()

    async def receive(stream: Stream) -> None:
        task = asyncio.create_task(fetch(stream, out, progress))
        await begun.wait()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()

    outcome = await loopback.play(lambda stream: serve_stream(stream, sources, nothing), receive)
    assert outcome.received is None
    assert isinstance(outcome.sent, RemoteInterruptedError)
    size = partial_of(out).stat().st_size
    sent, _ = await loopback.transfer([large], out)
    assert sent == SIZE - size
