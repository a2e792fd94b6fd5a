"""Files and folders that arrive as they were sent."""

from __future__ import annotations

import os
import time
from pathlib import Path

from quice.transfer.receiver import Received, fetch
from quice.transfer.sender import serve_stream
from quice.transfer.sources import collect
from tests.transfer.conftest import Loopback, nothing, tree


async def test_files_and_folders_of_every_shape_arrive_as_they_are(loopback: Loopback, source: Path, out: Path) -> None:
    (source / "empty folder").mkdir()
    (source / "deep" / "er").mkdir(parents=True)
    (source / "deep" / "er" / "small").write_bytes(b"s")
    (source / "empty").write_bytes(b"")
    (source / "one block").write_bytes(os.urandom(1 << 20))
    (source / "large").write_bytes(os.urandom((5 << 20) + 1))
    (source / "größe 👨‍👩‍👧 می‌خواهم").write_bytes(b"names are text")
    (source.parent / "single").write_bytes(b"beside the folder")

    sent, received = await loopback.transfer([source, source.parent / "single"], out)

    assert tree(out) == {"source": None, "single": b"beside the folder"} | {
        f"source/{name}": content for name, content in tree(source).items()
    }
    assert sent == sum(len(content) for content in tree(out).values() if content)
    assert sorted(received.paths) == sorted(path for path in out.rglob("*") if path.is_file())


async def test_the_executable_bit_is_kept_and_no_other(loopback: Loopback, source: Path, out: Path) -> None:
    for name, mode in (("program", 0o755), ("setuid", 0o4755), ("data", 0o666)):
        (source / name).write_bytes(b"#!/bin/sh\n")
        (source / name).chmod(mode)
    old = os.umask(0o022)
    try:
        await loopback.transfer([source], out)
    finally:
        os.umask(old)
    modes = {path.name: path.stat().st_mode & 0o7777 for path in (out / "source").iterdir()}
    assert modes == {"program": 0o755, "setuid": 0o755, "data": 0o644}


async def test_symbolic_links_and_pipes_in_a_folder_are_not_sent_and_told(
    loopback: Loopback, source: Path, out: Path
) -> None:
    (source / "file").write_bytes(b"x")
    (source / "link").symlink_to("/etc/passwd")
    (source / "loop").symlink_to(source)
    os.mkfifo(source / "pipe")
    await loopback.transfer([source], out)
    assert tree(out) == {"source": None, "source/file": b"x"}
    assert {(path.name, why) for path, why in loopback.skipped} == {
        ("link", "a symbolic link"),
        ("loop", "a symbolic link"),
        ("pipe", "neither a file nor a folder"),
    }


async def test_a_link_that_was_named_is_followed_and_keeps_its_name(
    loopback: Loopback, source: Path, out: Path
) -> None:
    (source / "release-1.2").write_bytes(b"twelve")
    (source / "latest").symlink_to("release-1.2")
    await loopback.transfer([source / "latest"], out)
    assert tree(out) == {"latest": b"twelve"}


async def test_two_thousand_small_files_take_seconds(loopback: Loopback, source: Path, out: Path) -> None:
    for number in range(2000):
        (source / f"{number}").write_bytes(b"%d" % number)
    started = time.monotonic()
    await loopback.transfer([source], out)
    seconds = time.monotonic() - started
    assert tree(out / "source") == tree(source)
    assert seconds < 20


async def test_what_is_there_and_the_same_is_not_sent_again(loopback: Loopback, source: Path, out: Path) -> None:
    (source / "a").write_bytes(os.urandom(2 << 20))
    (source / "b").write_bytes(b"")
    await loopback.transfer([source], out)
    before = {path: path.stat().st_ino for path in out.rglob("*")}
    sent, received = await loopback.transfer([source], out)
    assert sent == 0
    assert {path: path.stat().st_ino for path in out.rglob("*")} == before
    assert sorted(received.paths) == [out / "source" / "a", out / "source" / "b"]


async def test_a_different_file_is_left_alone_and_the_new_one_numbered(
    loopback: Loopback, source: Path, out: Path
) -> None:
    (source / "a.txt").write_bytes(b"new")
    out.mkdir()
    (out / "a.txt").write_bytes(b"old")
    (out / "a (1).txt").symlink_to("nowhere")
    _, received = await loopback.transfer([source / "a.txt"], out)
    assert received.paths == [out / "a (2).txt"]
    assert (out / "a.txt").read_bytes() == b"old"
    assert (out / "a (2).txt").read_bytes() == b"new"
    # Once more: it is there by now.
    sent, received = await loopback.transfer([source / "a.txt"], out)
    assert (sent, received.paths) == (0, [out / "a (2).txt"])


async def test_overwrite_replaces_files_and_links_but_not_what_links_lead_to(
    loopback: Loopback, source: Path, out: Path, tmp_path: Path
) -> None:
    (source / "a").write_bytes(b"new a")
    (source / "b").write_bytes(b"new b")
    (tmp_path / "precious").write_bytes(b"precious")
    (out / "source").mkdir(parents=True)
    (out / "source" / "a").write_bytes(b"old a, longer")
    (out / "source" / "b").symlink_to(tmp_path / "precious")
    await loopback.transfer([source], out, overwrite=True)
    assert tree(out / "source") == {"a": b"new a", "b": b"new b"}
    assert not (out / "source" / "b").is_symlink()
    assert (tmp_path / "precious").read_bytes() == b"precious"


async def test_files_are_offered_as_they_are_when_the_receiver_comes(
    loopback: Loopback, source: Path, out: Path
) -> None:
    file = source / "log"
    file.write_bytes(b"one line")
    sources = collect([file], lambda *_: None)
    file.write_bytes(b"one line, and another")
    outcome = await loopback.play(
        lambda stream: serve_stream(stream, sources, nothing), lambda stream: fetch(stream, out, nothing)
    )
    assert isinstance(outcome.received, Received)
    assert (out / "log").read_bytes() == b"one line, and another"


async def test_progress_ends_with_all_of_the_bytes_on_both_sides(loopback: Loopback, source: Path, out: Path) -> None:
    (source / "a").write_bytes(bytes(3 << 20))
    (source / "b").write_bytes(b"12345")
    sources = collect([source], lambda *_: None)
    sending: list[tuple[int, int]] = []
    receiving: list[tuple[int, int]] = []
    await loopback.play(
        lambda stream: serve_stream(stream, sources, lambda *step: sending.append(step)),
        lambda stream: fetch(stream, out, lambda *step: receiving.append(step)),
    )
    total = (3 << 20) + 5
    for steps in (sending, receiving):
        assert steps[-1] == (total, total)
        assert steps == sorted(steps)
