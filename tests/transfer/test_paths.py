"""Names from the other side never lead out of the target folder."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quice.errors import LocalFileError, UnsafePathError
from quice.transfer.paths import make_folder, numbered, parts_of, place

UNSAFE = [
    "",
    "/",
    "/etc/passwd",
    "//server/share",
    "..",
    "../up",
    "down/../../up",
    "a/..",
    "./a",
    "a//b",
    "a/",
    "a\\b",
    "..\\up",
    "nul\0byte",
    "line\nbreak",
    "escape\x1b[2J",
    "delete\x7f",
    "turned \u202egpj.exe",
    ".quice-partial",
    ".quice-partial/a",
    ".QUICE-Partial/a",
    "x" * 256,
    "ä" * 128,
    "/".join(["d"] * 2049),
    "lone \ud800 surrogate",
]
UNSAFE_ON_WINDOWS = ["con", "NUL.txt", "a/Com1 .log", "c:", "c:evil", "c:/evil", "a:b", "dot.", "space ", "a?"]


@pytest.mark.parametrize("path", UNSAFE, ids=repr)
def test_a_path_that_is_not_plainly_below_the_target_is_refused(path: str) -> None:
    with pytest.raises(UnsafePathError) as caught:
        parts_of(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("path", UNSAFE_ON_WINDOWS)
def test_what_windows_understands_otherwise_is_refused_there_alone(path: str) -> None:
    with pytest.raises(UnsafePathError):
        parts_of(path, windows=True)
    assert parts_of(path, windows=False) == tuple(path.split("/"))


@pytest.mark.parametrize(
    "path", ["a", "a/b/c", "...", "..a", "a..", ".hidden", "x" * 255, "می‌خواهم", "👨‍👩‍👧.jpg", "a/.quice-partial"]
)
def test_ordinary_names_are_taken_as_they_are(path: str) -> None:
    assert parts_of(path, windows=False) == tuple(path.split("/"))


def test_names_are_composed_so_that_two_spellings_of_one_are_one() -> None:
    assert parts_of("cafe\N{COMBINING ACUTE ACCENT}") == parts_of("caf\N{LATIN SMALL LETTER E WITH ACUTE}")


@given(st.text(alphabet=st.sampled_from("a./\\:\0\n~ é\u202e\ud800"), max_size=12))
def test_whatever_the_text_the_result_is_below_the_target(text: str) -> None:
    target = Path("/target/folder")
    try:
        path = target.joinpath(*parts_of(text))
    except UnsafePathError:
        return
    assert ".." not in path.parts
    assert path != target
    assert target in path.parents


def test_folders_are_not_made_through_a_symbolic_link(tmp_path: Path) -> None:
    target, elsewhere = tmp_path / "target", tmp_path / "elsewhere"
    target.mkdir()
    elsewhere.mkdir()
    (target / "link").symlink_to(elsewhere)
    with pytest.raises(UnsafePathError):
        make_folder(target, ("link", "inside"))
    assert list(elsewhere.iterdir()) == []


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(LocalFileError, match="a: File exists"):
        make_folder(tmp_path, ("a", "b"))


def test_a_path_that_is_too_long_for_the_system_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(LocalFileError, match="too long"):
        make_folder(tmp_path, ("d" * 200,) * 30)


@pytest.mark.parametrize(
    ("name", "second"),
    [
        ("a.txt", "a (1).txt"),
        (".bashrc", ".bashrc (1)"),
        ("plain", "plain (1)"),
        ("x" * 255, "x" * 251 + " (1)"),
        ("ä" * 125 + ".txt", "ä" * 123 + " (1).txt"),
        ("a." + "x" * 253, "a." + "x" * 249 + " (1)"),
    ],
)
def test_numbered_names_keep_their_ending_and_fit_a_file_system(name: str, second: str) -> None:
    first, found = itertools.islice(numbered(Path("/t") / name), 2)
    assert (first.name, found.name) == (name, second)
    assert len(second.encode()) <= 255


def test_a_file_gets_the_first_free_name_and_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "a (1)").symlink_to("nowhere")
    (tmp_path / "partial").write_bytes(b"new")
    assert place(tmp_path / "partial", tmp_path / "a") == tmp_path / "a (2)"
    assert (tmp_path / "a").read_bytes() == b"old"
    assert (tmp_path / "a (1)").is_symlink()
    assert not (tmp_path / "partial").exists()


def test_without_hard_links_a_file_gets_the_first_free_name_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "partial").write_bytes(b"new")
    assert place(tmp_path / "partial", tmp_path / "a") == tmp_path / "a (1)"
    assert (tmp_path / "a").read_bytes() == b"old"
    assert (tmp_path / "a (1)").read_bytes() == b"new"
