"""An asyncio event loop on virtual time: it never waits, it moves the clock to the next thing that happens.

What runs on it sees ordinary asyncio. A second in which nothing happens costs nothing, and the same program with the
same seeds does the same things at the same times, for nothing here depends on how long anything takes. Work given to
threads is done on the spot.

The loop has no network. Sockets, and what else differs from machine to machine, it asks of the simulated machine that
the running code is on (`with host:`); a task, and all that it starts, stays on the machine it was started on.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import heapq
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from quice.sim.waiting import failed_tasks, waiting_tasks

if TYPE_CHECKING:
    from typing_extensions import TypeVarTuple, Unpack

    from quice.sim.machine import SimMachine

    Ts = TypeVarTuple("Ts")

T = TypeVar("T")

_visited: ContextVar[tuple[SimMachine, ...]] = ContextVar("_visited")
"""The machines whose `with` blocks the running code is in; it runs on the last."""

_COLLECT_EVERY = 20_000
"""Turns of the loop between two collections of garbage: at the same points of every run, since what is collected may
close streams and connections."""
_RESOLUTION = 1e-9
_ENDING = 600.0
"""Simulated seconds in which programs that are cancelled must have ended."""


def enter_machine(machine: SimMachine) -> None:
    """What the running code does and starts from now on is done on this machine, until `leave_machine`."""
    _visited.set((*_visited.get(()), machine))


def leave_machine() -> None:
    """Go back to the machine that was entered before."""
    _visited.set(_visited.get(())[:-1])


class StuckError(RuntimeError):
    """The program waits for something that nothing in the simulation will ever bring about, or has not in its time.

    Its text lists the tasks and where each waits, and the tasks of `Host.start` that have failed.
    """

    def __init__(self, reason: str, waiting: Iterable[str], failed: Iterable[str]) -> None:
        lines = [
            f"{reason}. Look for an await whose other side has ended",
            *(f"  waiting: {each}" for each in waiting),
            *(f"  failed:  {each}" for each in failed),
        ]
        super().__init__("\n".join(lines))


class NowhereError(RuntimeError):
    """Code asked for a network, but runs on no simulated machine."""

    def __init__(self) -> None:
        super().__init__("this code runs on no simulated machine. Put it inside `with host:`")


class _Timer(asyncio.TimerHandle):
    """A timer: those due at the same time in the order in which they were set, those of a sleeping machine later."""

    __slots__ = ("order",)
    order: int
    _when: float
    _context: Context

    def __lt__(self, other: object) -> bool:
        return isinstance(other, _Timer) and (self._when, self.order) < (other._when, other.order)

    def _run(self) -> None:
        visited = self._context.get(_visited)
        if visited and visited[-1].is_asleep:
            visited[-1].defer(self)
        else:
            super()._run()


class _Clock:
    """Stands where an event loop has its selector: instead of waiting for the network, it moves the time."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[object]:
        loop = self._loop
        if timeout is None:
            raise loop._stuck("everything waits and nothing is scheduled")
        if timeout > 0:
            loop._now = loop._scheduled[0].when()
            # What the loop adds to the time to see who is due: it must make a difference in floating point.
            loop._clock_resolution = max(_RESOLUTION, math.ulp(loop._now))
            if loop._now > loop.deadline:
                raise loop._stuck("the program has not come to its end")
        loop.turns += 1
        if loop.turns % _COLLECT_EVERY == 0:
            gc.collect()
        return []


class SimLoop(asyncio.BaseEventLoop):
    """The event loop of a simulation. Its time starts at 0."""

    _ready: Any
    _scheduled: list[_Timer]
    _clock_resolution: float

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._orders = itertools.count()
        self._selector = _Clock(self)
        self.deadline = math.inf
        """The time at which a program that still runs is stuck."""
        self.turns = 0
        """How often it has turned: what a simulation costs."""
        self.failed: list[tuple[str, asyncio.Task[Any]]] = []
        """Tasks of `Host.start` that have failed, and their hosts' names."""

    def time(self) -> float:
        """Simulated seconds since the loop was made."""
        return self._now

    @property
    def machine(self) -> SimMachine:
        """The machine of the running code, for `quice.machine.this_machine`. Raises `NowhereError`."""
        visited = _visited.get(())
        if not visited:
            raise NowhereError
        return visited[-1]

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: Unpack[Ts], context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call at that time; of equal times, in the order of the calls."""
        timer = _Timer(max(when, self._now), callback, args, self, context)
        timer.order = next(self._orders)
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer

    def run_soon(self, timers: Iterable[asyncio.TimerHandle]) -> None:
        """Run timers that are due in the next turn, unless they are cancelled."""
        self._ready.extend(timers)

    def run_in_executor(
        self, executor: object, func: Callable[[Unpack[Ts]], T], *args: Unpack[Ts]
    ) -> asyncio.Future[T]:
        """Do the work now: on virtual time, a thread takes none."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    async def create_connection(self, protocol_factory: Callable[[], Any], *args: Any, **options: Any) -> Any:
        """See asyncio. A TCP connection from the machine of the running code, without TLS."""
        return await self.machine.tcp.create_connection(protocol_factory, *args, **options)

    async def create_server(self, protocol_factory: Callable[[], Any], *args: Any, **options: Any) -> Any:
        """See asyncio."""
        return await self.machine.tcp.create_server(protocol_factory, *args, **options)

    async def create_datagram_endpoint(self, protocol_factory: Callable[[], Any], *args: Any, **options: Any) -> Any:
        """See asyncio."""
        return await self.machine.create_datagram_endpoint(protocol_factory, *args, **options)

    async def getaddrinfo(self, host: Any, port: Any, **hints: Any) -> Any:
        """See asyncio. Names are those of the simulated world's hosts."""
        return self.machine.getaddrinfo(host, port, **hints)

    def _stuck(self, reason: str) -> StuckError:
        return StuckError(
            f"at {self._now:.6f} s of simulated time {reason}", waiting_tasks(self), failed_tasks(self.failed)
        )

    def _process_events(self, event_list: list[object]) -> None:
        """There is no selector that could have any."""

    def _write_to_self(self) -> None:
        """Nobody needs to be woken who never waits."""


@contextlib.contextmanager
def virtual_time() -> Iterator[SimLoop]:
    """A loop that is closed in the end, with what still runs on it cancelled. Garbage is collected when it says."""
    loop = SimLoop()
    collects = gc.isenabled()
    gc.disable()
    try:
        yield loop
        end_all(loop)
    finally:
        if collects:
            gc.enable()
        asyncio.set_event_loop(None)
        loop.close()


def end_all(loop: SimLoop) -> None:
    """Cancel all tasks and wait for them, as `asyncio.run` does in the end."""
    tasks = [task for task in asyncio.all_tasks(loop) if not task.done()]
    for task in tasks:
        task.cancel()
    loop.deadline = loop.time() + _ENDING
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
