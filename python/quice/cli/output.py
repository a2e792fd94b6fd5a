"""What commands tell their user: text and progress bars, or with --json one object a line."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from quice.connection import Connection
from quice.ice import Report

_PROGRESS_INTERVAL = 0.1


class Output:
    """Where events of a command go. Text is for people, on standard error but for results."""

    def __init__(self, as_json: bool) -> None:
        self.json = as_json

    def event(self, event: str, text: str | None = None, /, **fields: object) -> None:
        """Tell of an event: as JSON with its fields, or as `text` if there is any."""
        if self.json:
            print(json.dumps({"event": event, **fields}), flush=True)
        elif text is not None:
            print(text, flush=True)

    def error(self, error: Exception) -> None:
        """Tell what went wrong, in one line."""
        kind = re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__.removesuffix("Error")).lower()
        message = " ".join(str(error).split()) or kind
        if self.json:
            self.event("error", kind=kind, message=message)
        else:
            print(f"error: {message}", file=sys.stderr, flush=True)

    def connected(self, connection: Connection) -> None:
        """Tell by which path a connection goes, and what was tried to find it."""
        for path in connection.paths:
            rtt_ms = round(path.rtt * 1000, 3)
            self.event(
                "path",
                f"{path.kind.value} path to {path.remote}, {rtt_ms} ms",
                kind=path.kind.value,
                local=str(path.local) if path.local else None,
                remote=str(path.remote),
                rtt_ms=rtt_ms,
            )
        if self.json and connection.report is not None:
            self.event("report", **report_fields(connection.report))

    @contextmanager
    def progress(self, label: str) -> Iterator[Callable[[int, int], None]]:
        """Yields a function to call with the bytes done and the bytes in all."""
        if self.json:
            yield self._json_progress()
            return
        # Imported here: rich takes a while, and most commands don't need it.
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, TimeRemainingColumn()) as progress:
            task = progress.add_task(label, total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total)

    def _json_progress(self) -> Callable[[int, int], None]:
        last = 0.0

        def tell(done: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            if done == total or now - last >= _PROGRESS_INTERVAL:
                last = now
                self.event("progress", bytes=done, total=total)

        return tell


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
