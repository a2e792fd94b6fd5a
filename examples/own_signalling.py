"""Two endpoints find each other over a channel of the application's own: here, a pair of queues in one process.

    python examples/own_signalling.py

For two machines, write a class with the three methods of `quice.signal.Signalling` that carries
`quice.signal.encode(message)` over what you have: a chat, a database, a broker.
"""

import asyncio

from quice import Endpoint
from quice.signal import signalling_pair


async def main() -> None:
    ours, theirs = signalling_pair()
    async with Endpoint.bind() as alice, Endpoint.bind(alpns=["hello/1"]) as bob:
        responding = asyncio.create_task(bob.respond(alice.peer, theirs))
        connection = await alice.connect(bob.peer, alpn="hello/1", signalling=ours)
        accepted = await bob.accept()
        await responding

        stream = await connection.open_stream()
        await stream.write(b"hello")
        stream.finish()
        received = await (await accepted.accept_stream()).read()
        print(f"bob received {received!r} over {accepted.paths[0].kind.value} {accepted.paths[0].remote}")


if __name__ == "__main__":
    asyncio.run(main())
