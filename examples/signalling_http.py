"""Signalling over the HTTP API that an application has anyway, with long polling.

    python examples/signalling_http.py serve 8000                            # prints its URL
    python examples/signalling_http.py listen http://127.0.0.1:8000          # prints its PeerId
    python examples/signalling_http.py call http://127.0.0.1:8000 PEER

The API is a box for each name, into which messages are put, and out of which they are read by their number, so that a
request may be repeated. Any web framework does; this one is aiohttp. Who may use it is the application's business.
"""

import asyncio
import secrets
import sys
from collections import defaultdict
from contextlib import suppress

from aiohttp import ClientError, ClientSession, web

from quice import Endpoint, PeerId
from quice.errors import SignallingClosedError, SignallingError
from quice.signal import Message, decode, encode

ALPN = "hello/1"
POLL = 25.0
END = b""


class HttpSignalling:
    """One side of a session: two boxes, one for what it sends and one for what it receives."""

    def __init__(self, http: ClientSession, outgoing: str, incoming: str) -> None:
        self.http, self.outgoing, self.incoming, self.received = http, outgoing, incoming, 0

    async def send(self, message: Message) -> None:
        await put(self.http, self.outgoing, encode(message))

    async def receive(self) -> Message:
        data = await get(self.http, self.incoming, self.received)
        self.received += 1
        if data == END:
            raise SignallingClosedError
        return decode(data)

    async def close(self) -> None:
        for box in (self.outgoing, self.incoming):
            with suppress(SignallingError):
                await put(self.http, box, END)


async def put(http: ClientSession, box: str, data: bytes) -> None:
    """Put this into a box."""
    try:
        async with http.post(f"/{box}", data=data, raise_for_status=True):
            pass
    except ClientError as error:
        raise SignallingError(f"the web server does not take messages: {error}") from error


async def get(http: ClientSession, box: str, number: int) -> bytes:
    """What was put there as the number so-and-so, once it is there."""
    while True:
        try:
            async with http.get(f"/{box}/{number}", raise_for_status=True) as response:
                if response.status == web.HTTPOk.status_code:
                    return await response.read()
        except ClientError as error:
            raise SignallingError(f"the web server gives no messages: {error}") from error


def application() -> web.Application:
    """The web server's part."""
    boxes: defaultdict[str, list[bytes]] = defaultdict(list)
    news = asyncio.Condition()

    async def post(request: web.Request) -> web.Response:
        async with news:
            boxes[request.match_info["box"]].append(await request.read())
            news.notify_all()
        return web.Response()

    async def poll(request: web.Request) -> web.Response:
        box, number = boxes[request.match_info["box"]], int(request.match_info["number"])
        async with news:
            try:
                await asyncio.wait_for(news.wait_for(lambda: number < len(box)), POLL)
            except asyncio.TimeoutError:
                return web.Response(status=204)
        return web.Response(body=box[number])

    web_application = web.Application()
    web_application.add_routes([web.post("/{box}", post), web.get("/{box}/{number:[0-9]+}", poll)])
    return web_application


async def serve(port: int) -> None:
    runner = web.AppRunner(application())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print("http://{}:{}".format(*runner.addresses[0]), flush=True)
    await asyncio.Event().wait()


async def listen(url: str) -> None:
    async with ClientSession(url) as http, Endpoint.bind(alpns=[ALPN]) as endpoint:
        print(endpoint.peer, flush=True)
        # Who calls puts its own name and that of a session into the box with the name of whom it calls.
        caller, session = (await get(http, str(endpoint.peer), 0)).decode().split()
        await endpoint.respond(PeerId.parse(caller), HttpSignalling(http, f"{session}-back", f"{session}-there"))
        connection = await endpoint.accept()
        stream = await connection.accept_stream()
        await stream.write(b"hello, " + await stream.read())
        stream.finish()
        await connection.wait_closed()


async def call(url: str, peer: PeerId) -> None:
    async with ClientSession(url) as http, Endpoint.bind() as endpoint:
        session = secrets.token_hex(16)
        await put(http, str(peer), f"{endpoint.peer} {session}".encode())
        signalling = HttpSignalling(http, f"{session}-there", f"{session}-back")
        async with await endpoint.connect(peer, alpn=ALPN, signalling=signalling) as connection:
            stream = await connection.open_stream()
            await stream.write(b"alice")
            stream.finish()
            print((await stream.read()).decode())


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", port]:
            asyncio.run(serve(int(port)))
        case ["listen", url]:
            asyncio.run(listen(url))
        case ["call", url, peer]:
            asyncio.run(call(url, PeerId.parse(peer)))
