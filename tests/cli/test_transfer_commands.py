"""`quice send` and `quice receive` as two processes."""

from __future__ import annotations

import filecmp
import os
from pathlib import Path

import pytest

from quice.ticket import Ticket
from quice.transfer.paths import PARTIAL
from tests.cli.commands import Quice, quice, run
from tests.transfer.conftest import tree

SIZE = 400 << 20


@pytest.fixture
def large(source: Path) -> Path:
    """A file that takes about a second, no part of which is like another."""
    path = source / "large"
    block = bytearray(os.urandom(1 << 20))
    with path.open("wb") as file:
        for number in range(SIZE >> 20):
            block[:4] = number.to_bytes(4, "big")
            file.write(block)
    return path


async def ticket_of(send: Quice) -> str:
    return str((await send.event("ticket"))["ticket"])


def partial_of(out: Path) -> Path:
    (partial,) = (out / PARTIAL).iterdir()
    return partial


async def test_files_and_folders_arrive_and_both_sides_tell_how(url: str, source: Path, out: Path) -> None:
    (source / "folder" / "deep").mkdir(parents=True)
    (source / "folder" / "deep" / "large").write_bytes(os.urandom(5_000_000))
    (source / "folder" / "[bold]not markup").write_bytes(b"markup")
    (source / "single").write_bytes(b"one")
    total = 5_000_000 + 6 + 3
    async with quice("send", source / "folder", source / "single", "--server", url, "--json") as send:
        ticket = await ticket_of(send)
        async with quice("receive", ticket, "--out", out, "--json") as receive:
            done = await receive.succeeded()
        sent = await send.succeeded()
    assert tree(out) == tree(source)
    for last, command in ((done, receive), (sent, send)):
        assert last["event"] == "done"
        assert last["bytes"] == total
        assert 0 < last["seconds"] < 30
        assert 0 < last["connect_seconds"] < 15
        # More follow when data goes another way.
        path = next(event for event in command.events if event["event"] == "path")
        # A machine may have public addresses alone.
        assert path["kind"] in ("lan", "direct")
        assert path["local"]
        assert path["remote"]
        assert path["rtt_ms"] > 0
        progress = [event for event in command.events if event["event"] == "progress"]
        assert [event["bytes"] for event in progress] == sorted(event["bytes"] for event in progress)
        assert progress[-1] == {"event": "progress", "bytes": total, "total": total}
        (report,) = [event for event in command.events if event["event"] == "report"]
        assert report["local_candidates"]


async def test_people_get_a_command_to_copy_and_a_result(url: str, source: Path, out: Path) -> None:
    (source / "file").write_bytes(b"content")
    async with quice("send", source / "file", "--server", url) as send:
        while not (line := await send.line()).strip().startswith("quice receive "):
            assert line
        status, output, errors = await run(*line.split()[1:], "--out", out)
        assert status == 0, errors
        assert " path to " in output
        assert "received 7 bytes in " in output
        assert await send.ended() == 0
        assert "sent 7 bytes in " in send.lines[-1]
    # Without a terminal a bar is shown once, when it is full.
    for text in (errors, send.errors):
        assert len(text.splitlines()) <= 1
        assert "\x1b" not in text
    assert (out / "file").read_bytes() == b"content"


async def test_the_environment_names_the_server(url: str, source: Path, out: Path) -> None:
    (source / "file").write_bytes(b"content")
    async with quice("send", source / "file", "--json", environment={"QUICE_SERVER": url}) as send:
        ticket = await ticket_of(send)
        assert Ticket.parse(ticket).server == url
        # The receiver's own server is another; the ticket knows better.
        async with quice(
            "receive", ticket, "--out", out, "--json", environment={"QUICE_SERVER": "ws://[::1]:9"}
        ) as receive:
            await receive.succeeded()
        await send.succeeded()


async def test_a_url_in_capitals_is_the_same_server(url: str, source: Path, out: Path) -> None:
    (source / "file").write_bytes(b"content")
    async with quice("send", source / "file", "--server", url.replace("ws://", "WS://"), "--json") as send:
        async with quice("receive", (await ticket_of(send)).upper(), "--out", out, "--json") as receive:
            await receive.succeeded()
        await send.succeeded()


