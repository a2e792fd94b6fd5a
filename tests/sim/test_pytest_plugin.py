"""The pytest plugin, in projects of its own."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType

import pytest

import quice
import quice.sim

pytest_plugins = ["pytester"]

Run = Callable[..., pytest.RunResult]

SCOPE = ("-o", "asyncio_default_fixture_loop_scope=function")


@pytest.fixture(params=["auto", "strict", "without"])
def run(request: pytest.FixtureRequest, pytester: pytest.Pytester) -> Run:
    """Run pytest on a test file, with pytest-asyncio in each of its modes and without it."""
    asyncio = {
        "auto": ("-o", "asyncio_mode=auto", *SCOPE),
        "strict": ("-o", "asyncio_mode=strict", *SCOPE),
        "without": ("-p", "no:asyncio"),
    }[request.param]

    def run(code: str, *options: str) -> pytest.RunResult:
        pytester.makepyfile(test_it=code)
        pytester.makeini("[pytest]\nfilterwarnings = error\n")
        return pytester.runpytest_inprocess(*asyncio, *options)

    return run


def test_an_async_test_runs_on_virtual_time(run: Run) -> None:
    result = run("""
        import asyncio

        async def test_half_an_hour(simulation):
            await asyncio.sleep(1_800)
            assert asyncio.get_running_loop() is simulation.loop
            assert simulation.loop.time() == 1_800

        class TestGroup:
            async def test_a_method(self, world):
                assert isinstance(self, TestGroup)
                await asyncio.sleep(1_800)

        def test_an_ordinary_one(simulation):
            simulation.run(asyncio.sleep(1_800))
            assert simulation.loop.time() == 1_800
    """)
    result.assert_outcomes(passed=3)


def test_async_fixtures_run_on_the_same_loop_and_keep_their_host_to_their_end(run: Run) -> None:
    result = run("""
        import asyncio
        import pytest
        from quice import Endpoint

        @pytest.fixture
        async def later(simulation):
            await asyncio.sleep(1_800)
            return simulation.loop.time()

        @pytest.fixture
        async def endpoint(world, rendezvous):
            with world.host("bob"):
                async with asyncio.timeout(1) if hasattr(asyncio, "timeout") else asyncio.Lock():
                    pass
                async with Endpoint.bind(server=rendezvous.url, alpns=["test/1"]) as endpoint:
                    yield endpoint
                    assert asyncio.get_running_loop().machine.host.name == "bob"

        class TestGroup:
            @pytest.fixture
            async def mine(self):
                return self

            async def test_a_method(self, simulation, mine):
                assert mine is self

        async def test_both(world, later, endpoint):
            with world.host("alice"):
                async with Endpoint.bind() as near:
                    address = next(each for each in endpoint.addresses if each.ip.version == 4)
                    await near.connect(endpoint.peer, alpn="test/1", address=address)
            assert later == 1_800
    """)
    result.assert_outcomes(passed=2)


def test_a_fixture_that_fails_before_it_yields_is_an_error_with_its_own_text(run: Run) -> None:
    result = run("""
        import pytest

        @pytest.fixture
        async def broken(simulation):
            raise RuntimeError("no such thing")
            yield

        async def test_it(broken):
            pass
    """)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*RuntimeError: no such thing", "again: pytest test_it.py::test_it --sim-seed 1"])


def test_other_async_tests_are_left_to_the_plugins_that_run_them(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import asyncio
        import pytest

        @pytest.fixture
        async def loop():
            yield asyncio.get_running_loop()

        async def test_simulated(simulation, loop):
            assert loop is simulation.loop

        async def test_real(loop):
            assert loop is asyncio.get_running_loop()
            await asyncio.sleep(0.001)
            assert type(loop).__module__.startswith("asyncio")
    """)
    pytester.runpytest_inprocess("-o", "asyncio_mode=auto", *SCOPE).assert_outcomes(passed=2)


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_a_simulated_test_may_stand_among_marked_ones(pytester: pytest.Pytester, mode: str) -> None:
    pytester.makepyfile("""
        import asyncio
        import warnings
        import pytest

        pytestmark = pytest.mark.asyncio

        async def test_simulated(simulation):
            await asyncio.sleep(1_800)

        async def test_that_warns(simulation):
            warnings.warn("of this the user is told")

        async def test_real():
            await asyncio.sleep(0.001)
    """)
    result = pytester.runpytest_inprocess("-o", f"asyncio_mode={mode}", *SCOPE, "-W", "error")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["E *UserWarning: of this the user is told"])


DICE = """
    import random
    import pytest

    @pytest.mark.parametrize("word", ["don't", "a b"])
    async def test_dice(simulation, world, word):
        print("rolled", world.rng("dice").random(), random.random())
        assert simulation.seed == 0
"""


