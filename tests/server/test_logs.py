"""What the server logs, and of whom."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from io import StringIO

import pytest

from quice.server import Server
from quice.server.logs import log_to
from quice.server.relay import NO_RELAY
from tests.server.peers import raw_peer, until


@pytest.fixture(autouse=True)
def logger_as_it_was() -> Iterator[None]:
    logger = logging.getLogger("quice.server")
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = handlers, level, propagate
    logger.setLevel(level)


async def a_visit() -> str:
    """A peer registers, sends nonsense and is refused; returns its PeerId."""
    async with Server("127.0.0.1", 0, 0, relay=NO_RELAY) as server, raw_peer(server) as peer:
        await peer.registered()
        await peer.send(b"nonsense")
        await peer.ended()
        await until(lambda: len(server.rendezvous) == 0)
        return str(peer.peer)


async def test_a_line_is_an_object_that_says_what_has_happened_but_not_to_whom() -> None:
    stream = StringIO()
    log_to(stream, as_json=True, visits=True, addresses=False)
    peer = await a_visit()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["registered", "refused", "left"]
    assert all(line.keys() == {"time", "level", "from", "text", "event"} for line in lines)
    assert peer not in stream.getvalue()
    assert "127.0.0.1" not in stream.getvalue()


async def test_who_it_was_is_said_if_it_is_asked_for() -> None:
    stream = StringIO()
    log_to(stream, as_json=True, visits=True, addresses=True)
    peer = await a_visit()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["peer"], line["address"]) for line in lines] == [(peer, "127.0.0.1")] * 3


async def test_visits_are_not_logged_unless_asked_for() -> None:
    stream = StringIO()
    log_to(stream, as_json=False, visits=False, addresses=True)
    await a_visit()
    assert stream.getvalue() == ""


async def test_text_is_a_line_for_people() -> None:
    stream = StringIO()
    log_to(stream, as_json=False, visits=True, addresses=True)
    peer = await a_visit()
    first = stream.getvalue().splitlines()[0]
    assert first.endswith(f"debug: registered peer={peer} address=127.0.0.1")
