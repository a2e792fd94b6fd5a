"""What is found to be sent."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from quice.errors import LocalFileError
from quice.transfer.messages import EntryKind
from quice.transfer.sources import collect, refresh


def ignore(path: Path, why: str) -> None:
    raise AssertionError(f"{path} was skipped: {why}")


def test_folders_come_before_what_they_hold(source: Path) -> None:
    (source / "a" / "b").mkdir(parents=True)
    (source / "a" / "b" / "c").write_bytes(b"c")
    (source / "z").write_bytes(b"")
    paths = [item.entry.path for item in collect([source], ignore)]
    assert paths == ["source", "source/a", "source/a/b", "source/a/b/c", "source/z"]


def test_the_current_folder_has_its_name(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(source)
    (item,) = collect([Path()], ignore)
    assert (item.entry.kind, item.entry.path) == (EntryKind.FOLDER, "source")


def test_a_search_that_is_told_to_stop_does(source: Path) -> None:
    for number in range(50):
        (source / f"{number:02}").touch()
    (source / "00").unlink()
    (source / "00").symlink_to("nowhere")
    stop = threading.Event()
    assert collect([source], lambda *_: stop.set(), stop) == collect([source], lambda *_: None)[:1]


def test_a_tree_deeper_than_pythons_recursion_is_walked(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(source)
    for _ in range(1200):
        os.mkdir("d")
        os.chdir("d")
    with monkeypatch.context() as elsewhere:
        elsewhere.chdir(source)
        assert len(collect([source], ignore)) == 1201
    # shutil.rmtree, which pytest cleans up with, does recurse.
    for _ in range(1200):
        os.chdir("..")
        os.rmdir("d")


def test_what_is_not_there_is_named(source: Path) -> None:
    with pytest.raises(LocalFileError, match="nowhere: there is no such file or folder"):
        collect([source / "nowhere"], ignore)


def test_a_dangling_link_and_a_circle_of_links_are_named(source: Path) -> None:
    (source / "dangling").symlink_to("nowhere")
    (source / "circle").symlink_to("circle")
    for name in ("dangling", "circle"):
        with pytest.raises(LocalFileError, match=str(source)):
            collect([source / name], ignore)


def test_two_things_of_one_name_are_refused(source: Path) -> None:
    (source / "x").write_bytes(b"")
    (source / "d").mkdir()
    (source / "d" / "x").write_bytes(b"")
    with pytest.raises(LocalFileError, match="same name"):
        collect([source / "x", source / "d" / "x"], ignore)


@pytest.mark.parametrize("name", [b"latin-1 \xe9", b"new\nline", b"back\\slash"], ids=repr)
def test_a_name_that_no_receiver_takes_is_refused_before_anybody_comes(source: Path, name: bytes) -> None:
    (source / os.fsdecode(name)).write_bytes(b"")
    with pytest.raises(LocalFileError, match="its name can't be sent"):
        collect([source], ignore)


def test_a_folder_that_may_not_be_read_is_named(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = source / "closed"
    closed.mkdir()
    readable = os.listdir

    def listdir(path: Path) -> list[str]:
        # Root may read everything, so that no mode of the folder serves for the test.
        if path == closed:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return readable(path)

    monkeypatch.setattr(os, "listdir", listdir)
    with pytest.raises(LocalFileError, match="closed: Permission denied"):
        collect([source], ignore)


def test_a_file_that_has_gone_or_become_a_link_is_not_offered(source: Path) -> None:
    file = source / "file"
    file.write_bytes(b"x")
    sources = collect([file], ignore)
    file.unlink()
    with pytest.raises(LocalFileError, match="file: No such file"):
        refresh(sources)
    file.symlink_to("/etc/passwd")
    with pytest.raises(LocalFileError, match="no file any more"):
        refresh(sources)
