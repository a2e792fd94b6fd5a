"""A server on loopback for commands to find each other by."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from quice.server import Server


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with Server("127.0.0.1", 0, 0) as server:
        yield server.url
