"""A pytest plugin: tests of programs behind every kind of NAT, on virtual time. `docs/simulator.md` shows how.

A test that takes the fixture `simulation`, itself or by another fixture, is a simulated one: if it is async, it and its
async fixtures run on the simulation's event loop. Other async tests are none of this plugin's business.

pytest loads this module in every project where quice is installed, so it imports the simulator when a test needs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import os
import secrets
import shlex
import warnings
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from quice.server import Server
    from quice.sim.simulation import Simulation
    from quice.sim.world import World

_SEED = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "seed of all simulations: a number, or `random` for another one in each run"
    parser.getgroup("quice").addoption("--sim-seed", metavar="SEED", help=f"{text} (default: the ini option sim_seed)")
    parser.addini("sim_seed", text, default="1")
    parser.addini("sim_limit", "simulated seconds after which a test is stuck", default="3600")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "nats(*kinds): the kinds of NAT whose pairs the argument `nats` takes (default: quice.sim.CLASSIC)"
    )
    wanted = str(config.getoption("--sim-seed") or config.getini("sim_seed"))
    if wanted == "random":
        config.stash[_SEED] = secrets.randbelow(1_000_000)
    elif wanted.isdecimal():
        config.stash[_SEED] = int(wanted)
    else:
        raise pytest.UsageError(f"--sim-seed and sim_seed take a number or `random`, not {wanted!r}")


@pytest.fixture
def simulation(request: pytest.FixtureRequest) -> Iterator[Simulation]:
    """A simulated internet, empty yet."""
    from quice.sim.simulation import Simulation

    with Simulation(request.config.stash[_SEED], float(request.config.getini("sim_limit"))) as simulation:
        yield simulation


@pytest.fixture
def world(simulation: Simulation) -> World:
    """The simulation's world, to put sites and hosts in."""
    return simulation.world


@pytest.fixture
def rendezvous(simulation: Simulation) -> Server:
    """A rendezvous and STUN server (`quice serve`) on a public host named `server`. Peers are given its `url`."""
    return simulation.run(simulation.server())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "nats" in metafunc.fixturenames:
        from quice.sim.kinds import CLASSIC, pairs

        marker = metafunc.definition.get_closest_marker("nats")
        found = pairs(marker.args if marker is not None and marker.args else CLASSIC)
        metafunc.parametrize("nats", found, ids=str)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_pycollect_makeitem() -> Generator[None, Any, Any]:
    # Before the plugins that run async tests on real time, which see an ordinary function then.
    found = yield
    for item in found if isinstance(found, list) else [found]:
        if isinstance(item, pytest.Function) and _is_simulated(item) and inspect.iscoroutinefunction(item.obj):
            item.obj = _on_virtual_time(item, item.obj)
    return found


def _is_simulated(test: pytest.Function | pytest.FixtureRequest) -> bool:
    return "simulation" in test.fixturenames


def _on_virtual_time(item: pytest.Function, test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(**arguments: Any) -> None:
        __tracebackhide__ = True
        simulation = cast("Simulation", item.funcargs["simulation"])
        simulation.run(test(**arguments))

    return run


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    with warnings.catch_warnings():
        if isinstance(item, pytest.Function) and _is_simulated(item):
            # In a module all of whose tests are marked: to pytest-asyncio a simulated one is an ordinary function.
            warnings.filterwarnings("ignore", r".*is marked with '@pytest\.mark\.asyncio'", pytest.PytestWarning)
        yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    original = fixturedef.func
    if fixturedef.scope != "function" or not _is_simulated(request):
        return (yield)
    if inspect.isasyncgenfunction(original):
        substitute = _lasting(request, _bound(original, request.instance))
    elif inspect.iscoroutinefunction(original):
        substitute = _once(request, _bound(original, request.instance))
    else:
        return (yield)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fixturedef, "func", substitute)
        return (yield)


def _bound(function: Callable[..., Any], instance: object) -> Callable[..., Any]:
    """A fixture that is a method has the instance of the test that asks for it."""
    if inspect.ismethod(function) and isinstance(instance, type(function.__self__)):
        return functools.partial(function.__func__, instance)
    return function


def _once(request: pytest.FixtureRequest, fixture: Callable[..., Any]) -> Callable[..., Any]:
    def run(**arguments: Any) -> Any:
        simulation: Simulation = request.getfixturevalue("simulation")
        return simulation.run(fixture(**arguments))

    return run


def _lasting(request: pytest.FixtureRequest, fixture: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
    """Of one that yields: it is one task from its beginning to its end, as `with host:` and timeouts in it need it."""

    def run(**arguments: Any) -> Iterator[Any]:
        simulation: Simulation = request.getfixturevalue("simulation")
        ready: asyncio.Future[Any] = simulation.loop.create_future()
        over = asyncio.Event()

        async def live() -> None:
            async with contextlib.asynccontextmanager(fixture)(**arguments) as value:
                ready.set_result(value)
                await over.wait()

        task = simulation.loop.create_task(live(), name=f"fixture {request.fixturename}")
        simulation.run(_first_of(ready, task))
        if not ready.done():
            task.result()
        yield ready.result()
        over.set()
        simulation.loop.run_until_complete(task)

    return run


async def _first_of(*awaited: asyncio.Future[Any]) -> None:
    await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and isinstance(item, pytest.Function) and _is_simulated(item):
        report.sections.append(("simulation", "\n".join(_story(item))))
    return report


def _story(item: pytest.Function) -> Iterator[str]:
    """What is to be known of a simulation that failed, last of all how to have it again."""
    from quice.sim.waiting import failed_tasks

    seed = item.config.stash[_SEED]
    simulation = cast("Simulation | None", item.funcargs.get("simulation"))
    if simulation is not None:
        seed = simulation.seed
        yield f"seed {seed}; {simulation.loop.time():.6f} s of simulated time had passed"
        yield from (f"a program had failed: {each}" for each in failed_tasks(simulation.loop.failed))
    file = os.path.relpath(item.path, item.config.invocation_params.dir)
    name = item.nodeid.partition("::")[2]
    yield f"again: pytest {shlex.quote(f'{file}::{name}')} --sim-seed {seed}"
