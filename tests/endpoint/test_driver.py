"""What turns a machine on an event loop, on both event loops."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import uvloop

from quice.driver import Driver
from quice.wire import Address, Transmit


class Clockwork:
    """A machine that wants to be woken at a time that the test sets, and counts how often it is."""

    def __init__(self) -> None:
        self.due: float | None = None
        self.woken = 0

    def receive(self, data: bytes, source: Address, destination: Address, now: float) -> bool:
        return True

    def timeout(self) -> float | None:
        return self.due

    def handle_timeout(self, now: float) -> None:
        self.due = None
        self.woken += 1

    def transmits(self) -> Iterator[Transmit]:
        return iter(())

    def events(self) -> Iterator[None]:
        return iter(())


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("seconds", [0.0001, 0.0004, 0.01])
def test_a_machine_that_wants_to_be_woken_soon_can_be_stepped_before_that(new_loop: object, seconds: float) -> None:
    async def play() -> int:
        machine = Clockwork()
        driver = Driver(machine, lambda transmit: None, lambda event: None)
        machine.due = asyncio.get_running_loop().time() + seconds
        driver.step()
        driver.step()
        await asyncio.sleep(0.05)
        driver.close()
        return machine.woken

    loop = new_loop()  # type: ignore[operator]
    try:
        assert loop.run_until_complete(play()) == 1
    finally:
        loop.close()
