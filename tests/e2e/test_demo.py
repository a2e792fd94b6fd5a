"""What `make demo` shows, and how it says that it can't."""

from __future__ import annotations

import sys

import pytest

from lab import demo, story
from lab.ground import available

UNAVAILABLE = available()


@pytest.mark.lab
@pytest.mark.skipif(UNAVAILABLE is not None, reason=str(UNAVAILABLE))
def test_the_demo_sends_directly_between_two_nats(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--megabytes", "10"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "port-restricted NAT" in shown
    assert "srflx 203.0.113." in shown
    assert "path: direct, 192.168." in shown
    assert "Mbit/s" in shown
    assert "the digests agree" in shown


@pytest.mark.slow
def test_the_demo_says_that_loopback_has_no_nats(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--loopback", "--megabytes", "1"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "on loopback, without NATs" in shown
    assert "the digests agree" in shown


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("raise SystemExit('the engine is missing')", "ended with status 1 before its event 'ready': the engine is"),
        ("print('hello')", "quice serve prints what is not JSON: hello"),
        ("""print('{"event": "error", "kind": "bind", "message": "in use"}')""", "quice serve: bind: in use"),
    ],
)
def test_the_demo_says_in_one_line_what_failed(
    program: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(story, "QUICE", (sys.executable, "-c", program))
    assert demo.main(["--loopback", "--megabytes", "1"]) == 1
    assert said in " ".join(capsys.readouterr().out.split())


def test_the_demo_fails_when_what_arrives_is_something_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = """
import json, pathlib, sys, time
match sys.argv[1:]:
    case ["serve", *_]:
        print(json.dumps({"event": "ready", "url": "ws://there"}), flush=True)
        time.sleep(60)
    case ["send", *_]:
        print(json.dumps({"event": "ticket", "ticket": "t"}), flush=True)
    case ["receive", _, "--out", out, "--json"]:
        pathlib.Path(out).mkdir()
        pathlib.Path(out, "random.bin").write_bytes(bytes(1_000_000))
        print(json.dumps({"event": "path", "kind": "lan", "local": "a", "remote": "b"}))
        print(json.dumps({"event": "done", "bytes": 1_000_000, "seconds": 1.0, "connect_seconds": 1.0}))
"""
    monkeypatch.setattr(story, "QUICE", (sys.executable, "-c", command))
    assert demo.main(["--loopback", "--megabytes", "1"]) == 1
    assert "the digests differ" in " ".join(capsys.readouterr().out.split())
