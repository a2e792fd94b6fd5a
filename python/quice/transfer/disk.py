"""Work on files: in threads that let go when they are told to, with errors that name the file."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import BinaryIO, TypeVar

from blake3 import blake3

from quice.errors import LocalFileError
from quice.transfer.messages import BLOCK

T = TypeVar("T")


async def in_thread(work: Callable[[threading.Event], T]) -> T:
    """Run `work` in a thread. When this is cancelled, the event given to `work` is set, and the cancellation goes
    on only after it has returned: until then it may use its files."""
    stop = threading.Event()
    future = asyncio.get_running_loop().run_in_executor(None, work, stop)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.gather(future, return_exceptions=True)
        raise


def hash_prefix(file: BinaryIO, size: int, stop: threading.Event) -> blake3 | None:
    """The hash of the next `size` bytes; None when there are fewer, or it is to stop. Raises `OSError`."""
    hasher = blake3()
    while size:
        block = file.read(min(BLOCK, size))
        if not block or stop.is_set():
            return None
        hasher.update(block)
        size -= len(block)
    return hasher


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns every `OSError` into a `LocalFileError` for `path`."""
    try:
        yield
    except OSError as error:
        raise LocalFileError(os.fspath(path), error.strerror or str(error)) from error
