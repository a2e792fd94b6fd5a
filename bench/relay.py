"""What a TURN server costs for each packet, quice's beside coturn: `python -m bench.relay`.

One process sends 1,200 bytes a packet through the relay and counts what arrives, a few hundred in flight; the relays
take turns. What counts is the CPU time that the relay's process has used for a packet: it says how many packets a
second one core would carry, and others on the machine change it less than the rate.
"""

from __future__ import annotations

import argparse
import enum
import os
import random
import secrets
import socket
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.report import load, machine
from interop.relays import Relay, coturn, coturn_unavailable, free_port, running
from quice.stun.auth import LongTerm
from quice.turn import Allocated, Bound, Client, Event, time_limited
from quice.turn.channel import HEADER_LENGTH, encode_channel_data
from quice.wire import Address

SIZE = 1200
SECRET = "of this bench"
_IN_FLIGHT = 384
_BATCH = 20
"""Packets that one call sends where it sends many, as QUIC's senders do."""
_LOST_AFTER = 0.01
"""Seconds without an arrival after which nothing is on its way any more."""
_BUFFER = 4 << 20
# linux/udp.h
_UDP_SEGMENT = 103
_UDP_GRO = 104
_TICKS = os.sysconf("SC_CLK_TCK")


class Way(enum.Enum):
    """Who sends to whom through the relay. In BETWEEN both are its clients."""

    UP = "to the peer"
    DOWN = "to the client"
    BETWEEN = "between clients"


@dataclass(frozen=True)
class Case:
    """`batched`: the kernel cuts many packets from one call of the sender."""

    way: Way
    batched: bool

    def __str__(self) -> str:
        return f"{self.way.value}, sent {'in batches' if self.batched else 'one by one'}"


CASES = tuple(Case(way, batched) for way in (Way.UP, Way.DOWN) for batched in (False, True))


@dataclass(frozen=True)
class Result:
    """Packets that arrived, of so many bytes, in so many seconds, for so many CPU seconds of the relay."""

    packets: int
    size: int
    seconds: float
    cpu: float

    @property
    def microseconds(self) -> float:
        """CPU time of the relay for one packet."""
        return self.cpu / self.packets * 1e6

    @property
    def gbit(self) -> float:
        """What arrived in a second."""
        return self.packets * self.size * 8 / self.seconds / 1e9


@contextmanager
def quice_relay(folder: Path) -> Iterator[Relay]:
    """`quice serve`, as its users start it, but for a peer on loopback and without a limit to its rate."""
    port = free_port()
    command = [sys.executable, "-m", "quice", "serve", "--host", "127.0.0.1", "--port", "0", "--stun-port", str(port)]
    command += ["--turn-secret", SECRET, "--relay-allow", "127.0.0.0/8", "--relay-rate", "0"]
    with running(command, port, "TURN") as relay:
        yield relay


@contextmanager
def coturn_relay(folder: Path) -> Iterator[Relay]:
    """coturn, with one thread for relaying: it would not use more for one client."""
    options = ("--use-auth-secret", "--static-auth-secret", SECRET)
    with coturn(folder, *options, relays=("127.0.0.1",)) as relay:
        yield relay


RELAYS: dict[str, Callable[[Path], AbstractContextManager[Relay]]] = {"quice": quice_relay, "coturn": coturn_relay}


