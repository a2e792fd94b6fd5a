"""What docs/security.md says is tested is, and its numbers are those of the code."""

from __future__ import annotations

import re

import pytest

from fuzz import runner
from quice import budgets, introductions
from quice.ice.checklist import MAX_PAIRS
from quice.ice.generation import MAX_REMOTE_CANDIDATES
from quice.ice.pacing import MIN_TA
from quice.relaying import relays
from quice.server import rendezvous, strangers, websocket
from quice.signal import inband, messages, protocol, session
from quice.signal import sealed as client
from tests.docs.test_readme import ROOT

TEXT = (ROOT / "docs/security.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)))
KIB = 1 << 10

# The row of the table of budgets, and the numbers in it.
BUDGETS: dict[str, tuple[float, ...]] = {
    "sent for one peer": (budgets.PEER_BURST / KIB, budgets.PEER_RATE / KIB),
    "the same for all together": (budgets.CALLERS_BURST / KIB / KIB, budgets.CALLERS_RATE / KIB),
    "reserved for one handshake": (budgets.HANDSHAKE,),
    "checks of all sessions": (1, MIN_TA * 1000),
    "candidates of a peer": (MAX_REMOTE_CANDIDATES, session.MAX_CANDIDATES),
    "pairs of a session": (MAX_PAIRS,),
    "sessions begun by others": (introductions._MAX_RESPONSES, introductions._MAX_RESPONSES_TO_ONE),
    "control channel": (inband.MAX_SESSIONS, inband._BURST, inband._RATE),
    "signalling message": (messages.MAX_MESSAGE / KIB, session.MAX_MESSAGES),
    "relays that a rendezvous": (relays.RELAYS_AT_ONCE, 1, 1 / relays.RELAYS_PER_SECOND, protocol.MAX_RELAYS),
    "messages of one peer that may": (client._BEGINNINGS, client._BEGINNINGS_PER_SECOND),
    "sessions of a rendezvous": (client._MAX_SESSIONS, client._REMEMBERED),
    "server: connections": (strangers.MOST, strangers.MAX_OPENING / KIB, websocket.OPEN_TIMEOUT),
    "server: messages": (rendezvous._BURST, rendezvous._RATE, websocket.MAX_BUFFER / KIB),
}


def constants(source: str, *names: str) -> tuple[float, ...]:
    """The values that Rust's constants have."""
    text = (ROOT / "src" / source).read_text()
    found = (re.search(rf"const {name}: \w+ = ([\d.]+);", text) for name in names)
    return tuple(float(each[1]) for each in found if each is not None)


@pytest.mark.parametrize(("file", "test"), NAMED, ids=[test for _, test in NAMED])
def test_each_test_that_it_names_is_there(file: str, test: str) -> None:
    assert re.search(rf"^(async )?def {test}\(", (ROOT / file).read_text(), re.MULTILINE)


def test_it_names_tests_of_every_kind_of_attacker() -> None:
    assert {file.rpartition("/")[2] for file, _ in NAMED} >= {
        path.name for path in (ROOT / "tests/security").glob("test_*.py")
    }


@pytest.mark.parametrize(("start", "numbers"), BUDGETS.items(), ids=BUDGETS.keys())
def test_its_budgets_are_those_of_the_code(start: str, numbers: tuple[float, ...]) -> None:
    assert numbers_of(start)[: len(numbers)] == numbers


@pytest.mark.parametrize(
    ("start", "source", "names"),
    [
        ("handshakes of others", "admission.rs", ("RETRY_FROM", "MOST", "MOST_ALIKE")),
        ("probes of one peer", "nat.rs", ("BURST", "RATE", "PROBES_PER_SECOND")),
        ("times that a client", "whereabouts.rs", ("BURST", "RATE")),
        ("paths of a connection", "path.rs", ("MAX_PATHS",)),
    ],
)
def test_its_budgets_are_those_of_the_engine(start: str, source: str, names: tuple[str, ...]) -> None:
    found = constants(source, *names)
    assert len(found) == len(names)
    assert numbers_of(start) == found


def test_what_it_says_of_fuzzing_is_so() -> None:
    assert f"more than\n{runner.MOST_GROWTH >> 20} MiB" in TEXT


def numbers_of(start: str) -> tuple[float, ...]:
    """The numbers in the second column of the row that begins so."""
    (row,) = (line for line in TEXT.splitlines() if line.startswith(f"| {start}"))
    amounts = (
        row.split("|")[2]
        .replace(",000", "000")
        .replace("1,024", "1024")
        .replace("8,192", "8192")
        .replace("4,096", "4096")
    )
    amounts = amounts.replace("one in", "1 in")
    return tuple(float(number) for number in re.findall(r"\d+", amounts))
