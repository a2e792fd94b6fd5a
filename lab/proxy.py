"""An HTTP proxy that knows CONNECT alone (RFC 9110 §9.3.6): `python -m lab.proxy ADDRESS PORT`."""

from __future__ import annotations

import asyncio
import json
import sys

_READ = 1 << 16
_PATIENCE = 10.0


async def serve(address: str, port: int) -> None:
    """Serve until killed."""
    server = await asyncio.start_server(_serve_client, address, port)
    print(json.dumps({"event": "ready"}), flush=True)
    await server.serve_forever()


async def _serve_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _PATIENCE)
        method, target, _ = head.split(b"\r\n", 1)[0].split()
        host, _, port = target.decode().rpartition(":")
        if method != b"CONNECT":
            raise ValueError(f"{method!r} is not CONNECT")
        there = await asyncio.open_connection(host.strip("[]"), int(port))
    except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.TimeoutError) as error:
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
        print(json.dumps({"event": "refused", "reason": str(error)}), flush=True)
        writer.close()
        return
    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    print(json.dumps({"event": "connected", "to": target.decode()}), flush=True)
    await asyncio.gather(_carry(reader, there[1]), _carry(there[0], writer))


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_READ):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
