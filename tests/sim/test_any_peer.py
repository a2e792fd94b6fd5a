"""A peer that says anything, in any order: a session with it comes to a defined end, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import msgspec
import pytest

from quice import Endpoint, Identity
from quice.errors import ConnectError, SignallingError
from quice.signal import Answer, Message, Offer, Restart, Signalling, signalling_pair
from quice.sim.simulation import Simulation
from tests.signal.test_messages import HOST, PWD
from tests.signal.test_session import ALL, FOUND

ALPN = "test/1"
WORDS: list[Message] = [
    *ALL,
    FOUND,
    Offer(version=9, ufrag="aaaa", pwd=PWD, alpn=ALPN),
    Offer(version=1, ufrag="aaaa", pwd=PWD, alpn=ALPN, candidates=(HOST,) * 64),
    Restart(version=1, ufrag="aaaa", pwd=PWD, continues=b"unknown."),
    Answer(ufrag="else", pwd=PWD, lite=True),
]


async def talk(signalling: Signalling, dice: random.Random) -> None:
    """Say anything, now and then, and listen."""
    with suppress(SignallingError):
        for _ in range(dice.choice((1, 5, 40, 400))):
            await signalling.send(dice.choice(WORDS))
            if dice.random() < 0.2:
                await asyncio.sleep(dice.choice((0.0, 0.01, 0.5)))
        if dice.random() < 0.5:
            await signalling.close()


@pytest.mark.parametrize("seed", range(100))
def test_whatever_a_peer_says_a_session_with_it_ends_and_leaves_nothing_behind(seed: int) -> None:
    dice = random.Random(seed)

    async def main() -> None:
        with simulation.world.host("alice"):
            async with Endpoint.bind(alpns=[ALPN]) as endpoint:
                ours, theirs = signalling_pair()
                peer = Identity(dice.randbytes(32)).peer
                talking = asyncio.create_task(talk(theirs, dice))
                with suppress(ConnectError):
                    if dice.random() < 0.5:
                        await endpoint.connect(peer, alpn=ALPN, signalling=ours)
                    else:
                        await theirs.send(msgspec.structs.replace(WORDS[0], alpn=ALPN))  # type: ignore[type-var]
                        await asyncio.wait_for(endpoint.respond(peer, ours), 60)
                talking.cancel()
                await asyncio.gather(talking, return_exceptions=True)
                assert endpoint._surroundings._receivers == []
                assert endpoint._introductions._meetings == {}
                assert not [task for task in asyncio.all_tasks() if "quice" in task.get_name()]

    with Simulation(seed) as simulation:
        simulation.run(main())
