"""quice through its public API: `LOOP server`, or `LOOP client PORT bytes|requests|idle N`, where LOOP is asyncio or
uvloop."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time

from quice import Address, Connection, Endpoint, Identity, Stream, TransportConfig

SMALL = 100
BLOCK = 256 << 10
# Both sides derive the server's key from this, so that the client knows whom to ask for.
SERVER = Identity(bytes(range(32)))
CONFIG = TransportConfig(idle_timeout=120.0)


async def answer(stream: Stream) -> None:
    total = len(await stream.read())
    if total > SMALL:
        buffer = bytearray(1 << 20)
        while count := await stream.readinto(buffer):
            total += count
    await stream.write(bytes(total if total <= SMALL else 8))
    stream.finish()


async def serve_connection(connection: Connection) -> None:
    tasks = set()
    async for stream in connection:
        task = asyncio.create_task(answer(stream))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def server() -> None:
    async with Endpoint.bind(SERVER, alpns=["bench"], host="127.0.0.1", config=CONFIG) as endpoint:
        print(json.dumps({"port": endpoint.port}), flush=True)
        tasks = set()
        async for connection in endpoint:
            tasks.add(asyncio.ensure_future(serve_connection(connection)))


async def client(port: int, mode: str, count: int) -> None:
    async with Endpoint.bind(host="127.0.0.1", config=CONFIG) as endpoint:

        async def connect() -> Connection:
            return await endpoint.connect(SERVER.peer, alpn="bench", address=Address("127.0.0.1", port))

        if mode == "idle":
            connections = [await connect() for _ in range(count)]
            print(json.dumps({"connections": len(connections)}), flush=True)
            await asyncio.sleep(3600)
        connection = await connect()
        await {"bytes": send_bytes, "requests": send_requests}[mode](connection, count)


async def send_bytes(connection: Connection, count: int) -> None:
    start = time.perf_counter()
    stream = await connection.open_stream()
    block = bytes(BLOCK)
    for _ in range(count // BLOCK):
        await stream.write(block)
    stream.finish()
    await stream.readexactly(8)
    print(json.dumps({"seconds": time.perf_counter() - start}))


async def send_requests(connection: Connection, count: int) -> None:
    times = []
    for _ in range(count):
        start = time.perf_counter()
        stream = await connection.open_stream()
        await stream.write(bytes(SMALL))
        stream.finish()
        await stream.readexactly(SMALL)
        times.append(time.perf_counter() - start)
    print(json.dumps({"times": times}))


if __name__ == "__main__":
    run = importlib.import_module(sys.argv[1]).run
    if sys.argv[2] == "server":
        run(server())
    else:
        run(client(int(sys.argv[3]), sys.argv[4], int(sys.argv[5])))