def rolled(result: pytest.RunResult) -> list[str]:
    return [line for line in result.outlines if line.startswith("rolled")]


def test_a_failure_shows_its_seed_and_the_line_that_has_it_again(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=DICE)
    result = pytester.runpytest_inprocess(*SCOPE, "--sim-seed", "random")
    result.assert_outcomes(failed=2)
    text = "\n".join(result.outlines)
    seeds = re.findall(r"^seed (\d+); 0\.000000 s of simulated time had passed$", text, re.MULTILINE)
    assert len(seeds) == 2
    assert seeds[0] == seeds[1]
    for index, line in enumerate(line for line in result.outlines if line.startswith("again: ")):
        _, command, *arguments = shlex.split(line)
        assert command == "pytest"
        again = pytester.runpytest_inprocess(*SCOPE, *arguments)
        again.assert_outcomes(failed=1)
        assert rolled(again) == [rolled(result)[index]]


def test_the_line_is_for_the_folder_that_pytest_was_run_in(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeini("[pytest]")
    folder = pytester.mkdir("unit")
    (folder / "test_it.py").write_text("def test_it(simulation):\n    assert simulation is None\n")
    monkeypatch.chdir(folder)
    result = pytester.runpytest_inprocess(*SCOPE)
    result.stdout.fnmatch_lines(["again: pytest test_it.py::test_it --sim-seed 1"])


def test_the_seed_is_the_same_in_every_run_unless_it_is_given(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=DICE)
    plugin = [*SCOPE, "-k", "don"]
    fixed = rolled(pytester.runpytest_inprocess(*plugin))
    assert fixed == rolled(pytester.runpytest_inprocess(*plugin))
    other = rolled(pytester.runpytest_inprocess(*plugin, "-o", "sim_seed=2"))
    assert fixed != other
    assert other == rolled(pytester.runpytest_inprocess(*plugin, "--sim-seed", "2"))
    pytester.runpytest_inprocess(*plugin, "--sim-seed", "0").assert_outcomes(passed=1)


def test_a_seed_that_is_none_is_refused(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_inprocess(*SCOPE, "--sim-seed", "x")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --sim-seed and sim_seed take a number or `random`, not 'x'"])


STUCK = """
    import asyncio

    async def wait_for_bob(sleep):
        await asyncio.sleep(3)
        while sleep:
            await asyncio.sleep(1)
        await asyncio.Event().wait()

    async def answer():
        raise OSError("the disk is full")

    async def test_stuck(simulation, world):
        world.host("bob").start(answer())
        await wait_for_bob(SLEEP)
"""


@pytest.mark.parametrize(("sleep", "reason", "seconds"), [
    ("False", "everything waits and nothing is scheduled", 3),
    ("True", "the program has not come to its end", 121),
])  # fmt: skip
def test_what_waits_for_ever_is_shown_where_it_waits(run: Run, sleep: str, reason: str, seconds: int) -> None:
    result = run(STUCK.replace("SLEEP", sleep), "-o", "sim_limit=120")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([
        f"E *StuckError: at {seconds}.000000 s of simulated time {reason}. Look for *",
        "E * waiting: Task-*, test_stuck (test_it.py:14) > wait_for_bob (test_it.py:*)",
        "E * failed: *Task-* on bob, OSError: the disk is full",
    ])  # fmt: skip


def test_nats_makes_one_test_of_each_pair(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest
        from quice.sim import Nat

        def test_all(nats):
            pass

        @pytest.mark.nats(Nat.PORT_RESTRICTED, Nat.SYMMETRIC)
        def test_some(nats):
            assert nats.can_punch is (nats == (Nat.PORT_RESTRICTED, Nat.PORT_RESTRICTED))
    """)
    result = pytester.runpytest_inprocess(*SCOPE, "-v", "--strict-markers")
    result.assert_outcomes(passed=25 + 4)
    result.stdout.fnmatch_lines(["*::test_some?port_restricted-symmetric? PASSED*"])


def test_the_plugin_is_loaded_everywhere_and_imports_next_to_nothing() -> None:
    code = "import sys, quice.sim.pytest_plugin; print(*sorted(m for m in sys.modules if m.startswith('quice')))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["quice", "quice.errors", "quice.sim", "quice.sim.pytest_plugin", "quice.wire"]


@pytest.mark.parametrize("package", [quice, quice.sim])
def test_names_that_are_imported_when_asked_for_are_all_there(package: ModuleType) -> None:
    for name in package.__all__:
        assert getattr(package, name) is not None
        assert name in dir(package)
    assert set(package._MODULES) <= set(package.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        package.nothing  # noqa: B018


def test_quice_imports_no_pytest() -> None:
    code = "import sys, quice.endpoint, quice.sim.simulation; print('pytest' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
