"""docs/server.md names what the program has: options, metrics, events and limits."""

from __future__ import annotations

import re
import shlex

import typer

from quice.cli import app as program
from quice.server import Server, parcels, redis_mailboxes, redis_store, rendezvous, strangers, websocket
from quice.server import app as app_module
from quice.server.entrance import Access
from quice.server.logs import Event
from quice.server.metrics import registry_of
from quice.server.relay import NO_RELAY
from quice.server.sources import SourceLimits
from quice.signal import protocol
from tests.docs.test_readme import ROOT, blocks

PAGE = (ROOT / "docs/server.md").read_text()
RELAY = (ROOT / "docs/relay.md").read_text()
KIB = 1 << 10


def column(head: str) -> list[str]:
    """The first column of the table that begins with this head."""
    _, _, rest = PAGE.partition(f"| {head} |")
    rows = rest.split("\n\n", 1)[0].splitlines()[2:]
    return [row.split("|")[1].strip() for row in rows]


def options() -> set[str]:
    command = typer.main.get_command(program).commands["serve"]  # type: ignore[attr-defined]
    return {name for option in command.params for name in (*option.opts, *option.secondary_opts)} - {"--help"}


def test_its_options_are_those_of_the_command() -> None:
    named = {name for cell in column("option") for name in re.findall(r"`(--[\w-]+)", cell)}
    assert named == options()
    # That of the relay has the rest.
    assert set(re.findall(r"`(--(?:no-)?(?:relay|turn)[\w-]*)", PAGE)) <= set(re.findall(r"`(--[\w-]+)", RELAY)) | {
        "--relay"
    }


def test_the_commands_that_it_shows_have_such_options() -> None:
    text = "\n".join([*blocks("sh", PAGE), *blocks("ini", PAGE)])
    commands = [line for line in text.splitlines() if "quice serve" in line]
    assert len(commands) == 5
    for command in commands:
        named = {word for word in shlex.split(command, comments=True) if word.startswith("--")}
        assert named <= options()


async def test_its_metrics_are_those_of_the_program() -> None:
    async with Server("127.0.0.1", 0, 0, relay=NO_RELAY, access=Access(metrics=("127.0.0.1", 0))) as server:
        families = {family.name: family for family in registry_of(server).collect()}
    has = {
        name + ("_total" if family.type == "counter" else "")
        for name, family in families.items()
        if not name.startswith("process_")
    }
    named = [name for cell in column("metric") for name in re.findall(r"`(quice_\w+)(?:\{\w+\})?`", cell)]
    assert sorted(named) == sorted(has)
    (row,) = (line for line in PAGE.splitlines() if line.startswith("| `quice_messages_total"))
    outcomes = {sample.labels["outcome"] for sample in families["quice_messages"].samples}
    assert set(re.findall(r"`([a-z]+)`", row)) == outcomes


def test_its_events_are_those_of_the_program_each_logged_somewhere() -> None:
    named = re.findall(r"^\| `([a-z-]+)` \| (debug|info|warning) \|", PAGE, re.MULTILINE)
    assert sorted(name for name, _ in named) == sorted(event.value for event in Event)
    source = "".join(path.read_text() for path in (ROOT / "python/quice/server").glob("*.py"))
    for name, level in named:
        event = f"Event.{Event(name).name}"
        assert source.count(event) == 1, event
        assert re.search(rf"logger\.{level}\([^)]*\)?[^)]*{re.escape(event)}\b", source), (name, level)


def test_its_limits_and_times_are_those_of_the_code() -> None:
    limits = SourceLimits()
    for text in (
        f"as many at once; 0 for any number | {limits.at_once} |",
        f"in the long run | {limits.rate:.0f} |",
        f"have not registered | {strangers.MOST:,};",
        f"{websocket.OPEN_TIMEOUT:.0f} s each; {strangers.MAX_OPENING // KIB} KiB of request",
        f"{rendezvous._BURST:.0f} at once, {rendezvous._RATE:.0f} a second",
        f"{protocol.MAX_FRAME:,} bytes, in {websocket._MAX_PIECES} pieces at most",
        f"does not read | {websocket.MAX_BUFFER // KIB} KiB",
        f"other processes | {parcels.MAX_BYTES >> 20} MiB",
        f"pings after {websocket.KEEPALIVE:.0f} s of silence",
        f"has not been heard of for {redis_store.LEASE:.0f} s",
        f"after {redis_store._TIMEOUT:.0f} s the same",
        f"so many seconds that {app_module._MOVES:.0f} come each second",
    ):
        assert text in PAGE
    assert websocket.OPEN_TIMEOUT == rendezvous._REGISTER_TIMEOUT
    assert redis_store._ENTRY == 120


def test_what_it_says_is_in_redis_is_all_there_is() -> None:
    keys = set(re.findall(r"^    quice:(\w+)", f"{redis_store.__doc__}\n{redis_mailboxes.__doc__}", re.MULTILINE))
    assert keys == {"process", "at", "inbox", "mailbox", "mailboxes", "limit"}
    assert len(column("what is in Redis")) == 3
