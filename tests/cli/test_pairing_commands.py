"""`quice pair`, `quice peers`, and what goes between paired machines without a code."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from quice.identity import Identity
from quice.peers import PeerBook
from tests.cli.commands import Quice, quice, run
from tests.cli.test_code_commands import code_of


@dataclass
class Machine:
    """Whose commands have an identity of their own, and a server in their environment."""

    folder: Path
    url: str

    @property
    def environment(self) -> dict[str, str]:
        return {"QUICE_IDENTITY": str(self.folder / "identity"), "QUICE_SERVER": self.url}

    @property
    def book(self) -> PeerBook:
        return PeerBook(self.folder / "peers.json")

    def start(self, *arguments: str | Path) -> AbstractAsyncContextManager[Quice]:
        return quice(*arguments, "--json", environment=self.environment)

    async def run(self, *arguments: str | Path) -> tuple[int, str, str]:
        return await run(*arguments, "--json", environment=self.environment)


@pytest.fixture
def machines(tmp_path: Path, url: str) -> tuple[Machine, Machine]:
    return Machine(tmp_path / "desktop", url), Machine(tmp_path / "laptop", url)


@pytest.fixture
def paired(machines: tuple[Machine, Machine]) -> tuple[Machine, Machine]:
    """Two that know each other as `desktop` and `laptop`."""
    desktop, laptop = machines
    peers = [Identity.load_or_generate(each.folder / "identity").peer for each in machines]
    desktop.book.add("laptop", peers[1], ())
    laptop.book.add("desktop", peers[0], ())
    return machines


@pytest.fixture
def file(source: Path) -> Path:
    path = source / "file"
    path.write_bytes(b"content")
    return path


async def test_two_machines_pair_and_each_has_a_name_for_the_other(machines: tuple[Machine, Machine], url: str) -> None:
    desktop, laptop = machines
    async with desktop.start("pair", "--name", "Laptop") as first:
        async with laptop.start("pair", await code_of(first)) as second:
            of_second = await second.succeeded()
        of_first = await first.succeeded()
    (known,) = desktop.book
    assert (known.name, known.servers) == ("laptop", (url,))
    assert (of_first["name"], of_first["peer"]) == ("laptop", str(known.peer))
    assert known.peer == Identity.load(laptop.folder / "identity").peer
    # Without --name it is called what it is called.
    (other,) = laptop.book
    assert other.peer == Identity.load(desktop.folder / "identity").peer
    assert (of_second["name"], of_second["peer"]) == (other.name, str(other.peer))
    assert other.name == PeerBook("nothing").free_name(socket.gethostname().partition(".")[0])


async def test_who_pairs_again_keeps_the_name(paired: tuple[Machine, Machine], url: str) -> None:
    desktop, laptop = paired
    async with desktop.start("pair") as first:
        async with laptop.start("pair", await code_of(first)) as second:
            await second.succeeded()
        await first.succeeded()
    assert [known.name for known in desktop.book] == ["laptop"]
    assert [(known.name, known.servers) for known in laptop.book] == [("desktop", (url,))]


async def test_a_wrong_code_pairs_nobody(machines: tuple[Machine, Machine]) -> None:
    desktop, laptop = machines
    async with desktop.start("pair") as first:
        number, *words = (await code_of(first)).split("-")
        wrong = "clover" if words[1] != "clover" else "clockwork"
        status, output, _ = await laptop.run("pair", f"{number}-{words[0]}-{wrong}")
        assert (status, '"kind": "wrong_code"' in output) == (1, True)
        await first.event("code_burnt")
    assert [*desktop.book, *laptop.book] == []


async def test_peers_are_listed_and_forgotten(paired: tuple[Machine, Machine]) -> None:
    desktop, _ = paired
    (known,) = desktop.book
    status, output, _ = await run("peers", environment=desktop.environment)
    assert (status, output) == (0, f"laptop  {known.peer}\n")
    status, _, _ = await desktop.run("peers", "--remove", "laptop")
    assert status == 0
    assert list(desktop.book) == []
    status, output, _ = await desktop.run("peers", "--remove", "laptop")
    assert (status, '"kind": "unknown_peer"' in output) == (2, True)


async def test_files_go_to_a_paired_machine_by_its_name(paired: tuple[Machine, Machine], file: Path, out: Path) -> None:
    desktop, laptop = paired
    async with laptop.start("receive", "--out", out) as receive:
        assert (await receive.event("waiting"))["names"] == ["desktop"]
        async with desktop.start("send", file, "--to", "Laptop") as send:
            await send.succeeded()
        done = await receive.succeeded()
    assert (done["name"], done["bytes"]) == ("desktop", 7)
    assert (out / "file").read_bytes() == b"content"
    assert not [event for event in send.events if event["event"] in ("code", "ticket")]


async def test_a_sender_waits_until_the_other_machine_does(
    paired: tuple[Machine, Machine], file: Path, out: Path
) -> None:
    desktop, laptop = paired
    async with desktop.start("send", file, "--to", "laptop") as send:
        assert (await send.event("waiting"))["name"] == "laptop"
        async with laptop.start("receive", "--out", out) as receive:
            await receive.succeeded()
        await send.succeeded()
    assert (out / "file").read_bytes() == b"content"


async def test_nobody_else_can_send_without_a_code(
    paired: tuple[Machine, Machine], tmp_path: Path, file: Path, out: Path
) -> None:
    desktop, laptop = paired
    (known,) = desktop.book
    stranger = Machine(tmp_path / "stranger", desktop.url)
    stranger.book.add("laptop", known.peer, ())
    async with laptop.start("receive", "--out", out) as receive:
        await receive.event("waiting")
        status, output, _ = await stranger.run("send", file, "--to", "laptop")
        assert (status, '"kind": "not_paired"' in output) == (1, True)
        refused = await receive.event("refused")
        assert refused["peer"] == str(Identity.load(stranger.folder / "identity").peer)
        assert not out.exists()
        async with desktop.start("send", file, "--to", "laptop") as send:
            await send.succeeded()
        await receive.succeeded()


async def test_from_narrows_whose_files_are_taken(
    paired: tuple[Machine, Machine], tmp_path: Path, file: Path, out: Path
) -> None:
    desktop, laptop = paired
    (known,) = desktop.book
    phone = Machine(tmp_path / "phone", desktop.url)
    phone.book.add("laptop", known.peer, ())
    laptop.book.add("phone", Identity.load_or_generate(phone.folder / "identity").peer, ())
    async with laptop.start("receive", "--from", "phone", "--out", out) as receive:
        assert (await receive.event("waiting"))["names"] == ["phone"]
        status, output, _ = await desktop.run("send", file, "--to", "laptop")
        assert (status, '"kind": "not_paired"' in output) == (1, True)
        async with phone.start("send", file, "--to", "laptop") as send:
            await send.succeeded()
        assert (await receive.succeeded())["name"] == "phone"


async def test_who_keeps_receiving_ends_by_ctrl_c(paired: tuple[Machine, Machine], source: Path, out: Path) -> None:
    desktop, laptop = paired
    async with laptop.start("receive", "--keep", "--out", out) as receive:
        for number in range(2):
            (source / str(number)).write_text(str(number))
            async with desktop.start("send", source / str(number), "--to", "laptop") as send:
                await send.succeeded()
            await receive.event("done")
        receive.process.send_signal(signal.SIGINT)
        assert await receive.ended() == 0
        assert receive.errors == ""
    assert {path.name for path in out.iterdir()} == {"0", "1"}


@pytest.mark.parametrize("who", ["desktop", "laptop"])
async def test_whichever_side_is_interrupted_runs_its_command_again_and_goes_on(
    paired: tuple[Machine, Machine], source: Path, out: Path, who: str
) -> None:
    desktop, laptop = paired
    zeros = source / "zeros"
    zeros.touch()
    os.truncate(zeros, 512 << 20)
    sends, receives = ("send", zeros, "--to", "laptop"), ("receive", "--out", out)

    async def interrupt(command: Quice) -> None:
        await command.progress(0.2)
        command.process.send_signal(signal.SIGINT)
        assert await command.ended() == 1

    async with desktop.start(*sends) as send, laptop.start(*receives) as receive:
        if who == "desktop":
            await interrupt(send)
            await receive.event("interrupted")
            async with desktop.start(*sends) as again:
                await again.succeeded()
            done = await receive.event("done")
        else:
            await interrupt(receive)
            await send.event("interrupted")
            async with laptop.start(*receives) as again:
                done = await again.succeeded()
            await send.event("done")
    # Who still waits has nothing to mend.
    assert "error" not in [event["event"] for event in send.events + receive.events]
    assert done["bytes"] < 0.9 * (512 << 20)
    assert (out / "zeros").stat().st_size == 512 << 20


async def test_a_paired_machine_is_pinged_by_its_name(paired: tuple[Machine, Machine]) -> None:
    desktop, laptop = paired
    async with laptop.start("ping") as answering:
        await answering.event("ticket")
        async with desktop.start("ping", "laptop", "--count", "1") as ping:
            await ping.event("pong")
            await ping.succeeded()


async def test_a_machine_that_is_paired_with_nobody_waits_for_nobody(machines: tuple[Machine, Machine]) -> None:
    status, output, _ = await machines[0].run("receive")
    assert status == 2
    assert "quice pair" in output
