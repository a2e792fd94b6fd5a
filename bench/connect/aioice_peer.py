"""aioice, and aioquic over the pair that it finds: `python -m bench.connect.aioice_peer answer|warm|cold GROUND`.

aioice tells of its candidates when it has them all, so both sides gather before they are asked to connect, where they
can: whoever answers always, who connects only in "warm". The certificate is not verified.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

from aioice import Candidate, Connection
from aioquic.asyncio import QuicConnectionProtocol
from aioquic.asyncio.server import QuicServer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from bench.connect.lines import PATIENCE, SETTLE, SIZE, Ground, address, say, told_to_go
from bench.connect.mailbox import Mailbox
from interop.certificates import certify

ALPN = "bench-connect"
NAME = "aioice"
PEER = ("192.0.2.1", 1)
"""What QUIC takes for the address of the one peer that there is."""


class OverIce:
    """What aioquic takes for a UDP transport."""

    def __init__(self, ice: Connection) -> None:
        self._ice = ice
        self._tasks: set[asyncio.Task[None]] = set()

    def sendto(self, data: bytes, _address: object = None) -> None:
        task = asyncio.create_task(self._ice.send(data))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def feed(self, protocol: asyncio.DatagramProtocol) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                protocol.datagram_received(await self._ice.recv(), PEER)

    def close(self) -> None:
        """The ICE connection is closed by whoever has opened it."""


def new_ice(ground: Ground, *, controlling: bool) -> Connection:
    turn = ground["turn"]
    relay = (
        {"turn_server": address(turn["address"]), "turn_username": turn["username"], "turn_password": turn["password"]}
        if turn is not None
        else {}
    )
    return Connection(ice_controlling=controlling, stun_server=address(ground["stun"]), **relay)


def description(ice: Connection) -> dict[str, Any]:
    candidates = [candidate.to_sdp() for candidate in ice.local_candidates]
    return {"ufrag": ice.local_username, "pwd": ice.local_password, "candidates": candidates}


async def learn(ice: Connection, message: dict[str, Any]) -> None:
    ice.remote_username, ice.remote_password = message["ufrag"], message["pwd"]
    for line in message["candidates"]:
        await ice.add_remote_candidate(Candidate.from_sdp(line))
    await ice.add_remote_candidate(None)


async def answer(ground: Ground) -> None:
    configuration = QuicConfiguration(is_client=False, alpn_protocols=[ALPN])
    with tempfile.TemporaryDirectory() as folder:
        certify(Path(folder), "localhost")
        configuration.load_cert_chain(Path(folder, "cert.pem"), Path(folder, "key.pem"))
    mailbox = await Mailbox.open(*address(ground["mailbox"]), NAME)
    spare = new_ice(ground, controlling=False)
    await spare.gather_candidates()
    say(peer=NAME)
    tasks = set()
    async for offer in mailbox:
        mailbox.send(to=offer["from"], **description(spare))
        task = asyncio.create_task(answer_one(spare, offer, configuration))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        # The next comes when this one is over.
        await asyncio.sleep(SETTLE)
        spare = new_ice(ground, controlling=False)
        await spare.gather_candidates()


async def answer_one(ice: Connection, offer: dict[str, Any], configuration: QuicConfiguration) -> None:
    await learn(ice, offer)
    try:
        await ice.connect()
    except ConnectionError:
        return
    transport = OverIce(ice)
    server = QuicServer(configuration=configuration, stream_handler=answer_stream)
    server.connection_made(transport)
    await asyncio.wait([asyncio.create_task(transport.feed(server))], timeout=PATIENCE)
    await ice.close()


def answer_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async def reply() -> None:
        writer.write(await reader.readexactly(SIZE))
        writer.write_eof()

    writer.task = asyncio.create_task(reply())  # type: ignore[attr-defined] -- held for as long as the stream


async def call(ground: Ground, *, cold: bool) -> None:
    loop = asyncio.get_running_loop()
    configuration = QuicConfiguration(is_client=True, alpn_protocols=[ALPN], verify_mode=ssl.CERT_NONE)
    ice = new_ice(ground, controlling=True)
    opening = Mailbox.open(*address(ground["mailbox"]), str(uuid.uuid4()))
    if cold:
        await told_to_go()
        started = loop.time()
        mailbox, _ = await asyncio.gather(opening, ice.gather_candidates())
    else:
        mailbox, _ = await asyncio.gather(opening, ice.gather_candidates())
        await asyncio.sleep(SETTLE)
        await told_to_go()
        started = loop.time()
    mailbox.send(to=ground["to"], **description(ice))
    await learn(ice, await mailbox.receive())
    await ice.connect()
    transport = OverIce(ice)
    protocol = QuicConnectionProtocol(QuicConnection(configuration=configuration))
    protocol.connection_made(transport)
    feeding = asyncio.create_task(transport.feed(protocol))
    protocol.connect(PEER)
    await protocol.wait_connected()
    connected = loop.time() - started
    reader, writer = await protocol.create_stream()
    writer.write(bytes(SIZE))
    writer.write_eof()
    await reader.read(SIZE)
    answered = loop.time() - started
    pair = ice._nominated[1]
    relayed = "relay" in (pair.local_candidate.type, pair.remote_candidate.type)
    say(connected=connected, answered=answered, direct=None if relayed else connected)
    protocol.close()
    feeding.cancel()
    await ice.close()


async def run(mode: str, ground: Ground) -> None:
    if mode == "answer":
        await answer(ground)
        return
    try:
        await asyncio.wait_for(call(ground, cold=mode == "cold"), 3 * PATIENCE)
    except (ConnectionError, asyncio.TimeoutError) as error:
        say(failed=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], json.loads(sys.argv[2])))