def udp_socket() -> socket.socket:
    """A socket of the load's."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
    return sock


def account() -> LongTerm:
    """Credentials of somebody who has no allocations yet: those of this bench run out with its relays."""
    return time_limited(SECRET, time.time() + 600, secrets.token_hex(8))


def allocate(server: Address, sock: socket.socket) -> Client:
    """A client that has a relayed address."""
    client = Client(server, Address(*sock.getsockname()), account(), random.Random(), time.monotonic())
    _drive(client, sock, Allocated)
    return client


def bind(client: Client, sock: socket.socket, peer: Address) -> int:
    """A channel to the peer, which then may send."""
    channel = client.bind(peer, time.monotonic())
    _drive(client, sock, Bound)
    return channel


def release(client: Client, sock: socket.socket) -> None:
    """Give it back: another socket may come to have this port, and the relay would refuse it an allocation."""
    client.close(time.monotonic())
    for transmit in client.transmits():
        sock.sendto(transmit.data, transmit.destination)


def _drive(client: Client, sock: socket.socket, awaited: type[Event]) -> None:
    while True:
        for transmit in client.transmits():
            sock.sendto(transmit.data, transmit.destination)
        sock.settimeout(max(0.001, (client.timeout() or 0) - time.monotonic()))
        try:
            data, source = sock.recvfrom(2048)
            client.receive(data, Address(*source), client.source, time.monotonic())
        except TimeoutError:
            client.handle_timeout(time.monotonic())
        for event in client.events():
            if not isinstance(event, awaited):
                raise RuntimeError(str(event))
            sock.settimeout(None)
            return


def carry(relay: Relay, case: Case, seconds: float, size: int = SIZE) -> Result:
    """Send packets of this size through a relay for that long."""
    with udp_socket() as sender, udp_socket() as sink, _opened(relay.at(), case.way, sender, sink) as opened:
        destination, channel = opened
        arriving = size if case.way is Way.UP else size + HEADER_LENGTH
        sender.connect(tuple(destination))
        # Between clients a packet is at the relay twice.
        in_flight = _IN_FLIGHT // 2 if case.way is Way.BETWEEN else _IN_FLIGHT
        count = 1
        if case.batched:
            count = _BATCH
            whole = size if channel is None else size + HEADER_LENGTH
            sender.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, struct.pack("i", whole))
        sends = [_packet(channel, number, size) * count for number in range(2 * in_flight // count)]
        sink.setsockopt(socket.IPPROTO_UDP, _UDP_GRO, struct.pack("i", 1))
        sink.setblocking(False)
        before, started = cpu_seconds(relay.process.pid), time.monotonic()
        arrived = _loop(sender, sends, sink, arriving, started + seconds)
        elapsed = time.monotonic() - started
        return Result(arrived, size, elapsed, cpu_seconds(relay.process.pid) - before)


def _packet(channel: int | None, number: int, size: int) -> bytes:
    """A packet that ends with the number of the call that sends it."""
    content = number.to_bytes(size, "big")
    return content if channel is None else encode_channel_data(channel, content)


@contextmanager
def _opened(
    server: Address, way: Way, sender: socket.socket, sink: socket.socket
) -> Iterator[tuple[Address, int | None]]:
    """Open the way, and close it; yields where to send to, and with which channel number."""
    sending = None if way is Way.DOWN else allocate(server, sender)
    receiving = None if way is Way.UP else allocate(server, sink)
    source, destination = _seen(sender, sending), _seen(sink, receiving)
    if receiving is not None:
        bind(receiving, sink, source)
    try:
        yield (destination, None) if sending is None else (server, bind(sending, sender, destination))
    finally:
        for client, sock in ((sending, sender), (receiving, sink)):
            if client is not None:
                release(client, sock)


def _seen(sock: socket.socket, client: Client | None) -> Address:
    """What the other side knows this one by."""
    if client is None:
        return Address(*sock.getsockname())
    assert client.allocation is not None
    return client.allocation.relayed[0]


def _loop(sender: socket.socket, sends: list[bytes], sink: socket.socket, size: int, until: float) -> int:
    """Send again and again, no more at a time than half of `sends`; returns how many packets arrived.

    What arrives says which of them it was, so that it is known how much is on its way whatever gets lost.
    """
    buffer = bytearray(1 << 16)
    most = len(sends) // 2
    arrived = last = following = 0
    now = progress = time.monotonic()
    while now < until:
        while (following - last) % len(sends) < most:
            sender.send(sends[following])
            following = (following + 1) % len(sends)
        try:
            while True:
                got = sink.recv_into(buffer)
                arrived += got // size
                last = int.from_bytes(buffer[got - 2 : got], "big")
                progress = now
                if (following - last) % len(sends) < most // 2:
                    break
        except BlockingIOError:
            pass
        now = time.monotonic()
        if now - progress > _LOST_AFTER:
            last, progress = following, now
    return arrived


def cpu_seconds(pid: int) -> float:
    """What a process has used, in user mode and in the kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.relay", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="how often each is measured; 3 by default")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement; 3 by default")
    options = parser.parse_args()
    names = list(RELAYS)
    if reason := coturn_unavailable():
        print(f"NOT MEASURED: {reason}")
        names.remove("coturn")
    print(f"{machine()}, {load()}")
    results: dict[tuple[str, str], list[Result]] = {}
    with ExitStack() as stack:
        folders = {name: Path(stack.enter_context(tempfile.TemporaryDirectory())) for name in names}
        relays = {name: stack.enter_context(RELAYS[name](folders[name])) for name in names}
        for case in CASES:
            for _ in range(options.runs):
                for name, relay in relays.items():
                    results.setdefault((str(case), name), []).append(carry(relay, case, options.seconds))
    Console(width=110).print(table(results, names))


def table(results: dict[tuple[str, str], list[Result]], names: list[str]) -> Table:
    """Medians; the ratio is that of the runs that followed each other."""
    shown = Table(title=f"{SIZE} bytes a packet, loopback, medians")
    headings = ("data", "relay", "CPU µs a packet", "packets/s a core", "quice has", "Gbit/s as measured")
    for heading in headings:
        shown.add_column(heading, justify="left" if heading in ("data", "relay") else "right")
    for case in CASES:
        for name in names:
            runs = results[str(case), name]
            cost = statistics.median(run.microseconds for run in runs)
            rate = statistics.median(run.gbit for run in runs)
            ratio = ""
            if name != "quice":
                pairs = zip(results[str(case), "quice"], runs, strict=True)
                ratio = f"{statistics.median(other.microseconds / own.microseconds for own, other in pairs):.1f} x"
            shown.add_row(str(case), name, f"{cost:.2f}", f"{1e6 / cost:,.0f}", ratio, f"{rate:.2f}")
    return shown


if __name__ == "__main__":
    main()
