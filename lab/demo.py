"""`make demo`: two peers, each behind a NAT of its own, find each other and send 100 MB over a direct connection."""

from __future__ import annotations

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

from lab.nat import Nat
from lab.network import LabError, available
from lab.story import Event, Machine, StoryError, ThisMachine, Transfer, serving, transfer, two_sites

SIZE = 100_000_000
_IN_LAB = "QUICE_DEMO_IN_USER_NAMESPACE"


@contextmanager
def world(why_not: str | None) -> Iterator[tuple[str, Machine, Machine]]:
    """The server's URL and the two machines."""
    if why_not is None:
        with two_sites(Nat.PORT_RESTRICTED, Nat.PORT_RESTRICTED) as places:
            yield places
    else:
        machine = ThisMachine()
        with serving(machine, "127.0.0.1") as url:
            yield url, machine, machine


def main() -> int:
    console = Console()
    why_not = available()
    if why_not is None:
        console.print("Two peers, each behind a port-restricted NAT of its own (kernel NATs in namespaces).")
    else:
        console.print(f"Two peers on loopback, [bold]without NATs[/]: {why_not}.")
    with tempfile.TemporaryDirectory(prefix="quice-demo-") as folder:
        source, out = Path(folder, "random.bin"), Path(folder, "out")
        content = os.urandom(SIZE)
        source.write_bytes(content)
        try:
            with world(why_not) as (url, sender, receiver):
                result = _transfer(console, sender, receiver, url, source, out)
        except (StoryError, LabError) as error:
            console.print(f"[red]{error}[/]")
            return 1
        return _judge(console, result, content, out / source.name, direct_wanted=why_not is None)


def _transfer(console: Console, sender: Machine, receiver: Machine, url: str, source: Path, out: Path) -> Transfer:
    columns = (TextColumn("sending"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=SIZE)
        return transfer(sender, receiver, url, [source], out, lambda event: bar.update(task, completed=event["bytes"]))


def _judge(console: Console, result: Transfer, content: bytes, target: Path, *, direct_wanted: bool) -> int:
    if result.error is not None:
        console.print(f"[red]{result.error['message']}[/]")
        return 1
    for side in ("sender", "receiver"):
        console.print(f"{side}'s candidates: " + ", ".join(result.reports[side]["local_candidates"]))
    console.print(_pairs(result.reports["receiver"]))
    done = result.done
    rate = done["bytes"] * 8 / done["seconds"] / 1e6
    console.print(f"path: [bold]{result.path['kind']}[/], {result.path['local']} to {result.path['remote']}")
    console.print(f"connected in {done['connect_seconds'] * 1000:.0f} ms; {rate:,.0f} Mbit/s")
    same = hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(content).digest()
    console.print("digests agree" if same else "[red]digests differ[/]")
    if direct_wanted and result.path["kind"] != "direct":
        console.print("[red]the path is not direct[/]")
        return 1
    return 0 if same else 1


def _pairs(report: Event) -> Table:
    table = Table("local", "remote", "state", "checks", "rtt", title="pairs tried by the receiver")
    for pair in report["pairs"]:
        state = pair["state"] + (" (selected)" if pair["nominated"] else "")
        rtt = f"{pair['rtt_ms']:.1f} ms" if pair["rtt_ms"] is not None else ""
        table.add_row(pair["local"], pair["remote"], state, str(pair["checks_sent"]), rtt)
    return table


def _in_user_namespace() -> None:
    """Without root, but with user namespaces, be root in one: network namespaces can be made there."""
    if os.geteuid() == 0 or _IN_LAB in os.environ:
        return
    wrap = ["unshare", "--user", "--map-root-user", "--net", "--mount"]
    prepare = 'mount -t tmpfs tmpfs /run && mkdir -p /run/netns && exec "$@"'
    if os.spawnlp(os.P_WAIT, "sh", "sh", "-c", f"{' '.join(wrap)} true 2>/dev/null") == 0:
        os.environ[_IN_LAB] = "1"
        os.execvp(wrap[0], [*wrap, "sh", "-c", prepare, "sh", sys.executable, "-m", "lab.demo"])


if __name__ == "__main__":
    _in_user_namespace()
    sys.exit(main())
