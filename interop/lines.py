"""How the programs of `interop` talk with the driver: one JSON object a line, told apart by its `type`.

Every program, in whatever language, says `ready` and waits. The driver says `start`; the program gathers, and tells

    {"type": "credentials", "ufrag": …, "pwd": …, "lite": true}    `lite` only if it is
    {"type": "candidate", "candidate": "candidate:…"}                   as it finds them (RFC 8839 §5.1)
    {"type": "end-of-candidates"}

which the driver passes on to the other program as they are, at once or all together. With its credentials an agent may
tell the `pacing` of checks that it proposes, in milliseconds (RFC 8839 §5.5). When it has selected a pair, the program
says `selected`, with `local` and `remote`, and its `role` if the agent tells that; when that can't be, `failed` with a
`reason`. On `{"type": "send", "data": …}` it sends a datagram over the pair; what arrives, it tells as `received` with
its `data`. On `restart` it restarts ICE, and tells its new credentials and its candidates; when the peer's come anew,
it does so, too (RFC 8445 §9). It ends on `close`, or with its input.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

Line = dict[str, Any]


def say(kind: str, **values: Any) -> None:
    """Tell the driver something."""
    print(json.dumps({"type": kind, **values}), flush=True)


async def heard() -> AsyncIterator[Line]:
    """What the driver says, until it closes the input or says `close`."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async for line in reader:
        message = json.loads(line)
        if message["type"] == "close":
            return
        yield message
