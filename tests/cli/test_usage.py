"""How commands are called, and called wrongly: one clear line, and the right exit status."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from quice.cli import app
from quice.identity import Identity, PeerId
from quice.ticket import Ticket
from tests.cli.commands import QUICE, run

PEER = Identity.generate().peer
TICKET = str(Ticket(PEER, "ws://127.0.0.1:9"))


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("QUICE_SERVER", "QUICE_IDENTITY", "QUICE_RELAY_USER", "QUICE_RELAY_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def call(*arguments: str) -> Result:
    """Run a command in this process, which has to end it by itself."""
    result = CliRunner().invoke(app, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_help_names_every_command_and_each_has_help_of_its_own() -> None:
    text = call("--help").stdout
    for command in ("serve", "id", "send", "receive", "pair", "peers", "ping", "connect"):
        assert command in text
        result = call(command, "--help")
        assert result.exit_code == 0
        assert "--json" in result.stdout


def test_the_version_is_that_of_the_package() -> None:
    result = call("--version")
    assert (result.exit_code, result.stdout) == (0, f"quice {version('quice')}\n")
    assert "--version" in call("--help").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("send",),
        ("send", "x", "--ticket", "--to", "laptop"),
        ("receive",),
        ("ping", "--count", "0"),
        ("connect",),
        ("connect", "--listen", "--manual"),
        ("connect", "--listen", TICKET),
        ("ping", "--count", "many"),
        ("ping", "--policy", "fast"),
        ("serve", "--port", "65536"),
        ("serve", "--stun-port", "-1"),
        ("serve", "--turn", "turn:relay.example.org"),
        ("serve", "--turn", "https://relay.example.org", "--turn-secret", "secret"),
        ("serve", *["--turn", "turn:relay.example.org"] * 9, "--turn-secret", "secret"),
        ("serve", "--relay-address", "relay.example.org"),
        ("serve", "--relay-allow", "10.0.0.1/8"),
        ("serve", "--relay-allow", "home"),
        ("serve", "--relay-ports", "50000"),
        ("serve", "--relay-ports", "60000-50000"),
        ("serve", "--relay-quota", "0"),
        ("serve", "--relay-rate", "-1"),
        ("serve", "--redis", "http://redis.example.org"),
        ("serve", "--tls-cert", "fullchain.pem"),
        ("serve", "--tls-key", "privkey.pem"),
        ("serve", "--behind-proxy", "proxy.example.org"),
        ("serve", "--metrics", "9478"),
        ("serve", "--metrics", "127.0.0.1:99999"),
        ("serve", "--max-per-address", "-1"),
        ("serve", "--rate-per-address", "0"),
        ("serve", "--drain", "-1"),
        ("serve", "--log", "xml"),
        ("id", "--nonsense"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_wrong_use(arguments: tuple[str, ...]) -> None:
    assert call(*arguments).exit_code == 2


WRONG = {
    "no server": (("send", "x"), "usage", "--server URL or QUICE_SERVER"),
    "no server to ping by": (("ping", str(PEER)), "usage", "--server URL or QUICE_SERVER"),
    "a web page for a server": (("send", "x", "--server", "http://h"), "usage", "ws://HOST:PORT"),
    "a name for a server": (("ping", "--server", "example:4780"), "usage", "ws://HOST:PORT"),
    "a server without a host": (("send", "x", "--server", "ws://:4780"), "usage", "ws://HOST:PORT"),
    "a server on no port": (("send", "x", "--server", "ws://h:70000"), "usage", "ws://HOST:PORT"),
    "a server that is not text": (("send", "x", "--server", "ws://h\udcff"), "usage", "ws://HOST:PORT"),
    "nothing to send": (
        ("send", "/etc/nothing", "--server", "ws://h"),
        "usage",
        "can't send /etc/nothing: there is no such file or folder. Mend that, or leave it out",
    ),
    "no ticket": (("receive", "hello"), "ticket", "does not begin with 'quice1'"),
    "half a ticket": (("receive", TICKET[:50]), "ticket", "Copy it again"),
    "a mistyped ticket": (
        ("receive", TICKET[:20] + ("b" if TICKET[20] == "a" else "a") + TICKET[21:]),
        "ticket",
        "Copy it again",
    ),
    "a ticket with markup": (("receive", "quice1[bold]"), "ticket", "characters that no ticket has"),
    "half a code": (("receive", "7-crossover", "--server", "ws://h"), "invalid_code", "two words"),
    "a code without its number": (("receive", "crossover-clockwork"), "invalid_code", "begins with a number"),
    "a mistyped code": (("pair", "7-crosover-clockwork", "--server", "ws://h"), "invalid_code", "perhaps 'crossover'"),
    "a code, and somebody to wait for": (("receive", "7-crossover-clockwork", "--from", "laptop"), "usage", "--from"),
    "a file to store in": (("receive", TICKET, "--out", "/etc/passwd"), "usage", "--out takes a folder"),
    "nobody to wait for": (("receive", "--server", "ws://h"), "usage", "`quice pair`"),
    "a stranger to wait for": (("receive", "--from", "laptop"), "unknown_peer", "`quice peers` lists"),
    "a stranger to send to": (("send", "x", "--to", "laptop"), "unknown_peer", "`quice peers` lists"),
    "a name that is none": (("pair", "--name", "a b", "--server", "ws://h"), "peer_name", "'a b'"),
    "half a ticket to ping": (("ping", TICKET[:50]), "ticket", "Copy it again"),
    "a stranger to ping": (("ping", "laptop", "--server", "ws://h"), "unknown_peer", "`quice peers` lists"),
    "most of a peer id": (("ping", str(PEER)[:-1], "--server", "ws://h"), "invalid_peer_id", "52 characters"),
    "neither name nor peer id": (("ping", "[bold]me[/]", "--server", "ws://h"), "unknown_peer", "'[bold]me[/]'"),
    "a relay without a password": (
        ("send", "x", "--server", "ws://h", "--relay", "turn:h", "--relay-user", "me"),
        "usage",
        "QUICE_RELAY_PASSWORD",
    ),
    "a relay that is none": (
        ("receive", TICKET, "--relay", "relay.example"),
        "server_uri",
        "Write turn:HOST",
    ),
    "a STUN server for a relay": (
        ("ping", TICKET, "--relay", "stun:h", "--relay-user", "me", "--relay-password", "it"),
        "server_uri",
        "a STUN server relays nothing",
    ),
    "a relay elsewhere, and none": (
        ("serve", "--no-relay", "--turn", "turn:h", "--turn-secret", "secret"),
        "usage",
        "--no-relay and --turn exclude each other",
    ),
    "an address for no relay": (
        ("serve", "--no-relay", "--relay-address", "192.0.2.1"),
        "usage",
        "--no-relay and --relay-address exclude each other",
    ),
    "a network for no relay": (
        ("serve", "--no-relay", "--relay-allow", "10.0.0.0/8"),
        "usage",
        "--no-relay and --relay-allow exclude each other",
    ),
    "a host by its name": (("serve", "--host", "localhost"), "usage", "an IP address of this machine"),
}


@pytest.mark.parametrize(("arguments", "kind", "said"), WRONG.values(), ids=WRONG.keys())
def test_wrong_values_get_one_clear_line_and_status_2(arguments: tuple[str, ...], kind: str, said: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert said in line

    result = call(*arguments, "--json")
    assert result.exit_code == 2
    assert result.stderr == ""
    (line,) = result.stdout.splitlines()
    event = json.loads(line)
    assert (event["event"], event["kind"]) == ("error", kind)
    assert said in event["message"]


FAILING = {
    "no server there": (("send", "/etc/passwd", "--server", "ws://127.0.0.1:9"), "server_unreachable", ":9"),
    "no server where the ticket says": (("receive", TICKET), "server_unreachable", "ws://127.0.0.1:9"),
    "no server to ping by": (("ping", TICKET), "server_unreachable", "ws://127.0.0.1:9"),
    "an address that is another's": (
        ("serve", "--host", "192.0.2.99", "--port", "0"),
        "bind",
        "of 192.0.2.99 for the rendezvous: Cannot assign requested address. Name an address of this machine",
    ),
    "no Redis": (
        ("serve", "--host", "127.0.0.1", "--port", "0", "--stun-port", "0", "--redis", "redis://127.0.0.1:1"),
        "store_unreachable",
        "127.0.0.1', 1). Check that it runs",
    ),
    "an identity that is none": (
        ("id", "--identity", "/etc/passwd"),
        "identity",
        "/etc/passwd does not hold a quice identity. Name another file",
    ),
    "an identity that can't be saved": (
        ("id", "--identity", "/dev/null/x/y"),
        "identity",
        "it can't be saved as /dev/null/x/y: Not a directory. Name a file that can be written",
    ),
    "an identity in no folder": (("id", "--identity", "/dev/null/key"), "identity", "/dev/null/key"),
}


@pytest.mark.parametrize(("arguments", "kind", "said"), FAILING.values(), ids=FAILING.keys())
def test_what_fails_gets_one_clear_line_and_status_1(arguments: tuple[str, ...], kind: str, said: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert said in line

    (line,) = call(*arguments, "--json").stdout.splitlines()
    event = json.loads(line)
    assert (event["event"], event["kind"]) == ("error", kind)
    assert said in event["message"]


def test_what_is_neither_file_nor_folder_is_nothing_to_send() -> None:
    result = call("send", "/dev/null", "--server", "ws://127.0.0.1:9")
    assert result.exit_code == 2
    assert result.stdout == "not sent: '/dev/null' is neither a file nor a folder\n"
    assert result.stderr == "error: there is nothing to send: name a file or a folder\n"


def test_where_nothing_may_be_stored_nothing_is_received(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Root may write everywhere, so that no mode of the folder serves for the test.
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    result = call("receive", "7-crossover-clockwork", "--server", "ws://h", "--out", str(tmp_path / "new" / "folder"))
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {tmp_path} can't be written to. ")


def test_the_server_of_the_environment_is_used_and_the_one_given_goes_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QUICE_SERVER", "ws://127.0.0.1:7")
    assert "ws://127.0.0.1:7 " in call("send", "/etc/passwd").stderr
    assert "ws://127.0.0.1:7 " in call("ping", str(PEER)).stderr
    assert "ws://127.0.0.1:8 " in call("send", "/etc/passwd", "--server", "ws://127.0.0.1:8").stderr


def test_several_servers_are_tried_and_all_that_fail_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    both = "ws://127.0.0.1:8, ws://127.0.0.1:9 "
    assert both in call("ping", "--server", "ws://127.0.0.1:8", "--server", "ws://127.0.0.1:9").stderr
    monkeypatch.setenv("QUICE_SERVER", " ws://127.0.0.1:8  ws://127.0.0.1:9 ")
    assert both in call("send", "/etc/passwd").stderr


def test_a_tickets_server_goes_before_that_of_the_environment_and_after_the_one_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QUICE_SERVER", "ws://127.0.0.1:7")
    for command in ("receive", "ping"):
        assert "ws://127.0.0.1:9 " in call(command, TICKET).stderr
        assert "ws://127.0.0.1:8 " in call(command, TICKET, "--server", "ws://127.0.0.1:8").stderr


def test_id_prints_the_same_peer_each_time_and_keeps_its_key_private(tmp_path: Path) -> None:
    result = call("id")
    assert result.exit_code == 0
    peer = PeerId.parse(result.stdout)
    assert json.loads(call("id", "--json").stdout) == {"event": "id", "peer": str(peer)}
    file = tmp_path / "config" / "quice" / "identity"
    assert Identity.load(file).peer == peer
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_id_uses_the_file_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named, other = tmp_path / "named", tmp_path / "other"
    peer = call("id", "--identity", str(named)).stdout.strip()
    assert str(Identity.load(named).peer) == peer
    monkeypatch.setenv("QUICE_IDENTITY", str(other))
    assert call("id").stdout.strip() == str(Identity.load(other).peer) != peer
    assert not (tmp_path / "config").exists()


def test_of_many_that_make_an_identity_at_once_all_have_the_same(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "identity"
    old = os.umask(0)
    try:
        with ThreadPoolExecutor(8) as pool:
            peers = list(pool.map(lambda _: Identity.load_or_generate(file).peer, range(32)))
    finally:
        os.umask(old)
    assert set(peers) == {Identity.load(file).peer}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(file.parent.iterdir()) == [file]


async def test_two_commands_that_start_at_once_have_one_identity(tmp_path: Path) -> None:
    file = tmp_path / "identity"
    results = await asyncio.gather(*(run("id", "--identity", file) for _ in range(4)))
    assert {(status, errors) for status, _, errors in results} == {(0, "")}
    assert {output.strip() for _, output, _ in results} == {str(Identity.load(file).peer)}


async def test_the_command_is_called_quice_in_what_it_says() -> None:
    status, _, errors = await run("send")
    assert status == 2
    assert "Usage: quice send" in errors


def test_the_package_runs_as_a_command_too() -> None:
    done = subprocess.run([sys.executable, "-m", "quice", "receive", "x"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: not a valid ticket")


async def test_whoever_reads_no_further_ends_the_command_without_a_traceback(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    process = await asyncio.create_subprocess_exec(
        *QUICE, "id", "--identity", str(tmp_path / "identity"), stdout=write, stderr=asyncio.subprocess.PIPE
    )
    os.close(write)
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert errors == b""


async def test_a_name_that_the_terminal_has_no_letters_for_is_shown_with_escapes(tmp_path: Path) -> None:
    folder = tmp_path / "名前"
    folder.mkdir()
    (folder / "link").symlink_to("nowhere")
    environment = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    status, output, errors = await run("send", folder, "--server", "ws://127.0.0.1:9", environment=environment)
    assert status == 1
    assert r"\u540d\u524d/link' is a symbolic link" in output
    assert "ws://127.0.0.1:9" in errors
    assert "Traceback" not in errors
