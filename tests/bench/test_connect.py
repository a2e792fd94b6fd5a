"""The bench of connecting connects everybody whom it compares, and tells what they took."""

from __future__ import annotations

import pytest

from bench.connect.play import Case, Cell, Cells, play
from bench.connect.programs import AIOICE, EAGER_PION, QUICE, Program
from bench.connect.report import Limits, verdicts
from bench.connect.servers import coturn_unavailable
from interop.programs import pion_unavailable
from lab.ground import available
from lab.link import Conditions
from quice.sim.kinds import Nat

UNAVAILABLE = available() or coturn_unavailable()
in_the_lab = [
    pytest.mark.lab,
    pytest.mark.slow,
    pytest.mark.skipif(UNAVAILABLE is not None, reason=str(UNAVAILABLE)),
    # The first with pion builds its program, with all that it stands on.
    pytest.mark.timeout(300),
]
LIMITS = Limits(0.025)


def cells(*programs: Program, case: Case) -> Cells:
    ready = [(program, program.prepare()) for program in programs]
    return play(case, ready, 1, Conditions(delay=0.025), lambda step: None)


def took(seconds: float) -> Cell:
    return Cell([seconds - 0.1], [seconds], [None])


class TestInTheLab:
    pytestmark = in_the_lab

    def test_all_connect_directly_from_warm_and_from_cold(self) -> None:
        if (why_not := pion_unavailable()) is not None:
            pytest.skip(why_not)
        played = cells(QUICE, AIOICE, EAGER_PION, case=Case(Nat.FULL_CONE, Nat.FULL_CONE, relay=False))
        for cell in played.values():
            assert not cell.failures
            # Nobody can be faster than a round trip for each of signalling, handshake and request.
            assert cell.answered[0] > LIMITS.answer
            assert cell.direct[0] == pytest.approx(cell.connected[0], abs=0.02)

    def test_peers_take_the_relay_where_there_is_no_direct_path(self) -> None:
        played = cells(AIOICE, case=Case(Nat.SYMMETRIC, Nat.SYMMETRIC, relay=True))
        for cell in played.values():
            assert not cell.failures
            assert cell.direct == [None]


def test_a_program_that_failed_twice_and_never_connected_is_left_alone() -> None:
    cell = Cell()
    for _ in range(2):
        assert not cell.is_hopeless
        cell.add({"failed": "no way"})
    assert cell.is_hopeless


@pytest.mark.parametrize(("later", "said"), [(0.004, "holds"), (0.015, "MISSED by 10 ms")])
def test_a_relay_must_not_make_it_later(later: float, said: str) -> None:
    both = [
        (
            Case(Nat.PUBLIC, Nat.PUBLIC, relay),
            {(QUICE.name, "warm"): took(0.3 + relay * later), (QUICE.name, "cold"): took(0.4)},
        )
        for relay in (False, True)
    ]
    assert said in verdicts(both, LIMITS)[1].rpartition("; ")[2]


def test_what_never_connected_is_said_to_be_so() -> None:
    never = {(QUICE.name, mode): Cell(failures=["no way"]) for mode in ("warm", "cold")}
    assert verdicts([(Case(Nat.SYMMETRIC, Nat.SYMMETRIC, relay=True), never)], LIMITS) == [
        "symmetric, with a relay: not connected"
    ]
