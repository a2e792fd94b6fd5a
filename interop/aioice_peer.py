"""aioice behind the lines of `interop.lines`: `python -m interop.aioice_peer -role controlling`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib

from aioice import Candidate, Connection

from interop.lines import Line, heard, say


class Peer:
    """An aioice connection, and the tasks that wait for it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._gathered = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def take(self, line: Line) -> None:
        """Do what a line asks for."""
        connection = self._connection
        match line["type"]:
            case "start":
                say("credentials", ufrag=connection.local_username, pwd=connection.local_password)
                self._tasks.append(asyncio.create_task(self._gather()))
            case "credentials":
                connection.remote_username, connection.remote_password = line["ufrag"], line["pwd"]
                connection.remote_is_lite = line.get("lite", False)
                self._tasks.append(asyncio.create_task(self._connect()))
            case "candidate":
                text = line["candidate"].removeprefix("candidate:")
                await connection.add_remote_candidate(Candidate.from_sdp(text))
            case "end-of-candidates":
                await connection.add_remote_candidate(None)
            case "send":
                await connection.send(line["data"].encode())

    async def close(self) -> None:
        """End it all."""
        await self._connection.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _gather(self) -> None:
        """Gather: it tells of its candidates only when it has them all."""
        await self._connection.gather_candidates()
        self._gathered.set()
        for candidate in self._connection.local_candidates:
            say("candidate", candidate=f"candidate:{candidate.to_sdp()}")
        say("end-of-candidates")

    async def _connect(self) -> None:
        await self._gathered.wait()
        try:
            await self._connection.connect()
        except ConnectionError as error:
            say("failed", reason=str(error))
            return
        pair = self._connection._nominated[1]
        say(
            "selected",
            local=_text(pair.local_candidate),
            remote=_text(pair.remote_candidate),
            role="controlling" if self._connection.ice_controlling else "controlled",
        )
        with contextlib.suppress(ConnectionError):
            while True:
                say("received", data=(await self._connection.recv()).decode("ascii", "replace"))


def _text(candidate: Candidate) -> str:
    host = f"[{candidate.host}]" if ":" in candidate.host else candidate.host
    return f"{candidate.type} {host}:{candidate.port}"


async def run(controlling: bool, stun: tuple[str, int] | None) -> None:
    peer = Peer(Connection(ice_controlling=controlling, stun_server=stun))
    say("ready")
    async for line in heard():
        await peer.take(line)
    await peer.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m interop.aioice_peer", description=__doc__)
    parser.add_argument("-role", choices=["controlling", "controlled"], required=True)
    parser.add_argument("-stun", metavar="HOST:PORT", help="a STUN server, by IPv4 address")
    options = parser.parse_args()
    stun = None
    if options.stun is not None:
        host, _, port = options.stun.rpartition(":")
        stun = (host, int(port))
    asyncio.run(run(options.role == "controlling", stun))


if __name__ == "__main__":
    main()
