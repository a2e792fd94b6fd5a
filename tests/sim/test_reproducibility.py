"""A run is the same again, byte for byte, in whatever process; and what it costs when nothing happens."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import subprocess
import sys
import uuid
from collections import Counter
from pathlib import Path

from quice import Endpoint, Identity
from quice.server import Server
from quice.sim.kinds import Nat
from quice.sim.packet import Fate, Passage
from quice.sim.simulation import Simulation
from tests.sim.session import echo

ROOT = Path(__file__).parents[2]


def digest(seed: int, hash_seed: int) -> str:
    """Of a session in a fresh process, whose sets and dictionaries of strings are ordered by `hash_seed`."""
    command = [sys.executable, "-m", "tests.sim.session", str(seed)]
    environment = os.environ | {"PYTHONHASHSEED": str(hash_seed)}
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return found.stdout


def test_a_seed_gives_the_same_packets_in_every_process_and_another_seed_gives_others() -> None:
    first = digest(1, hash_seed=1)
    assert first == digest(1, hash_seed=2)
    assert first != digest(2, hash_seed=1)


def test_python_s_own_randomness_is_of_the_seed_and_given_back() -> None:
    def draw() -> list[object]:
        return [random.random(), secrets.token_bytes(8), uuid.uuid4(), os.urandom(8), Identity.generate().peer]

    def simulated(seed: int) -> list[object]:
        with Simulation(seed):
            return draw()

    random.seed(5)
    expected = [random.random(), random.random()]
    random.seed(5)
    assert random.random() == expected[0]
    assert simulated(1) == simulated(1)
    assert all(one != other for one, other in zip(simulated(1), simulated(2), strict=True))
    assert random.random() == expected[1]
    assert secrets.token_bytes(8) != secrets.token_bytes(8)
    assert all(one != other for one, other in zip(draw(), draw(), strict=True))


async def test_an_hour_of_two_idle_peers_is_few_events(simulation: Simulation, rendezvous: Server) -> None:
    world = simulation.world
    alice, bob = (world.site(nat=Nat.PORT_RESTRICTED).host(name) for name in ("alice", "bob"))
    with bob:
        far = await Endpoint.bind(server=rendezvous.url, alpns=["test/1"])
        bob.start(echo(far))
    with alice:
        near = await Endpoint.bind(server=rendezvous.url)
        connection = await near.connect(far.peer, alpn="test/1")
    await asyncio.sleep(60)
    sent: Counter[str] = Counter()

    def count(passage: Passage) -> None:
        if passage.fate is Fate.SENT:
            sent[passage.packet.protocol.name] += 1

    world.watch(count)
    before = simulation.loop.turns
    await asyncio.sleep(3500)
    turns = simulation.loop.turns - before
    # Pings of both paths, the direct one and the relay's, every 10 s, each way and answered; every 20 s pings on both
    # WebSockets, by either side, and a question to the STUN server; every 25 s one to the relay: 3 packets a second.
    assert sum(sent.values()) < 12_000, sent
    assert turns < 30_000
    assert not connection.is_closed