async def test_a_receiver_that_is_killed_goes_on_where_it_was(url: str, large: Path, out: Path) -> None:
    async with quice("send", large, "--server", url, "--json") as send:
        ticket = await ticket_of(send)
        async with quice("receive", ticket, "--out", out, "--json") as receive:
            await receive.progress(0.2)
            receive.process.kill()
            await receive.ended()
        assert [path.name for path in out.iterdir()] == [PARTIAL]
        kept = partial_of(out).stat().st_size
        assert kept > SIZE // 10
        async with quice("receive", ticket, "--out", out, "--json") as receive:
            done = await receive.succeeded()
        await send.succeeded()
    assert done["bytes"] == SIZE - kept
    assert [path.name for path in out.iterdir()] == ["large"]
    assert filecmp.cmp(out / "large", large, shallow=False)


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_sender_that_is_killed_is_noticed_and_another_goes_on_where_it_was(
    url: str, large: Path, out: Path
) -> None:
    async with quice("send", large, "--server", url, "--json") as send:
        ticket = await ticket_of(send)
        async with quice("receive", ticket, "--out", out, "--json") as receive:
            await receive.progress(0.2)
            send.process.kill()
            assert await receive.ended() == 1
            assert receive.errors == ""
            assert (receive.events[-1]["event"], receive.events[-1]["kind"]) == ("error", "idle_timeout")
    assert not (out / "large").exists()
    kept = partial_of(out).stat().st_size
    assert kept > SIZE // 10
    async with quice("send", large, "--server", url, "--json") as send:
        async with quice("receive", await ticket_of(send), "--out", out, "--json") as receive:
            done = await receive.succeeded()
        await send.succeeded()
    assert done["bytes"] == SIZE - kept
    assert [path.name for path in out.iterdir()] == ["large"]
    assert filecmp.cmp(out / "large", large, shallow=False)


async def test_a_ticket_whose_sender_is_gone_gets_one_clear_line(url: str, source: Path, out: Path) -> None:
    (source / "file").write_bytes(b"content")
    async with quice("send", source / "file", "--server", url, "--json") as send:
        ticket = await ticket_of(send)
    status, output, errors = await run("receive", ticket, "--out", out)
    assert (status, output) == (1, "")
    (line,) = errors.splitlines()
    assert line.startswith("error: the peer ")
    assert "is not registered" in line
    assert not out.exists()


async def test_a_ticket_with_another_secret_gets_one_clear_line_and_the_sender_stays(
    url: str, source: Path, out: Path
) -> None:
    (source / "file").write_bytes(b"content")
    async with quice("send", source / "file", "--server", url, "--json") as send:
        ticket = await ticket_of(send)
        right = Ticket.parse(ticket)
        for secret in (b"", bytes(16)):
            status, _, errors = await run("receive", str(Ticket(right.peer, right.server, secret)), "--out", out)
            assert status == 1
            assert "error: the other side gave up: a receiver came without the right ticket" in errors
            assert "Traceback" not in errors
            assert (await send.event("error"))["kind"] == "wrong_ticket"
        async with quice("receive", ticket, "--out", out, "--json") as receive:
            await receive.succeeded()
        await send.succeeded()
    assert tree(out) == {"file": b"content"}


async def test_what_is_not_sent_is_named_as_it_is(url: str, source: Path, out: Path) -> None:
    (source / "[red]link").symlink_to("nowhere")
    async with quice("send", source, "--server", url) as send:
        assert await send.line() == f"not sent: {str(source / '[red]link')!r} is a symbolic link\n"


async def test_a_folder_that_cannot_be_made_is_told_on_both_sides(url: str, source: Path, out: Path) -> None:
    (source / "[bold]taken").mkdir()
    out.mkdir()
    (out / "[bold]taken").write_bytes(b"no folder")
    async with quice("send", source / "[bold]taken", "--server", url, "--json") as send:
        status, _, errors = await run("receive", await ticket_of(send), "--out", out)
        assert status == 1
        (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
        assert f"{out}/[bold]taken: " in line
        error = await send.event("error")
        assert error["kind"] == "remote_file"
        assert "[bold]taken" in error["message"]
        assert str(out) not in error["message"]


async def test_many_empty_files_are_no_flood_of_events(url: str, source: Path, out: Path) -> None:
    for number in range(200):
        (source / str(number)).touch()
    async with quice("send", source, "--server", url, "--json") as send:
        async with quice("receive", await ticket_of(send), "--out", out, "--json") as receive:
            await receive.succeeded()
        await send.succeeded()
    for command in (send, receive):
        assert [event["bytes"] for event in command.events if event["event"] == "progress"] == [0]
    assert tree(out) == {"source": None} | {f"source/{number}": b"" for number in range(200)}
