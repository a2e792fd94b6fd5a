"""A connection's paths as a command shows them: a line for each event, or a live table."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from quice.cli.output import Output, path_fields, path_in_words
from quice.path import PathChanged, PathClosed, PathEvent, PathOpened, PathStatusChanged, carrying

if TYPE_CHECKING:
    from rich.console import RenderableType

    from quice.connection import Connection
    from quice.path import Path

_REFRESH = 0.5
"""Seconds between two states of the table."""
_SHOWN = 8
"""The last events, below it."""


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

    with Live(_table(connection.paths, lines), auto_refresh=False) as live:
        try:
            while not connection.is_closed:
                live.update(_table(connection.paths, lines), refresh=True)
                await asyncio.sleep(_REFRESH)
        finally:
            # What stays on the screen.
            live.update(_table(connection.paths, lines), refresh=True)


def _table(paths: list[Path], lines: deque[str]) -> RenderableType:
    # Imported here: rich takes a while, and most commands don't need it.
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(expand=False)
    for name in ("", "kind", "local", "remote", "status"):
        table.add_column(name)
    for name in ("RTT ms", "loss", "MTU", "sent", "received"):
        table.add_column(name, justify="right")
    used = carrying(paths)
    for path in paths:
        table.add_row(
            "*" if used is not None and path.id == used.id else "",
            path.kind.value,
            Text(str(path.local or "")),
            Text(str(path.remote)),
            path.status if path.validated else "unproven",
            f"{path.rtt * 1000:.1f}",
            f"{path.loss:.1%}",
            str(path.mtu),
            f"{path.sent_bytes:,}",
            f"{path.received_bytes:,}",
        )
    return Group(table, *(Text(line) for line in lines))


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
