"""A chat whose users show nobody where they are before they trust him: it begins through a relay, on both sides, and
becomes direct once both have typed "/trust". Ctrl-D ends it.

quice serve                                             # somewhere both can reach; prints its URL
python examples/trust.py ws://server:4780               # prints its PeerId
python examples/trust.py ws://server:4780 PEER
"""

import asyncio
import contextlib
import sys

from quice import Connection, Endpoint, Error, PathChanged, PeerId, Stream

ALPN = "trust/1"


async def main(url: str, peer: PeerId | None) -> None:
    async with Endpoint.bind(server=url, alpns=[ALPN], policy="relay") as endpoint:
        if peer is not None:
            connection = await endpoint.connect(peer, alpn=ALPN, policy="relay")
            stream = await connection.open_stream()
            await stream.write(b"hello\n")
        else:
            print(endpoint.peer, flush=True)
            connection = await endpoint.accept()
            stream = await connection.accept_stream()
        async with connection:
            print(f"talking with {connection.peer} over a {connection.path}", flush=True)
            following = asyncio.create_task(follow(connection))
            listening = asyncio.create_task(listen(stream))
            while line := await asyncio.to_thread(sys.stdin.readline):
                if line.strip() == "/trust":
                    connection.set_policy("auto")
                else:
                    await stream.write(line.encode())
            stream.finish()
            await listening
            following.cancel()


async def listen(stream: Stream) -> None:
    with contextlib.suppress(Error):
        while text := await stream.read():
            print(">", text.decode(errors="replace").rstrip(), flush=True)


async def follow(connection: Connection) -> None:
    async for event in connection.path_events():
        if isinstance(event, PathChanged):
            print(f"now over a {event.after}", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], PeerId.parse(sys.argv[2]) if len(sys.argv) > 2 else None))
