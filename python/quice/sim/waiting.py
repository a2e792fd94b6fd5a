"""Where the tasks of an event loop wait, and what others have failed with, for people to read."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

_ASYNCIO = os.path.dirname(asyncio.__file__)
_MOST = 20


def waiting_tasks(loop: asyncio.AbstractEventLoop) -> list[str]:
    """A line for each task that is not done, by name: its calls, from the outermost to the await."""
    tasks = sorted(asyncio.all_tasks(loop), key=lambda task: (len(task.get_name()), task.get_name()))
    lines = [f"{task.get_name()}, {_place(task)}" for task in tasks[:_MOST]]
    return lines if len(tasks) <= _MOST else [*lines, f"and {len(tasks) - _MOST} more"]


def failed_tasks(failed: Iterable[tuple[str, asyncio.Task[Any]]]) -> list[str]:
    """A line for each of these tasks, which have failed on the hosts of these names."""
    return [f"{task.get_name()} on {host}, {_told(failure(task))}" for host, task in failed]


def failure(task: asyncio.Task[Any]) -> BaseException | None:
    """What a task that is done has failed with. Other than by `exception()`, nobody has been told by that."""
    error: BaseException | None = task._exception
    return error


def is_untold(task: asyncio.Task[Any]) -> bool:
    """Whether a task has failed and nobody has awaited it."""
    untold: bool = task._log_traceback
    return untold


def _told(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}"


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
