"""The event loop on virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
import weakref
from collections.abc import AsyncIterator, Iterator

import pytest

from quice.sim.clock import NowhereError, SimLoop, StuckError, virtual_time


@pytest.fixture
def loop() -> Iterator[SimLoop]:
    with virtual_time() as loop:
        yield loop


def test_a_day_of_sleep_takes_no_time(loop: SimLoop) -> None:
    started = time.perf_counter()
    loop.run_until_complete(asyncio.sleep(86_400))
    assert loop.time() == 86_400
    assert time.perf_counter() - started < 1


def test_a_timer_of_a_century_fires(loop: SimLoop) -> None:
    loop.run_until_complete(asyncio.sleep(3.2e9))
    assert loop.time() == 3.2e9


def test_timers_fire_at_their_exact_times_and_equal_ones_in_the_order_of_their_setting(loop: SimLoop) -> None:
    seen: list[tuple[float, str]] = []
    # Floating point: 0.1 + 0.2 is not 0.3.
    for when, name in ((0.3, "a"), (0.1, "b"), (0.3, "c"), (0.1 + 0.2, "d"), (0.3, "e")):
        loop.call_at(when, lambda name=name: seen.append((loop.time(), name)))
    loop.run_until_complete(asyncio.sleep(1))
    assert [name for _, name in seen] == ["b", "a", "c", "e", "d"]
    assert seen[0][0] == 0.1


def test_a_timer_of_the_past_is_due_now(loop: SimLoop) -> None:
    async def main() -> float:
        await asyncio.sleep(5)
        fired: asyncio.Future[float] = loop.create_future()
        loop.call_at(1.0, lambda: fired.set_result(loop.time()))
        return await fired

    assert loop.run_until_complete(main()) == 5


def test_waiting_for_what_never_happens_is_an_error(loop: SimLoop) -> None:
    with pytest.raises(StuckError, match="nothing is scheduled"):
        loop.run_until_complete(loop.create_future())


def test_work_for_a_thread_is_done_on_the_spot(loop: SimLoop) -> None:
    async def main() -> None:
        assert await asyncio.to_thread(threading.get_ident) == threading.get_ident()
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)
        assert loop.time() == 0

    loop.run_until_complete(main())


def test_timeouts_of_asyncio_are_on_virtual_time(loop: SimLoop) -> None:
    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.sleep(100), 30)

    loop.run_until_complete(main())
    assert loop.time() == 30


def test_a_network_needs_a_machine(loop: SimLoop) -> None:
    with pytest.raises(NowhereError, match="runs on no simulated machine"):
        loop.run_until_complete(asyncio.open_connection("192.0.2.1", 80))


def test_what_still_runs_is_cancelled_in_the_end() -> None:
    ended = []

    async def forever() -> None:
        try:
            await asyncio.sleep(1e9)
        finally:
            ended.append(True)

    with virtual_time() as loop:
        task = loop.create_task(forever())
        loop.run_until_complete(asyncio.sleep(1))
    assert task.cancelled()
    assert ended


def test_garbage_is_collected_at_the_same_turns_of_every_run() -> None:
    class Loop:
        """One that only the collector gets rid of."""

        def __init__(self, seen: list[int], loop: SimLoop) -> None:
            self.itself = self
            weakref.finalize(self, lambda: seen.append(loop.turns))

    def run(litter: int) -> list[int]:
        seen: list[int] = []

        async def main(loop: SimLoop) -> None:
            Loop(seen, loop)
            for _ in range(50_000):
                await asyncio.sleep(0.001)
                # What would make the collector run by itself, sooner or later.
                [[] for _ in range(litter)]

        with virtual_time() as loop:
            loop.run_until_complete(main(loop))
        return seen

    assert run(0) == run(50)
    assert len(run(0)) == 1
    assert gc.isenabled()


def test_a_program_that_does_not_end_when_it_is_cancelled_is_told() -> None:
    async def stubborn() -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(10)

    with pytest.raises(StuckError, match=r"waiting: stubborn, stubborn \(test_clock.py"), virtual_time() as loop:
        task = loop.create_task(stubborn(), name="stubborn")
        loop.run_until_complete(asyncio.sleep(1))
    assert loop.time() < 700
    assert loop.is_closed()
    assert not task.done()


def test_asynchronous_generators_are_closed_in_the_end() -> None:
    ended = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(1)
            ended.append(True)

    async def first(generator: AsyncIterator[int]) -> int:
        return await anext(generator)

    with virtual_time() as loop:
        generator = numbers()
        assert loop.run_until_complete(first(generator)) == 1
    assert ended


def test_an_error_in_a_callback_is_reported_and_the_loop_goes_on(loop: SimLoop) -> None:
    reported: list[object] = []
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
    loop.call_later(1, lambda: 1 // 0)
    loop.run_until_complete(asyncio.sleep(2))
    assert [type(each) for each in reported] == [ZeroDivisionError]


def test_a_cancelled_timer_does_not_fire_nor_hold_up_the_end(loop: SimLoop) -> None:
    timers = [loop.call_later(seconds, pytest.fail, "it fired") for seconds in range(1, 500)]
    for timer in timers:
        timer.cancel()
    with pytest.raises(StuckError):
        loop.run_until_complete(loop.create_future())
    assert loop.time() == 0
