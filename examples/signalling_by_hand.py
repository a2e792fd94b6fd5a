"""Signalling by two texts that people copy, from one window to the other or across the world: no server but for STUN.

python examples/signalling_by_hand.py              # prints an offer, and wants its answer
python examples/signalling_by_hand.py OFFER        # on the other machine: prints the answer
"""

import asyncio
import sys

from quice import Endpoint

ALPN = "hello/1"


async def offer() -> None:
    # Beyond one network, `stun_servers=[Address(...)]` tells each side's public address.
    async with Endpoint.bind() as endpoint, await endpoint.offer(alpn=ALPN) as offer:
        print(offer.description, flush=True)
        connection = await offer.complete(await asyncio.to_thread(sys.stdin.readline))
        stream = await connection.open_stream()
        await stream.write(b"alice")
        stream.finish()
        print((await stream.read()).decode())
        connection.close()


async def answer(text: str) -> None:
    async with Endpoint.bind(alpns=[ALPN]) as endpoint, await endpoint.answer(text) as answer:
        print(answer.description, flush=True)
        connection = await answer.connected()
        stream = await connection.accept_stream()
        await stream.write(b"hello, " + await stream.read())
        stream.finish()
        await connection.wait_closed()


if __name__ == "__main__":
    asyncio.run(answer(sys.argv[1]) if len(sys.argv) > 1 else offer())
