"""How the programs of `bench.connect` are started, and what they say: one JSON object a line.

    PROGRAM answer GROUND    says {"peer": NAME}, and answers whoever connects, until it is killed
    PROGRAM warm GROUND      binds and gathers, says {"ready": true}, and waits for a line on its input; then connects
    PROGRAM cold GROUND      says {"ready": true} as soon as it could begin, and waits likewise; then binds and connects

GROUND is a JSON object: `rendezvous`, the URL of quice's server; `mailbox` and `stun`, each HOST:PORT; `turn`, null or
an object with `address`, `username` and `password`; `to`, the peer's name, for those that connect; `direct`, whether a
direct path can be had. They send a request of 100 bytes, read the answer of as many, and say how it went, in seconds
since the line:

    {"connected": …, "answered": …, "direct": …}    QUIC established, the answer's first byte, a direct path, or null
    {"failed": "why"}
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

SIZE = 100
"""Bytes of the request, and of the answer."""
SETTLE = 0.5
"""Seconds after which a program that has begun to gather knows its addresses: three times what a relay takes."""
PATIENCE = 8.0
"""Seconds in which everything is over, or has failed."""

Ground = dict[str, Any]


def say(**values: object) -> None:
    """Tell the driver something."""
    print(json.dumps(values), flush=True)


async def told_to_go() -> None:
    """Say that all is ready, and wait for the driver's line."""
    say(ready=True)
    await asyncio.to_thread(sys.stdin.readline)


def address(text: str) -> tuple[str, int]:
    """HOST:PORT, taken apart."""
    host, _, port = text.rpartition(":")
    return host, int(port)
