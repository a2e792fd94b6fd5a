"""What a TURN server costs for each packet, quice's beside coturn: `python -m bench.relay`.

One process sends 1,200 bytes a packet through the relay and counts what arrives, a few hundred in flight; the relays
take turns. What counts is the CPU time that the relay's process has used for a packet: it says how many packets a
second one core would carry, and others on the machine change it less than the rate.
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.report import load, machine
from interop.relays import Relay, coturn, coturn_unavailable, free_port, running
from quice.turn import Allocated, Bound, Client, time_limited
from quice.turn.channel import encode_channel_data
from quice.wire import Address

SIZE = 1200
SECRET = "of this bench"
_IN_FLIGHT = 384
_BATCH = 20
"""Packets that one call sends where it sends many, as QUIC's senders do."""
_LOST_AFTER = 0.05
_BUFFER = 4 << 20
# linux/udp.h
_UDP_SEGMENT = 103
_UDP_GRO = 104
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Case:
    """`up`: from the client to the peer. `batched`: the kernel cuts many packets from one call of the sender."""

    name: str
    up: bool
    batched: bool


CASES = (
    Case("to the peer, sent one by one", up=True, batched=False),
    Case("to the peer, sent in batches", up=True, batched=True),
    Case("to the client, sent one by one", up=False, batched=False),
    Case("to the client, sent in batches", up=False, batched=True),
)


@dataclass(frozen=True)
class Result:
    """Packets that arrived, in so many seconds, for so many CPU seconds of the relay."""

    packets: int
    seconds: float
    cpu: float

    @property
    def microseconds(self) -> float:
        """CPU time of the relay for one packet."""
        return self.cpu / self.packets * 1e6

    @property
    def gbit(self) -> float:
        """What arrived in a second."""
        return self.packets * SIZE * 8 / self.seconds / 1e9


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


RELAYS: dict[str, Callable[[Path], Iterator[Relay]]] = {"quice": quice_relay, "coturn": coturn_relay}


def udp_socket() -> socket.socket:
    """A socket of the load's."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
    return sock


def allocate(server: Address, sock: socket.socket, peer: Address) -> tuple[Address, int]:
    """Allocate a relayed address and bind a channel for the peer; returns both."""
    account = time_limited(SECRET, time.time() + 600, "bench")
    client = Client(server, Address(*sock.getsockname()), account, random.Random(), time.monotonic())
    channel = 0
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
            if isinstance(event, Allocated):
                channel = client.bind(peer, time.monotonic())
            elif isinstance(event, Bound):
                sock.settimeout(None)
                return client.allocation.relayed[0], channel
            else:
                raise RuntimeError(str(event))


def carry(relay: Relay, case: Case, seconds: float) -> Result:
    """Send through a relay for that long."""
    with udp_socket() as client, udp_socket() as peer:
        relayed, channel = allocate(relay.at(), client, Address(*peer.getsockname()))
        sender, sink = (client, peer) if case.up else (peer, client)
        packet = encode_channel_data(channel, bytes(SIZE)) if case.up else bytes(SIZE)
        arriving = SIZE if case.up else SIZE + 4
        sender.connect(tuple(relay.at() if case.up else relayed))
        count = 1
        if case.batched:
            count = _BATCH
            sender.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, struct.pack("i", len(packet)))
            packet *= _BATCH
        sink.setsockopt(socket.IPPROTO_UDP, _UDP_GRO, struct.pack("i", 1))
        sink.setblocking(False)
        before, started = cpu_seconds(relay.process.pid), time.monotonic()
        arrived = _loop(sender, packet, count, sink, arriving, started + seconds)
        elapsed = time.monotonic() - started
        return Result(arrived, elapsed, cpu_seconds(relay.process.pid) - before)


def _loop(sender: socket.socket, packet: bytes, count: int, sink: socket.socket, size: int, until: float) -> int:
    buffer = bytearray(1 << 16)
    arrived = in_flight = 0
    progress = time.monotonic()
    while progress < until:
        while in_flight < _IN_FLIGHT:
            sender.send(packet)
            in_flight += count
        try:
            while True:
                got = sink.recv_into(buffer) // size
                arrived += got
                in_flight -= got
                progress = 0.0
                if in_flight < _IN_FLIGHT // 2:
                    break
        except BlockingIOError:
            pass
        now = time.monotonic()
        if not progress:
            progress = now
        elif now - progress > _LOST_AFTER:
            in_flight, progress = 0, now
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
                    results.setdefault((case.name, name), []).append(carry(relay, case, options.seconds))
    Console(width=110).print(table(results, names))


def table(results: dict[tuple[str, str], list[Result]], names: list[str]) -> Table:
    """Medians; the ratio is that of the runs that followed each other."""
    shown = Table(title=f"{SIZE} bytes a packet, loopback, medians")
    headings = ("data", "relay", "CPU µs a packet", "packets/s a core", "quice has", "Gbit/s as measured")
    for heading in headings:
        shown.add_column(heading, justify="left" if heading in ("data", "relay") else "right")
    for case in CASES:
        for name in names:
            runs = results[case.name, name]
            cost = statistics.median(run.microseconds for run in runs)
            rate = statistics.median(run.gbit for run in runs)
            ratio = ""
            if name != "quice":
                pairs = zip(results[case.name, "quice"], runs, strict=True)
                ratio = f"{statistics.median(other.microseconds / own.microseconds for own, other in pairs):.1f} x"
            shown.add_row(case.name, name, f"{cost:.2f}", f"{1e6 / cost:,.0f}", ratio, f"{rate:.2f}")
    return shown


if __name__ == "__main__":
    main()
