"""A connection's paths as a command shows them: a line for each event, or a live table."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from quice.cli.output import Output, path_fields, path_in_words, why_relayed
from quice.path import PathChanged, PathClosed, PathEvent, PathOpened, PathStatusChanged, carrying

if TYPE_CHECKING:
    from rich.console import RenderableType

    from quice.connection import Connection
    from quice.path import Path

_REFRESH = 0.5
"""Seconds between two states of the table."""
_SHOWN = 8
"""The last events, below it."""
_NUMBERS = ("RTT ms", "loss", "MTU", "sent", "received")
_EXPENDABLE = ("MTU", "local", "received", "sent", "loss")
"""Columns that a narrow terminal does without, the first of them first."""


@asynccontextmanager
async def path_changes(output: Output, connection: Connection) -> AsyncIterator[None]:
    """Tell by which path a connection goes, and each time when that changes."""
    output.connected(connection)
    events = connection.path_events()

    async def follow() -> None:
        async for event in events:
            if isinstance(event, PathChanged):
                output.path(event.after, f"now {path_in_words(event.after)}")

    async with _task(follow()):
        yield


@asynccontextmanager
async def live_paths(output: Output, connection: Connection) -> AsyncIterator[deque[str]]:
    """Show a connection's paths as they are, and what happens to them: as a table on a terminal, else line by line.
    Yields the lines below the table, to add to."""
    if output.is_live:
        # Here rather than at the top, since it takes a while and most commands don't need it; and not while a round
        # trip is measured.
        import rich.live
        import rich.table  # noqa: F401
    output.connected(connection)
    events = connection.path_events()
    lines: deque[str] = deque(maxlen=_SHOWN)
    started = asyncio.get_running_loop().time()

    async def follow() -> None:
        async for event in events:
            name, text, fields = _told(event)
            if output.is_live:
                lines.append(f"{event.time - started:8.1f} s  {text}")
            else:
                output.event(name, text, **fields)

    async with _task(follow()):
        if output.is_live:
            async with _task(_show(connection, lines)):
                yield lines
        else:
            yield lines


async def _show(connection: Connection, lines: deque[str]) -> None:
    from rich.live import Live

    with Live(auto_refresh=False) as live:
        try:
            while not connection.is_closed:
                live.update(_view(connection, lines, live.console.width), refresh=True)
                await asyncio.sleep(_REFRESH)
        finally:
            # What stays on the screen.
            live.update(_view(connection, lines, live.console.width), refresh=True)


def _view(connection: Connection, lines: Iterable[str], width: int) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    below = list(lines)
    if (reason := why_relayed(connection)) is not None:
        below.insert(0, f"not direct: {reason}")
    return Group(_table(connection.paths, width), *(Text(line) for line in below))


def _table(paths: list[Path], width: int) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    used = carrying(paths)
    rows = [_cells(path, is_used=used is not None and path.id == used.id) for path in paths]
    widest = {name: max(len(row[name]) for row in rows) for name in rows[0]} if rows else {}
    columns = {name: max(len(name), size) for name, size in widest.items()}
    for name in _EXPENDABLE:
        # A line on the left of each column, one at the end, and a space on either side.
        if sum(columns.values()) + 3 * len(columns) + 1 > width:
            columns.pop(name, None)
    table = Table(expand=False)
    for name in columns:
        table.add_column(name, justify="right" if name in _NUMBERS else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(row[name]) for name in columns))
    return table


def _cells(path: Path, *, is_used: bool) -> dict[str, str]:
    """A row of the table, by the names of its columns."""
    return {
        "": "*" if is_used else "",
        "kind": path.kind.value,
        "local": str(path.local or ""),
        "remote": str(path.remote),
        "status": path.status if path.validated else "unproven",
        "RTT ms": f"{path.rtt * 1000:.1f}",
        "loss": f"{path.loss:.1%}",
        "MTU": str(path.mtu),
        "sent": f"{path.sent_bytes:,}",
        "received": f"{path.received_bytes:,}",
    }


def _told(event: PathEvent) -> tuple[str, str, dict[str, object]]:
    """An event's name, what people read and what programs do."""
    match event:
        case PathOpened(path=path):
            return "path_opened", f"opened: {path_in_words(path)}", path_fields(path)
        case PathClosed(path=path, reason=reason):
            return "path_closed", f"closed: {path_in_words(path)} ({reason})", {**path_fields(path), "reason": reason}
        case PathStatusChanged(path=path):
            return "path_status", f"{path.status}: {path_in_words(path)}", path_fields(path)
        case PathChanged(before=before, after=after):
            text = f"data goes over the {path_in_words(after)}"
            return "path", text, {**path_fields(after), "before": path_fields(before)}


@asynccontextmanager
async def _task(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Do this beside the block, and end it with the block."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
