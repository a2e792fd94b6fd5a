"""What docs/roaming.md shows does what it says."""

from __future__ import annotations

import time
from pathlib import Path

from quice.identity import PeerId
from quice.server import Server
from quice.server.relay import RelaySettings
from quice.turn.credentials import time_limited
from tests.docs.test_readme import ROOT, URL, blocks, program

SECRET = "shared"
NAMED = '["turn:relay.example.org", "turns:relay.example.org:443"], "user", "password"'


async def test_the_program_that_is_shown_begins_through_a_relay_and_becomes_direct(tmp_path: Path) -> None:
    (code,) = blocks("python", (ROOT / "docs/roaming.md").read_text())
    bob, _ = blocks("python")
    assert NAMED in code
    async with Server("127.0.0.1", 0, 0, relay=RelaySettings(secret=SECRET)) as server:
        account = time_limited(SECRET, time.time() + 600)
        named = f"{list(server.turn)}, {account.username!r}, {account.password!r}"
        async with program(bob.replace(URL, server.url), tmp_path) as waiting:
            assert waiting.stdout is not None
            peer = PeerId.parse((await waiting.stdout.readline()).decode())
            code = code.replace(URL, server.url).replace(NAMED, named)
            async with program(code, tmp_path, str(peer)) as connecting:
                output, _ = await connecting.communicate()
    first, *_, last = output.decode().splitlines()
    assert first.startswith("at first over a relay path to ")
    assert last.startswith("now over a lan path to ")
    assert connecting.returncode == 0
