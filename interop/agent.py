"""Our ICE agent and gatherer on plain asyncio sockets: `python -m interop.agent -role controlling`."""

from __future__ import annotations

import argparse
import asyncio
import random

from interop.lines import heard, say
from quice.ice import (
    Agent,
    Base,
    CandidateKind,
    Failed,
    Gathered,
    Gatherer,
    GatheringComplete,
    Restarted,
    Role,
    Selected,
)
from quice.ice.sdp import format_candidate, parse_candidate
from quice.network import local_addresses
from quice.stun.message import is_stun
from quice.wire import Address


class Socket(asyncio.DatagramProtocol):
    """One of the agent's sockets, bound to one local address, so that it is known where a datagram came in."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._base = Address(*transport.get_extra_info("sockname")[:2])

    def datagram_received(self, data: bytes, source: tuple[str, int]) -> None:
        self._session.receive(data, Address(*source[:2]), self._base)


class Session:
    """An agent, its gatherer, and what wakes them."""

    def __init__(self, role: Role, stun_servers: list[Address], *, lite: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._rng = random.SystemRandom()
        self._stun_servers = stun_servers
        self._sockets: dict[Address, asyncio.DatagramTransport] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._agent = Agent(role, self._rng, self._loop.time(), lite=lite)
        self._gatherer: Gatherer | None = None

    async def start(self) -> None:
        """Open a socket on each local address, and gather."""
        bases = []
        for local in local_addresses():
            if local.ip.is_link_local:
                continue
            transport, _ = await self._loop.create_datagram_endpoint(lambda: Socket(self), local_addr=(local.host, 0))
            base = Address(*transport.get_extra_info("sockname")[:2])
            self._sockets[base] = transport
            bases.append(Base(base, local.interface))
        self._tell_credentials()
        self._gatherer = Gatherer(bases, self._stun_servers, self._rng, self._loop.time())
        self._step()

    def restart(self) -> None:
        """Begin anew, with the candidates that are known."""
        self._agent.restart(self._loop.time())
        self._step()

    def tell(self, ufrag: str, pwd: str, *, lite: bool, pacing: float | None) -> None:
        """The peer's credentials have come; `pacing` in milliseconds."""
        ta = None if pacing is None else pacing / 1000
        self._agent.set_remote_credentials(ufrag, pwd, self._loop.time(), lite=lite, ta=ta)
        self._step()

    def add(self, line: str) -> None:
        """A candidate of the peer's has come."""
        candidate = parse_candidate(line)
        if candidate is not None:
            self._agent.add_remote_candidate(candidate, self._loop.time())
            self._step()

    def end_of_candidates(self) -> None:
        """The peer has no more of them."""
        self._agent.end_of_remote_candidates(self._loop.time())
        self._step()

    def receive(self, data: bytes, source: Address, base: Address) -> None:
        """Take in a datagram: STUN, or the peer's own."""
        now = self._loop.time()
        # RFC 9443 §3. STUN that no machine wants is a late answer, or a stranger's.
        if is_stun(data):
            if not self._agent.receive(data, source, base, now) and self._gatherer is not None:
                self._gatherer.receive(data, source, base, now)
            self._step()
            return
        pair = self._agent.selected
        # Whether it came over our pair says whether the peer selected the same.
        over_pair = pair is not None and (base, source) == (pair.base, pair.remote.address)
        say("received", data=data.decode("ascii", "replace"), over_pair=over_pair)

    def send(self, data: str) -> None:
        """Send a datagram over the selected pair."""
        pair = self._agent.selected
        assert pair is not None
        self._sockets[pair.base].sendto(data.encode(), pair.remote.address)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._agent.close()
        for transport in self._sockets.values():
            transport.close()

    def _step(self) -> None:
        now = self._loop.time()
        machines = [machine for machine in (self._gatherer, self._agent) if machine is not None]
        for machine in machines:
            while (due := machine.timeout()) is not None and due <= now:
                machine.handle_timeout(now)
        self._tell_events(now)
        for machine in machines:
            for transmit in machine.transmits():
                assert transmit.source is not None
                self._sockets[transmit.source].sendto(transmit.data, transmit.destination)
        times = [time for machine in machines if (time := machine.timeout()) is not None]
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(min(times), self._step) if times else None

    def _tell_credentials(self) -> None:
        credentials = self._agent.credentials
        lite = {"lite": True} if self._agent.lite else {}
        pacing = 1000 * self._agent.proposed_ta
        say("credentials", ufrag=credentials.ufrag, pwd=credentials.pwd, pacing=pacing, **lite)

    def _tell_events(self, now: float) -> None:
        for event in self._gatherer.events() if self._gatherer is not None else ():
            match event:
                case Gathered(candidate):
                    self._agent.add_local_candidate(candidate, now)
                    say("candidate", candidate=format_candidate(candidate))
                case GatheringComplete():
                    self._agent.end_of_local_candidates(now)
                    say("end-of-candidates")
        for outcome in self._agent.events():
            match outcome:
                case Selected(pair):
                    role = self._agent.role.value
                    say("selected", local=str(pair.local), remote=str(pair.remote), role=role)
                case Restarted():
                    self._tell_credentials()
                    for candidate in self._agent.report.local_candidates:
                        if candidate.kind is not CandidateKind.PEER_REFLEXIVE:
                            say("candidate", candidate=format_candidate(candidate))
                    say("end-of-candidates")
                case Failed(reason):
                    say("failed", reason=reason)
                case _:
                    pass


async def run(role: Role, stun_servers: list[Address], *, lite: bool) -> None:
    session = Session(role, stun_servers, lite=lite)
    say("ready")
    async for line in heard():
        match line["type"]:
            case "start":
                await session.start()
            case "credentials":
                session.tell(line["ufrag"], line["pwd"], lite=line.get("lite", False), pacing=line.get("pacing"))
            case "candidate":
                session.add(line["candidate"])
            case "end-of-candidates":
                session.end_of_candidates()
            case "restart":
                session.restart()
            case "send":
                session.send(line["data"])
    session.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m interop.agent", description=__doc__)
    parser.add_argument("-role", choices=[role.value for role in Role], required=True)
    parser.add_argument("-stun", metavar="HOST:PORT", help="a STUN server, by IPv4 address")
    parser.add_argument("-lite", action="store_true", help="be a lite agent")
    options = parser.parse_args()
    servers = []
    # RFC 8445 §5.2: a lite agent has host candidates alone.
    if options.stun is not None and not options.lite:
        host, _, port = options.stun.rpartition(":")
        servers.append(Address(host, int(port)))
    asyncio.run(run(Role(options.role), servers, lite=options.lite))


if __name__ == "__main__":
    main()
