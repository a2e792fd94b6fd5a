"""aioquic, qh3 and aiopquic, whose APIs are alike: `LIBRARY server CERT KEY`, or
`LIBRARY client PORT bytes|requests N`. It runs in an environment that has the library, and not quice."""

from __future__ import annotations

import asyncio
import importlib
import json
import socket
import ssl
import sys
import time

LIBRARY = sys.argv[1]
client_module = importlib.import_module(f"{LIBRARY}.asyncio.client")
server_module = importlib.import_module(f"{LIBRARY}.asyncio.server")
protocol_module = importlib.import_module(f"{LIBRARY}.asyncio.protocol")
configuration_module = importlib.import_module(f"{LIBRARY}.quic.configuration")
events = importlib.import_module(f"{LIBRARY}.quic.events")

SMALL = 100
BLOCK = 256 << 10
WINDOW = 16 << 20
# aioquic and qh3 take all that is written; this much may wait, so that memory and their buffers stay small.
BACKLOG = 2 << 20


class Protocol(protocol_module.QuicConnectionProtocol):
    """Counts what comes on each stream; a server answers when a stream ends, a client's future is done."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)
        self.received: dict[int, int] = {}
        self.waiting: dict[int, asyncio.Future[int]] = {}

    def quic_event_received(self, event: object) -> None:
        if isinstance(event, events.StreamDataReceived):
            total = self.received[event.stream_id] = self.received.get(event.stream_id, 0) + len(event.data)
            if event.end_stream:
                del self.received[event.stream_id]
                if self._quic.configuration.is_client:
                    self.waiting.pop(event.stream_id).set_result(total)
                else:
                    self._quic.send_stream_data(event.stream_id, bytes(total if total <= SMALL else 8), True)
                    self.flush()

    def flush(self) -> None:
        if hasattr(self, "transmit"):
            self.transmit()

    async def send(self, stream_id: int, data: bytes, end: bool = False) -> None:
        if hasattr(self._quic, "send_stream_data_drained"):
            await self._quic.send_stream_data_drained(stream_id, data, end)
            return
        self._quic.send_stream_data(stream_id, data, end)
        self.flush()
        streams = getattr(self._quic, "_streams", {})
        while stream_id in streams and len(streams[stream_id].sender._buffer) > BACKLOG:
            await asyncio.sleep(0)

    def answer(self, stream_id: int) -> asyncio.Future[int]:
        """Done when the server's end of the stream has come."""
        waiter = self.waiting[stream_id] = asyncio.get_running_loop().create_future()
        return waiter


def configuration(is_client: bool) -> object:
    made = configuration_module.QuicConfiguration(is_client=is_client, alpn_protocols=["bench"])
    made.max_data = made.max_stream_data = WINDOW
    made.idle_timeout = 120.0
    made.verify_mode = ssl.CERT_NONE
    # What the others find out to fit the path; these two take it as given, and by default send 1,200 bytes.
    made.max_datagram_size = 1452
    return made


async def server(certificate: str, key: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = configuration(False)
    made.load_cert_chain(certificate, key)
    await server_module.serve("127.0.0.1", port, configuration=made, create_protocol=Protocol)
    print(json.dumps({"port": port}), flush=True)
    await asyncio.sleep(3600)


async def client(port: int, mode: str, count: int) -> None:
    options = {"configuration": configuration(True), "create_protocol": Protocol}
    async with client_module.connect("127.0.0.1", port, **options) as protocol:
        if mode == "bytes":
            start = time.perf_counter()
            stream_id = protocol._quic.get_next_available_stream_id()
            answer = protocol.answer(stream_id)
            block = bytes(BLOCK)
            for _ in range(count // BLOCK):
                await protocol.send(stream_id, block)
            await protocol.send(stream_id, b"", True)
            await answer
            print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)
        else:
            times = []
            for _ in range(count):
                start = time.perf_counter()
                stream_id = protocol._quic.get_next_available_stream_id()
                answer = protocol.answer(stream_id)
                protocol._quic.send_stream_data(stream_id, bytes(SMALL), True)
                protocol.flush()
                await answer
                times.append(time.perf_counter() - start)
            print(json.dumps({"times": times}), flush=True)


if __name__ == "__main__":
    if sys.argv[2] == "server":
        asyncio.run(server(sys.argv[3], sys.argv[4]))
    else:
        asyncio.run(client(int(sys.argv[3]), sys.argv[4], int(sys.argv[5])))
