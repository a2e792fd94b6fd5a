"""docs/signalling.md says what the code does."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import textwrap
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from quice import Endpoint
from quice.server import Server
from quice.signal import Message, Offer, Side, State, decode
from quice.signal.manual import MAX_TEXT
from quice.signal.session import MAX_CANDIDATES, MAX_MESSAGES, MOVES, SENDS
from tests.cli.test_connect import side as command
from tests.docs.test_readme import ROOT, blocks, program

TEXT = (ROOT / "docs" / "signalling.md").read_text()
MESSAGES = {message.__name__: message for message in get_args(Message)}


def rows(heading: str) -> list[list[str]]:
    """The cells of the table that begins with this row."""
    lines = TEXT[TEXT.index(heading) :].splitlines()[2:]
    table = lines[: next(index for index, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def named(cell: str) -> list[str]:
    """What stands in it as code."""
    return re.findall(r"`(\w+)`", cell)


def test_the_table_of_states_is_that_of_the_code() -> None:
    written: dict[Side, dict[State, dict[type, State]]] = {side: {} for side in Side}
    for side, state, messages, follows in rows("| side | state |"):
        allowed = written[Side(side)].setdefault(State(state), {})
        allowed.update({MESSAGES[name]: State(follows) for name in named(messages)})
    assert written == SENDS


def test_the_table_of_what_becomes_of_a_receiver_is_that_of_the_code() -> None:
    moves = {
        MESSAGES[name]: State(state) for message, state in rows("| message | its receiver") for name in named(message)
    }
    assert moves == MOVES


def test_every_message_and_field_is_told_of() -> None:
    fields: dict[str, list[str]] = {}
    last = ""
    for message, field, *_ in rows("| message | field |"):
        last = named(message)[0] if message else last
        fields.setdefault(last, []).extend(named(field))
    assert {name: set(said) for name, said in fields.items()} == {
        name: {field.name for field in msgspec.structs.fields(message)} for name, message in MESSAGES.items()
    }
    types = re.search(r"and a `type`: (.*?)\.", TEXT)
    assert types is not None
    assert re.findall('"([a-z-]+)"', types[1]) == [message.__struct_config__.tag for message in MESSAGES.values()]


def test_the_numbers_are_those_of_the_code() -> None:
    assert f"**{MAX_CANDIDATES}** candidates" in TEXT
    assert f"**{MAX_MESSAGES}** messages" in TEXT
    assert f"none has more than {MAX_TEXT}" in TEXT


def test_the_offer_is_one() -> None:
    (text,) = blocks("json", TEXT)
    offer = decode(msgspec.msgpack.encode(json.loads(text)))
    assert isinstance(offer, Offer)
    assert json.loads(msgspec.json.encode(offer)) == json.loads(text)


async def test_the_carrier_carries(tmp_path: Path) -> None:
    carrier, *_ = blocks("python", TEXT)
    async with program(carrier, tmp_path) as running:
        output, _ = await asyncio.wait_for(running.communicate(), 30)
    assert output == b"connected to True\n"


def test_the_machine_without_io_does_what_is_shown() -> None:
    _, machine, *_ = blocks("python", TEXT)
    exec(machine, {})


async def test_the_two_sides_by_hand_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    *_, offering, answering = blocks("python", TEXT)
    texts: dict[str, asyncio.Queue[str]] = {"offer": asyncio.Queue(), "answer": asyncio.Queue()}

    async def side(code: str, endpoint: Endpoint, says: str, hears: str) -> object:
        code = code.replace("input()", "await heard()").replace("print(", "said(")
        defined: dict[str, object] = {"endpoint": endpoint, "said": texts[says].put_nowait, "heard": texts[hears].get}
        exec(f"async def main():\n{textwrap.indent(code, '    ')}\n    return connection", defined)
        return await defined["main"]()  # type: ignore[operator]

    async with Endpoint.bind() as alice, Endpoint.bind(alpns=["hello/1"]) as bob:
        near, far = await asyncio.wait_for(
            asyncio.gather(side(offering, alice, "offer", "answer"), side(answering, bob, "answer", "offer")), 30
        )
        assert (near.peer, far.peer) == (bob.peer, alice.peer)  # type: ignore[attr-defined]


async def test_the_two_commands_join_two_processes() -> None:
    (block,) = blocks("sh", TEXT)
    lines = [shlex.split(line, comments=True) for line in block.splitlines()]
    assert all(line[:2] == ["quice", "connect"] for line in lines)
    async with Server("127.0.0.1", 0, 0) as server:
        known = {"stun.example.org": str(server.stun)}
        async with command(*(known.get(word, word) for word in lines[0][2:])) as first:
            known["OFFER"] = (await first.event("offer"))["description"]
            async with command(*(known.get(word, word) for word in lines[1][2:])) as second:
                answer = (await second.event("answer"))["description"]
                await first.says(f"{answer}\nthere".encode())
                await second.says(b"and back")
                assert await asyncio.gather(first.ended(), second.ended()) == [(0, b"and back"), (0, b"there")]
