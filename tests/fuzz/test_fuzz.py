"""The fuzzer finds what is planted, replays what it finds, and finds nothing in what is here."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz import runner
from fuzz.__main__ import fuzz, main
from fuzz.initial import Keys, packet, varint
from fuzz.mutation import mutate
from fuzz.runner import Run, play
from fuzz.target import Target, parser
from fuzz.targets import TARGETS

CASES = 300
ROOT = Path(__file__).parents[2]


class BrokenError(Exception):
    """The fault that is planted."""


def planted(data: bytes) -> bytes:
    if len(data) > 4 and data[4] == 0xFF:
        raise BrokenError
    return data


PLANTED = parser("planted", (bytes(8), b"abcdefgh"), planted, ValueError)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_no_target_fails_a_first_few_cases(target: Target) -> None:
    for case in range(CASES):
        failure = play(target, 20261124, case)
        assert failure is None, failure.report + failure.replay


def test_every_target_has_a_name_of_its_own() -> None:
    assert len({target.name for target in TARGETS}) == len(TARGETS)


def test_a_planted_fault_is_found_and_found_again_by_its_case_alone() -> None:
    run = Run([PLANTED], seed=7)
    for _ in run.until(30.0):
        pass
    (failure,) = run.failures
    assert "BrokenError" in failure.report
    assert failure.replay == f"python -m fuzz --seed 7 --target planted --case {failure.case}"
    again = play(PLANTED, 7, failure.case)
    assert again is not None
    # The input is in the last line of the report.
    assert again.report.splitlines()[-1] == failure.report.splitlines()[-1]
    assert failure.case == 0 or play(PLANTED, 7, failure.case - 1) is None


def test_a_finding_ends_its_target_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    healthy = parser("healthy", (b"abc",), bytes, ValueError)
    assert fuzz([PLANTED, healthy], 7, 1.0) == 1
    printed = capsys.readouterr().out
    assert "python -m fuzz --seed 7 --target planted --case" in printed
    verdicts = {
        line.split()[0]: line.split()[-1] for line in printed.splitlines() if " cases " in line and "/s" in line
    }
    assert verdicts == {"planted": "failed", "healthy": "ok"}


def test_what_is_no_exception_is_a_finding_too() -> None:
    def panic(rng: random.Random) -> None:
        raise BaseException("panicked")

    failure = play(Target("panic", panic), 1, 0)
    assert failure is not None
    assert "panicked" in failure.report


def test_targets_share_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # Fractions that a float holds exactly.
    monkeypatch.setattr(runner, "SLICE", 0.125)
    now = 0.0

    def spend(seconds: float) -> Target:
        def take(rng: random.Random) -> None:
            nonlocal now
            now += seconds

        return Target(f"spends {seconds}", take)

    run = Run([spend(0.0625), spend(0.125 / 64)], seed=1, clock=lambda: now)
    assert list(run.until(0.25)) == [0.25]
    assert [tally.cases for tally in run.tallies] == [2, 64]
    assert [tally.seconds for tally in run.tallies] == [0.125, 0.125]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a POSIX timer to interrupt what hangs")
def test_a_case_that_hangs_is_a_finding() -> None:
    program = (
        "import fuzz.runner as runner, fuzz.target as target\n"
        "runner.PATIENCE = 0.05\n"
        "def hang(rng):\n    while True: pass\n"
        "print(runner.play(target.Target('hang', hang), 1, 0).report)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "not done after 0.05 s" in done.stdout


def test_the_command_plays_a_case_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "1", "--target", "peer-id", "--case", "3"]) == 0
    assert capsys.readouterr().out == "the case passes\n"


def test_the_command_fuzzes_one_target(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seconds", "0.1", "--seed", "5", "--target", "peer-id"]) == 0
    first, last, total = capsys.readouterr().out.splitlines()
    assert total.endswith(" cases")
    assert first == "seed 5, 1 targets, 0.1 s"
    assert last.startswith("peer-id ")
    assert last.endswith("ok")


def test_the_command_plays_so_many_inputs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--inputs", "3000", "--seed", "5", "--target", "peer-id"]) == 0
    first, *_, total = capsys.readouterr().out.splitlines()
    assert first == "seed 5, 1 targets, 3,000 inputs"
    assert int(total.split()[0].replace(",", "")) >= 3000


def test_a_target_that_grows_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "SLICE", 0.0)
    monkeypatch.setattr(runner, "WARM", 10)
    memory = 0

    def leaks(by: int) -> Target:
        def leak(rng: random.Random) -> None:
            nonlocal memory
            memory += by

        return Target(f"leaks {by}", leak)

    run = Run([leaks(1 << 20), leaks(1000)], seed=3, memory=lambda: memory)
    for _ in run.until(30.0, inputs=200):
        pass
    (failure,) = run.failures
    assert failure.target == "leaks 1048576"
    # What the first ten took does not count.
    assert failure.case == 10 + 33
    assert failure.replay == f"python -m fuzz --seed 3 --target {failure.target} --inputs {failure.case}"


@pytest.mark.parametrize("arguments", [["--case", "1"], ["--case", "1", "--seed", "1"], ["--target", "nobody"]])
def test_the_command_refuses_what_makes_no_sense(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as refusal:
        main(arguments)
    assert refusal.value.code == 2


def test_mutations_follow_from_the_generator_and_reach_every_length() -> None:
    samples = (bytes(40), b"abcdefgh")
    first = [mutate(random.Random(f"1/{number}"), samples) for number in range(2000)]
    assert first == [mutate(random.Random(f"1/{number}"), samples) for number in range(2000)]
    lengths = {len(data) for data in first}
    assert {0, 8, 40, 65507} <= lengths
    assert any(data == b"abcdefgh" for data in first)
    assert len(set(first)) > 1000


def test_rfc9001_a_1_the_keys_of_initial_packets() -> None:
    connection_id = bytes.fromhex("8394c8f03e515708")
    assert Keys.derive(connection_id, client=True) == Keys(
        bytes.fromhex("1f369613dd76d5467730efcbe3b1a22d"),
        bytes.fromhex("fa044b2f42a3fd3b46fb255c"),
        bytes.fromhex("9f50449e04a0e810283a1e9933adedd2"),
    )
    assert Keys.derive(connection_id, client=False) == Keys(
        bytes.fromhex("cf3a5331653c364c88f0f379b6067e37"),
        bytes.fromhex("0ac1493ca1905853b0bba03e"),
        bytes.fromhex("c206b8d9b9f0f37644430b490eeaa314"),
    )


@pytest.mark.parametrize(
    ("number", "data"),
    [(37, "25"), (15293, "7bbd"), (494878333, "9d7f3e7d"), (151288809941952652, "c2197c5eff14e88c")],
)
def test_rfc9000_a_1_variable_length_integers(number: int, data: str) -> None:
    assert varint(number).hex() == data


def test_aioquic_opens_our_initial_packets() -> None:
    from aioquic.buffer import Buffer
    from aioquic.quic.crypto import CryptoPair
    from aioquic.quic.packet import pull_quic_header

    connection_id = bytes(range(8))
    frames = b"\x01" + b"\x06\x00\x04abcd"
    data = packet(Keys.derive(connection_id, client=True), connection_id, b"own", frames, number=258, token=b"token")
    assert len(data) == 1200
    buffer = Buffer(data=data)
    header = pull_quic_header(buffer, host_cid_length=8)
    assert (header.destination_cid, header.source_cid, header.token) == (connection_id, b"own", b"token")
    pair = CryptoPair()
    pair.setup_initial(cid=connection_id, is_client=False, version=1)
    _, plain, number = pair.decrypt_packet(data, buffer.tell(), 258)
    assert number == 258
    assert plain.rstrip(b"\0") == frames
