"""An echo service and its client, on any two machines that reach the same rendezvous server.

quice serve                                             # somewhere both can reach; prints its URL
python examples/echo.py ws://server:4780                # prints its PeerId
python examples/echo.py ws://server:4780 PEER "hello"
"""

import asyncio
import sys

from quice import Connection, Endpoint, Error, PeerId


async def serve(url: str) -> None:
    tasks = set()
    async with Endpoint.bind(server=url, alpns=["echo/1"]) as endpoint:
        print(endpoint.peer, flush=True)
        async for connection in endpoint:
            task = asyncio.create_task(answer(connection))
            tasks.add(task)
            task.add_done_callback(tasks.discard)


async def answer(connection: Connection) -> None:
    try:
        async for stream in connection:
            while data := await stream.read():
                await stream.write(data)
            stream.finish()
    except Error as error:
        print(f"{connection.peer}: {error}", file=sys.stderr)


async def ask(url: str, peer: PeerId, text: str) -> None:
    async with Endpoint.bind(server=url) as endpoint, await endpoint.connect(peer, alpn="echo/1") as connection:
        stream = await connection.open_stream()
        await stream.write(text.encode())
        stream.finish()
        print((await stream.read()).decode(), "by", connection.paths[0].remote)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        asyncio.run(serve(sys.argv[1]))
    else:
        asyncio.run(ask(sys.argv[1], PeerId.parse(sys.argv[2]), sys.argv[3]))
