"""`make demo`: two peers, each behind a NAT of its own, find each other and send 100 MB over a direct connection."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from lab.ground import LabError, available
from lab.story import Event, Machine, StoryError, ThisMachine, Transfer, exit_on_sigterm, serving, transfer, two_sites
from quice.sim.kinds import Nat

_MEGABYTE = 1_000_000


def main(arguments: list[str] | None = None) -> int:
    """Run the demonstration; 0 when the digests agree and, with NATs, the path was direct."""
    parser = argparse.ArgumentParser(prog="python -m lab.demo", description=__doc__)
    parser.add_argument("--loopback", action="store_true", help="without NATs, even where they could be had")
    parser.add_argument("--megabytes", type=int, default=100, metavar="N", help="how much to send (100)")
    options = parser.parse_args(arguments)
    why_not = "as was asked" if options.loopback else available()
    console = Console(highlight=False, markup=False)  # [2001:db8::1] is an address
    try:
        return _demonstrate(console, options.megabytes * _MEGABYTE, why_not)
    except (StoryError, LabError) as error:
        return _fail(console, str(error))
    except KeyboardInterrupt:
        return 130


def _demonstrate(console: Console, size: int, why_not: str | None) -> int:
    if why_not is None:
        console.print("Two peers, each behind a port-restricted NAT of its own (kernel NATs in namespaces).")
    else:
        console.print(f"Two peers on loopback, without NATs: {why_not}.")
    with tempfile.TemporaryDirectory(prefix="quice-demo-") as folder:
        source, out = Path(folder, "random.bin"), Path(folder, "out")
        content = os.urandom(size)
        source.write_bytes(content)
        with _world(why_not) as (url, sender, receiver):
            result = _transfer(console, sender, receiver, url, source, out, size)
        if result.error is not None:
            return _fail(console, result.error["message"])
        _tell(console, result)
        if not _same(content, out / source.name):
            return _fail(console, "the digests differ: what was received is not what was sent")
    console.print("the digests agree", style="green")
    if why_not is None and result.path["kind"] != "direct":
        return _fail(console, f"the path is not direct but {result.path['kind']}")
    return 0


@contextmanager
def _world(why_not: str | None) -> Iterator[tuple[str, Machine, Machine]]:
    """The server's URL and the two machines."""
    if why_not is None:
        with two_sites(Nat.PORT_RESTRICTED, Nat.PORT_RESTRICTED, relay=True) as places:
            yield places
    else:
        machine = ThisMachine()
        with serving(machine, "127.0.0.1", relay=True) as url:
            yield url, machine, machine


def _transfer(
    console: Console, sender: Machine, receiver: Machine, url: str, source: Path, out: Path, size: int
) -> Transfer:
    columns = (TextColumn("receiving"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=size)
        return transfer(sender, receiver, url, [source], out, lambda event: bar.update(task, completed=event["bytes"]))


def _tell(console: Console, result: Transfer) -> None:
    for side in ("sender", "receiver"):
        if side in result.reports:
            candidates = ", ".join(result.reports[side]["local_candidates"])
            console.print(f"{side}'s candidates: {candidates}")
    if "receiver" in result.reports:
        console.print(_pairs(result.reports["receiver"]))
    path, done = result.path, result.done
    rate = done["bytes"] * 8 / done["seconds"] / 1e6
    console.print(f"path: {path['kind']}, {path['local']} to {path['remote']}")
    console.print(f"connected in {done['connect_seconds'] * 1000:.0f} ms; {rate:,.0f} Mbit/s")


def _pairs(report: Event) -> Table:
    table = Table(title="pairs tried by the receiver", title_justify="left")
    for column in ("local", "remote", "state"):
        table.add_column(column, overflow="fold")
    table.add_column("rtt", justify="right", no_wrap=True)
    for pair in report["pairs"]:
        state = pair["state"] + (", selected" if pair["nominated"] else "")
        rtt = f"{pair['rtt_ms']:.1f} ms" if pair["rtt_ms"] is not None else ""
        table.add_row(pair["local"], pair["remote"], state, rtt)
    return table


def _same(content: bytes, received: Path) -> bool:
    if not received.is_file():
        return False
    with received.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.digest() == hashlib.sha256(content).digest()


def _fail(console: Console, why: str) -> int:
    console.print(why, style="red")
    return 1


if __name__ == "__main__":
    exit_on_sigterm()
    sys.exit(main())
