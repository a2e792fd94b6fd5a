"""A server on loopback for commands to find each other by."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from quice.server import Server


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with Server("127.0.0.1", 0, 0) as server:
        yield server.url


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An empty folder to send from."""
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder to receive in, which is not there yet."""
    return tmp_path / "out"
