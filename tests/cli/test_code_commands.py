"""`quice send` and `quice receive` with a code between them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from quice.cli.codes import MAX_WRONG
from quice.identity import Identity
from quice.signal.codes import Code
from quice.ticket import Ticket
from quice.transfer.kept import KeptTicket, forget_complete
from quice.transfer.messages import Entry, EntryKind
from quice.transfer.paths import PARTIAL
from tests.cli.commands import Quice, quice, run


async def code_of(command: Quice) -> str:
    return str((await command.event("code"))["code"])


def mistyped(code: str) -> str:
    """The code with another word, such as somebody may guess."""
    number, first, second = code.split("-")
    return f"{number}-{first}-{'clover' if second != 'clover' else 'clockwork'}"


@pytest.fixture
def file(source: Path) -> Path:
    path = source / "file"
    path.write_bytes(b"content")
    return path


@pytest.fixture
def large(source: Path) -> Path:
    """A file of zeros, which takes seconds to send and no time to make."""
    path = source / "zeros"
    path.touch()
    os.truncate(path, 512 << 20)
    return path


async def test_a_code_brings_files_to_who_enters_it(url: str, file: Path, out: Path) -> None:
    environment = {"QUICE_SERVER": url}
    async with quice("send", file, "--json", environment=environment) as send:
        code = await code_of(send)
        assert str(Code.parse(code)) == code
        # As it may be typed: in several words.
        words = code.upper().split("-")
        async with quice("receive", *words, "--out", out, "--json", environment=environment) as receive:
            await receive.succeeded()
        await send.succeeded()
    assert (out / "file").read_bytes() == b"content"
    assert [path.name for path in out.iterdir()] == ["file"]


async def test_people_are_told_all_that_they_have_to_type_on_the_other_machine(url: str, file: Path, out: Path) -> None:
    async with quice("send", file, "--server", url) as send:
        while not (line := await send.line()).strip().startswith("quice receive "):
            assert line
        # The other machine does not know the server that was named here alone.
        status, _, errors = await run(*line.split()[1:], "--out", out)
        assert status == 0, errors
        assert await send.ended() == 0
    assert "quice1" not in "".join(send.lines)
    assert (out / "file").read_bytes() == b"content"


async def test_a_wrong_code_is_told_to_both_and_the_sender_has_a_new_one(url: str, file: Path, out: Path) -> None:
    async with quice("send", file, "--server", url, "--json") as send:
        burnt = await code_of(send)
        async with quice("receive", mistyped(burnt), "--server", url, "--out", out, "--json") as receive:
            assert await receive.ended() == 1
        (error,) = receive.events
        assert (error["event"], error["kind"]) == ("error", "wrong_code")
        assert "ask for a new one" in error["message"]
        assert (await send.event("code_burnt"))["reason"] == "wrong"
        code = await code_of(send)
        assert code != burnt
        # What is burnt stays so, with the right words, too.
        status, output, _ = await run("receive", burnt, "--server", url, "--out", out, "--json")
        assert (status, '"kind": "code_gone"' in output) == (1, True)
        status, _, errors = await run("receive", code, "--server", url, "--out", out, "--json")
        assert (status, errors) == (0, "")
        await send.succeeded()
    assert (out / "file").read_bytes() == b"content"


async def test_a_file_in_the_place_of_the_folder_is_refused_while_the_code_is_still_good(
    url: str, file: Path, out: Path
) -> None:
    async with quice("send", file, "--server", url, "--json") as send:
        code = await code_of(send)
        for taken in (file, file / "folder"):
            status, _, errors = await run("receive", code, "--server", url, "--out", taken)
            assert (status, errors) == (2, f"error: --out takes a folder, and {file} is none. Name another one\n")
        status, _, errors = await run("receive", code, "--server", url, "--out", out)
        assert status == 0, errors
        await send.succeeded()
    assert (out / "file").read_bytes() == b"content"


async def test_a_sender_puts_up_with_few_wrong_codes(url: str, file: Path, out: Path) -> None:
    async with quice("send", file, "--server", url, "--json") as send:
        for _ in range(MAX_WRONG):
            wrong = mistyped(await code_of(send))
            assert (await run("receive", wrong, "--server", url, "--out", out, "--json"))[0] == 1
        assert await send.ended() == 1
        assert (send.events[-1]["event"], send.events[-1]["kind"]) == ("error", "guessed_codes")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
async def test_a_receiver_that_is_interrupted_goes_on_by_the_same_code(
    url: str, large: Path, out: Path, number: signal.Signals
) -> None:
    environment = {"QUICE_SERVER": url}
    async with quice("send", large, "--json", environment=environment) as send:
        code = await code_of(send)
        arguments = ("receive", code, "--out", out, "--json")
        async with quice(*arguments, environment=environment) as receive:
            await receive.progress(0.2)
            receive.process.send_signal(number)
            await receive.ended()
        assert [path.name for path in out.iterdir()] == [PARTIAL]
        # The server need not be named again, and the code is used up.
        async with quice(*arguments) as again:
            done = await again.succeeded()
        await send.succeeded()
    assert done["bytes"] < 0.9 * (512 << 20)
    assert [path.name for path in out.iterdir()] == ["zeros"]
    assert (out / "zeros").stat().st_size == 512 << 20


async def test_a_sender_that_was_interrupted_goes_on_by_a_new_code_and_nothing_of_the_old_one_stays(
    url: str, large: Path, out: Path
) -> None:
    environment = {"QUICE_SERVER": url}
    receive = ("receive", "--out", out, "--json")
    async with (
        quice("send", large, "--json", environment=environment) as send,
        quice(*receive, await code_of(send), environment=environment) as first,
    ):
        await first.progress(0.2)
        send.process.send_signal(signal.SIGINT)
        assert await first.ended() == 1
    assert len(list((out / PARTIAL).iterdir())) == 2
    async with quice("send", large, "--json", environment=environment) as send:
        async with quice(*receive, await code_of(send), environment=environment) as second:
            done = await second.succeeded()
        await send.succeeded()
    assert done["bytes"] < 0.9 * (512 << 20)
    assert [path.name for path in out.iterdir()] == ["zeros"]


async def test_a_sender_that_ends_takes_its_code_with_it(url: str, file: Path, out: Path) -> None:
    async with quice("send", file, "--server", url, "--json") as send:
        code = await code_of(send)
        send.process.send_signal(signal.SIGINT)
        assert await send.ended() == 1
        assert send.errors == ""
    status, output, _ = await run("receive", code, "--server", url, "--out", out, "--json")
    assert (status, '"kind": "code_gone"' in output) == (1, True)


async def test_with_a_ticket_there_is_no_code(url: str, file: Path, out: Path) -> None:
    async with quice("send", file, "--ticket", "--server", url, "--json") as send:
        ticket = (await send.event("ticket"))["ticket"]
        status, _, errors = await run("receive", ticket, "--out", out)
        assert status == 0, errors
        await send.succeeded()
    assert not [event for event in send.events if event["event"] == "code"]


async def test_a_code_of_pair_brings_no_files_and_the_other_way_round(
    url: str, file: Path, out: Path, tmp_path: Path
) -> None:
    pair = ("pair", "--identity", tmp_path / "identity", "--server", url, "--json")
    async with quice("send", file, "--server", url, "--json") as send, quice(*pair) as pairing:
        for other, first, runs in (
            (("receive", "--out", out, "--server", url, "--json"), pairing, "quice pair"),
            (("pair", "--identity", tmp_path / "another", "--server", url, "--json"), send, "quice send"),
        ):
            code = await code_of(first)
            async with quice(other[0], code, *other[1:]) as command:
                assert await command.ended() == 2
            assert f"runs `{runs}`" in command.events[-1]["message"]
            assert (await first.event("code_burnt"))["reason"] == "usage"
    assert not (tmp_path / "peers.json").exists()


def test_a_kept_ticket_is_private_and_found_by_its_code_alone(tmp_path: Path) -> None:
    ticket = Ticket(Identity.generate().peer, "ws://h:1", bytes(16))
    out, code, other = tmp_path / "out", Code.parse("7-crossover-clockwork"), Code.parse("8-crossover-clockwork")
    assert KeptTicket(out, code).load() is None
    old = os.umask(0)
    try:
        KeptTicket(out, code).save(ticket)
    finally:
        os.umask(old)
    assert KeptTicket(out, code).load() == ticket
    assert KeptTicket(out, other).load() is None
    (path,) = (out / PARTIAL).iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text(str(ticket)[:50])
    assert KeptTicket(out, code).load() is None


def test_what_is_complete_takes_the_tickets_with_it_that_bring_the_same_and_no_others(tmp_path: Path) -> None:
    ticket = Ticket(Identity.generate().peer, "ws://h:1", bytes(16))
    old, other, unknown = (KeptTicket(tmp_path, Code.parse(f"{number}-crossover-clockwork")) for number in range(1, 4))
    for each in (old, other, unknown):
        each.save(ticket)
    old.note([Entry(EntryKind.FILE, "report.pdf", 7)])
    other.note([Entry(EntryKind.FILE, "report.pdf", 8)])
    assert (old.load(), other.load()) == (ticket, ticket)
    forget_complete(tmp_path, [Entry(EntryKind.FILE, "report.pdf", 7)])
    assert (old.load(), other.load(), unknown.load()) == (None, ticket, ticket)
    forget_complete(tmp_path, [Entry(EntryKind.FILE, "report.pdf", 8)])
    unknown.note([])
    forget_complete(tmp_path, [])
    assert list(tmp_path.iterdir()) == []
    forget_complete(tmp_path, [])
