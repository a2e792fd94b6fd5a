"""What docs/codes.md shows does what it says."""

from __future__ import annotations

from pathlib import Path

from quice.cli.codes import MAX_WRONG
from quice.server import Server
from quice.server import mailboxes as rules
from quice.server.mailboxes import CLAIMS_BY_PEER, CLAIMS_BY_SOURCE, OPENINGS_BY_SOURCE
from quice.signal.pairing import MAX_PAYLOAD
from quice.signal.words import FIRST, SECOND
from tests.docs.test_readme import ROOT, URL, blocks, program

PAGE = (ROOT / "docs/codes.md").read_text()


async def test_the_program_that_is_shown_meets_itself_by_a_code(tmp_path: Path) -> None:
    (code,) = blocks("python", PAGE)
    async with Server("127.0.0.1", 0, 0) as server, program(code.replace(URL, server.url), tmp_path) as offering:
        assert offering.stdout is not None
        text = (await offering.stdout.readline()).decode().strip()
        async with program(code.replace(URL, server.url), tmp_path, text) as entering:
            await entering.communicate()
        output, _ = await offering.communicate()
    assert entering.returncode == 0
    assert output.decode() == "heard: the room is open\n"


def test_the_numbers_are_those_of_the_program() -> None:
    odds = len(FIRST) * len(SECOND)
    for text in (
        f"two of {len(FIRST)} each",
        f"up to {MAX_PAYLOAD} bytes",
        f"one guess in {odds:,}",
        f"{MAX_WRONG} guesses, 1 in {odds // MAX_WRONG:,}",
        f"{CLAIMS_BY_SOURCE.burst} claims, then one each {CLAIMS_BY_SOURCE.interval:.0f} s, from an address",
        f"{CLAIMS_BY_PEER.burst}, then one each {CLAIMS_BY_PEER.interval:.0f} s, of a peer",
        f"{OPENINGS_BY_SOURCE.burst} openings, then one each {OPENINGS_BY_SOURCE.interval:.0f} s",
        f"{rules.MAX_BY_PEER} mailboxes open at once, {rules.MAX_BY_SOURCE}",
    ):
        assert text in PAGE
    assert (rules.LIFETIME, rules.LONGEST, rules.EXCHANGE, rules.REST) == (600, 3600, 60, 600)
