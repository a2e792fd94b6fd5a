"""Where the tasks of an event loop wait, for people to read."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from types import FrameType
from typing import Any

_ASYNCIO = os.path.dirname(asyncio.__file__)
_MOST = 20


def waiting_tasks(loop: asyncio.AbstractEventLoop) -> list[str]:
    """A line for each task that is not done, by name: its calls, from the outermost to the await."""
    tasks = sorted(asyncio.all_tasks(loop), key=lambda task: (len(task.get_name()), task.get_name()))
    lines = [f"{task.get_name()}, {_place(task)}" for task in tasks[:_MOST]]
    return lines if len(tasks) <= _MOST else [*lines, f"and {len(tasks) - _MOST} more"]


def _place(task: asyncio.Task[Any]) -> str:
    calls = [
        f"{frame.f_code.co_name} ({os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno})"
        for frame in _frames(task.get_coro())
        if not frame.f_code.co_filename.startswith(_ASYNCIO)
    ]
    return " > ".join(calls)


def _frames(awaited: Any) -> Iterator[FrameType]:
    """Of a suspended coroutine or generator, and of what it awaits, and so on."""
    while awaited is not None:
        for kind in ("cr", "gi", "ag"):
            frame = getattr(awaited, f"{kind}_frame", None)
            if frame is not None:
                yield frame
                awaited = getattr(awaited, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
                break
        else:
            return
