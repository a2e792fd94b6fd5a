"""The driver of `interop`, and how it says that a meeting came to nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from interop import programs
from interop.play import PlayError, Side, meet
from interop.programs import QUICE, Program, pion_unavailable
from lab.story import ThisMachine

START = 'import sys; print(\'{"type": "ready"}\', flush=True); sys.stdin.readline(); '
SELECTS = START + 'print(\'{"type": "selected"}\', flush=True); sys.stdin.readline(); '
HERE = ThisMachine()


def scripted(text: str) -> Side:
    return Side(Program("scripted", (sys.executable, "-c", text)), HERE, "controlled")


@pytest.mark.slow
def test_two_agents_on_one_machine_meet() -> None:
    meeting = meet(Side(QUICE, HERE, "controlling"), Side(QUICE, HERE, "controlled"), None)
    assert [each["role"] for each in meeting.selected] == ["controlling", "controlled"]
    assert [each["over_pair"] for each in meeting.received] == [True, True]
    assert min(meeting.seconds) > 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raise SystemExit('no agent here')", r"scripted \(controlled\) ended: no agent here"),
        (START, r"scripted \(controlled\) ended$"),
        (
            START + 'print(\'{"type": "failed", "reason": "no way"}\', flush=True); sys.stdin.read()',
            r"scripted \(controlled\) failed: no way",
        ),
        (
            SELECTS + 'print(\'{"type": "received", "data": "noise"}\', flush=True); sys.stdin.read()',
            "what arrived is not '1 from .*', but 'noise'",
        ),
    ],
)
def test_a_meeting_that_comes_to_nothing_says_why(text: str, said: str) -> None:
    with pytest.raises(PlayError, match=said):
        meet(scripted(text), scripted(text), None)


def test_who_says_nothing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interop.play.PATIENCE", 0.5)
    with pytest.raises(PlayError, match=r"no 'ready' from scripted \(controlled\) and scripted \(controlled\) within"):
        meet(scripted("import sys; sys.stdin.read()"), scripted("import sys; sys.stdin.read()"), None)


def test_without_go_it_is_said_what_would_help(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(programs, "_GO_PATH", str(tmp_path))
    assert "install Go 1.24 or newer" in str(pion_unavailable())


@pytest.mark.parametrize(("version", "fits"), [("go1.19.8", False), ("go1.21.0", True), ("go1.26", True)])
def test_a_go_that_is_too_old_is_named(
    version: str, fits: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    go.write_text(f"#!/bin/sh\necho go version {version} linux/amd64\n")
    go.chmod(0o755)
    monkeypatch.setattr(programs, "_GO_PATH", str(tmp_path))
    why_not = pion_unavailable()
    assert (why_not is None) == fits
    assert fits or f"this is {version.rpartition('.')[0]}" in str(why_not)
