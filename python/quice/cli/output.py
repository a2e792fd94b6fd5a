"""What commands tell their user: text and progress bars, or with --json one object a line."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from quice.connection import Connection
from quice.ice import Report
from quice.path import Path, PathKind

if TYPE_CHECKING:
    from rich.progress import Progress

_PROGRESS_INTERVAL = 0.1
# Characters that stand beside a bar. Where they have no room, an update would wrap, and not erase the one before.
_NUMBERS = 50


class Output:
    """Where events of a command go. Text is for people, on standard error but for results."""

    def __init__(self, as_json: bool, stream: TextIO | None = None) -> None:
        """`stream`: where events go, standard output by default."""
        self.json = as_json
        self._stream = stream
        self._bars: Progress | None = None
        self._shown = 0

    def event(self, event: str, text: str | None = None, /, **fields: object) -> None:
        """Tell of an event: as JSON with its fields, or as `text` if there is any."""
        if self.json:
            print(json.dumps({"event": event, **fields}), file=self._stream, flush=True)
        elif text is not None:
            print(text, file=self._stream, flush=True)

    def error(self, error: Exception) -> None:
        """Tell what went wrong, in one line."""
        kind = re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__.removesuffix("Error")).lower()
        # Some of it may be the peer's words: they don't get to steer the terminal.
        message = "".join(c if c.isprintable() else "�" for c in " ".join(str(error).split())) or kind
        if self.json:
            self.event("error", kind=kind, message=message)
        else:
            print(f"error: {message}", file=sys.stderr, flush=True)

    def connected(self, connection: Connection) -> None:
        """Tell by which path a connection goes, and what was tried to find it."""
        if (path := connection.path) is not None:
            self.path(path, path_in_words(path))
        self.relayed(connection)
        if self.json and connection.report is not None:
            self.event("report", **report_fields(connection.report))

    def relayed(self, connection: Connection) -> None:
        """If the connection goes through a relay, tell why."""
        if (reason := why_relayed(connection)) is not None:
            self.event("relayed", f"not direct: {reason}", reason=reason)

    def path(self, path: Path, text: str) -> None:
        """Tell that data goes over this path from now on."""
        self.event("path", text, **path_fields(path))

    @property
    def is_live(self) -> bool:
        """Whether somebody looks at a terminal, which can show what changes in its place."""
        return not self.json and sys.stdout.isatty()

    @contextmanager
    def progress(self, label: str) -> Iterator[Callable[[int, int], None]]:
        """Yields a function to call with the bytes done and the bytes in all. Several may be shown at once."""
        if self.json:
            yield self._json_progress()
            return
        bars = self._bars = self._bars or _progress_bars()
        if not self._shown:
            bars.start()
        self._shown += 1
        task = bars.add_task(label, total=None)
        try:
            yield lambda done, total: bars.update(task, completed=done, total=total)
        finally:
            self._shown -= 1
            if not self._shown:
                bars.stop()
                self._bars = None

    def _json_progress(self) -> Callable[[int, int], None]:
        last, told = 0.0, (-1, -1)

        def tell(done: int, total: int) -> None:
            nonlocal last, told
            now = time.monotonic()
            if (done, total) != told and (done == total or now - last >= _PROGRESS_INTERVAL):
                last, told = now, (done, total)
                self.event("progress", bytes=done, total=total)

        return tell


def _progress_bars() -> Progress:
    # Imported here: rich takes a while, and most commands don't need it.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(stderr=True)
    columns: list[ProgressColumn] = [TextColumn("{task.description}")]
    room = min(console.width - _NUMBERS, 40)
    if room >= 10:
        columns += [BarColumn(room), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()]
    else:
        columns.append(TextColumn("{task.percentage:.0f}%"))
    return Progress(*columns, console=console)


def path_in_words(path: Path) -> str:
    """A path in a line."""
    return f"{path}, {round(path.rtt * 1000, 3)} ms"


def why_relayed(connection: Connection) -> str | None:
    """Why data goes through a relay, as far as is known; None if it does not."""
    path, report = connection.path, connection.report
    if path is None or path.kind is not PathKind.RELAY:
        return None
    return report.obstacle if report is not None else "nothing else was tried"


def path_fields(path: Path) -> dict[str, object]:
    """A path as JSON."""
    return {
        "id": path.id,
        "kind": path.kind.value,
        "local": str(path.local) if path.local else None,
        "remote": str(path.remote),
        "status": path.status,
        "validated": path.validated,
        "rtt_ms": round(path.rtt * 1000, 3),
        "loss": round(path.loss, 4),
        "mtu": path.mtu,
        "sent_bytes": path.sent_bytes,
        "received_bytes": path.received_bytes,
    }


def report_fields(report: Report) -> dict[str, object]:
    """A report as JSON."""
    pairs = [
        {
            "local": str(pair.local),
            "remote": str(pair.remote),
            "state": pair.state.value,
            "nominated": pair.nominated,
            "rtt_ms": None if pair.rtt is None else round(pair.rtt * 1000, 3),
            "checks_sent": pair.checks_sent,
        }
        for pair in report.pairs
    ]
    selected = report.selected
    return {
        "role": report.role.value,
        "state": report.state.value,
        "local_candidates": [str(candidate) for candidate in report.local_candidates],
        "remote_candidates": [str(candidate) for candidate in report.remote_candidates],
        "pairs": pairs,
        "selected": {"local": str(selected.local), "remote": str(selected.remote)} if selected else None,
    }


def in_words(verb: str, count: int, seconds: float) -> str:
    """What a transfer did, and how fast."""
    rate = count * 8 / max(seconds, 1e-6) / 1e6
    return f"{verb} {count:,} bytes in {seconds:.1f} s, {rate:,.0f} Mbit/s"
