"""Signalling over queues, in one process: the shortest carrier there is.

    python examples/signalling_queues.py

`quice.signal.signalling_pair` makes the same for tests.
"""

import asyncio

from quice import Endpoint
from quice.errors import SignallingClosedError
from quice.signal import Message, decode, encode

ALPN = "hello/1"


class QueueSignalling:
    """One side of a session: what it carries them by, the messages don't know."""

    def __init__(self, outgoing: asyncio.Queue[bytes], incoming: asyncio.Queue[bytes]) -> None:
        self.outgoing, self.incoming = outgoing, incoming

    async def send(self, message: Message) -> None:
        await self.outgoing.put(encode(message))

    async def receive(self) -> Message:
        if not (data := await self.incoming.get()):
            raise SignallingClosedError
        return decode(data)

    async def close(self) -> None:
        for queue in (self.outgoing, self.incoming):
            await queue.put(b"")


async def main() -> None:
    there: asyncio.Queue[bytes] = asyncio.Queue()
    back: asyncio.Queue[bytes] = asyncio.Queue()
    async with Endpoint.bind() as alice, Endpoint.bind(alpns=[ALPN]) as bob:
        responding = asyncio.create_task(bob.respond(alice.peer, QueueSignalling(back, there)))
        connection = await alice.connect(bob.peer, alpn=ALPN, signalling=QueueSignalling(there, back))
        await responding
        stream = await connection.open_stream()
        await stream.write(b"hello")
        stream.finish()
        accepted = await bob.accept()
        received = await (await accepted.accept_stream()).read()
        print(f"bob received {received!r} over {accepted.paths[0].kind.value} {accepted.paths[0].remote}")


if __name__ == "__main__":
    asyncio.run(main())
