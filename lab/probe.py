"""Measure how a NAT maps and filters, by STUN (RFC 5780 §4).

`python -m lab.probe serve ADDRESS OTHER` answers on two addresses and two ports. From behind a NAT these ask it:

    python -m lab.probe measure ADDRESS         the verdict, as JSON
    python -m lab.probe mapped ADDRESS [PORT]   the address and port that it was seen from; PORT: from this one here
    python -m lab.probe ports ADDRESS           how the NAT allocates ports
    python -m lab.probe hairpinning ADDRESS     what becomes of a packet to the NAT's own external address
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import msgspec

from lab.network import Lab
from lab.site import Programs
from quice.sim.kinds import Nat
from quice.sim.nat import Hairpinning, PortAllocation
from quice.stun import discovery
from quice.stun.discovery import Discovery, Questions, Verdict
from quice.wire import Address

PORTS = (3478, 3479)
_WAIT = 0.3
"""Seconds; a lab's delays are shorter, so that only a filter makes an answer late."""
_SOCKETS = 5
_TRIES = 3
_PROBE = (sys.executable, "-m", "lab.probe")

T = TypeVar("T")


class ProbeError(RuntimeError):
    """The probe's server did not start."""


def serve(address: str, other: str) -> None:
    """Answer Binding requests on both addresses and ports, from where CHANGE-REQUEST asks for; never returns."""
    others = {
        Address(address, PORTS[0]): Address(other, PORTS[1]),
        Address(address, PORTS[1]): Address(other, PORTS[0]),
    }
    others |= {there: here for here, there in others.items()}
    sockets = {here: _socket(*here) for here in others}
    print(json.dumps({"event": "ready"}), flush=True)
    while True:
        for ready in select.select(list(sockets.values()), [], [])[0]:
            data, source = ready.recvfrom(2048)
            here = Address(*ready.getsockname()[:2])
            answer = discovery.answer(data, Address(*source[:2]), here, others[here])
            if answer is not None and answer.source is not None:
                sockets[answer.source].sendto(answer.data, source)


def measure(address: str) -> Verdict:
    """What stands between here and the server at `address`; raises `DiscoveryError` when that does not answer."""
    server = Address(address, PORTS[0])
    with _socket_to(address) as sock:
        mapping, preserves_port = _discover(discovery.mapping(server, sock.getsockname()[1]), sock)
    with _socket_to(address) as sock:
        return Verdict(mapping, _discover(discovery.filtering(server), sock), preserves_port)


def mapped(address: str, port: int = 0) -> Address:
    """Where the server at `address` sees us come from; raises `DiscoveryError`."""
    with _socket_to(address, port) as sock:
        return _mapped(sock, address)


def ports(address: str) -> PortAllocation:
    """Which port each of several sockets got, one after the other; raises `DiscoveryError`."""
    with ExitStack() as sockets:
        mine = [sockets.enter_context(_socket_to(address)) for _ in range(_SOCKETS)]
        given = [_mapped(sock, address).port for sock in mine]
        if given == [sock.getsockname()[1] for sock in mine]:
            return PortAllocation.PRESERVED
    steps = {after - before for before, after in itertools.pairwise(given)}
    return PortAllocation.SEQUENTIAL if steps == {1} else PortAllocation.RANDOM


def hairpinning(address: str) -> Hairpinning:
    """What becomes of packets between two sockets here, sent to their external addresses; raises `DiscoveryError`."""
    with _socket_to(address) as one, _socket_to(address) as two:
        outside = {one: _mapped(one, address), two: _mapped(two, address)}
        for _ in range(_TRIES):
            # Each way, as a filter may want to have seen a packet out before it lets one in.
            two.sendto(b"in", outside[one])
            one.sendto(b"out", outside[two])
            if select.select([one], [], [], _WAIT)[0]:
                source = Address(*one.recvfrom(2048)[1][:2])
                return Hairpinning.EXTERNAL_SOURCE if source == outside[two] else Hairpinning.INTERNAL_SOURCE
    return Hairpinning.OFF


def verdict(host: Programs, server: str) -> Verdict:
    """What a lab's host measures at a server's address, at which `serving` is entered."""
    return msgspec.json.decode(host.run(*_PROBE, "measure", server), type=Verdict)


def mapping_of(host: Programs, server: str, port: int) -> Address:
    """Where such a server sees a port of a lab's host."""
    there, _, number = host.run(*_PROBE, "mapped", server, str(port)).strip().rpartition(":")
    return Address(there.strip("[]"), int(number))


@contextmanager
def serving(host: Programs, address: str, other: str) -> Iterator[None]:
    """The probe's server on a lab's host, at two of its addresses."""
    process = host.popen(*_PROBE, "serve", address, other, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise ProbeError(f"the probe's server ended with {process.wait()}")
        yield
    finally:
        process.kill()
        process.communicate()


def verdict_of(nat: Nat) -> Verdict:
    """Build a NAT of this kind in a lab, and measure it."""
    with Lab() as lab:
        server = lab.server()
        with serving(server, server.address, server.second_address):
            return verdict(lab.site(nat).host(), server.address)


def _mapped(sock: socket.socket, address: str) -> Address:
    return _discover(discovery.mapped(Address(address, PORTS[0])), sock)


def _discover(questions: Questions[T], sock: socket.socket) -> T:
    """Have questions answered over a socket."""
    test = Discovery(questions, random.SystemRandom(), time.monotonic(), wait=_WAIT)
    local = Address(*sock.getsockname()[:2])
    while (deadline := test.timeout()) is not None:
        for transmit in test.transmits():
            sock.sendto(transmit.data, transmit.destination)
        if select.select([sock], [], [], max(0.0, deadline - time.monotonic()))[0]:
            data, source = sock.recvfrom(2048)
            test.receive(data, Address(*source[:2]), local, time.monotonic())
        else:
            test.handle_timeout(time.monotonic())
    return test.result()


def _socket(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, port))
    return sock


def _socket_to(address: str, port: int = 0) -> socket.socket:
    return _socket("::" if ":" in address else "0.0.0.0", port)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lab.probe", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    server = commands.add_parser("serve")
    server.add_argument("address")
    server.add_argument("other")
    for name in ("measure", "mapped", "ports", "hairpinning"):
        commands.add_parser(name).add_argument("address")
    commands.choices["mapped"].add_argument("port", nargs="?", type=int, default=0)
    arguments = parser.parse_args()
    match arguments.command:
        case "serve":
            serve(arguments.address, arguments.other)
        case "mapped":
            print(mapped(arguments.address, arguments.port))
        case "ports":
            print(ports(arguments.address).value)
        case "hairpinning":
            print(hairpinning(arguments.address).value)
        case "measure":
            print(msgspec.json.encode(measure(arguments.address)).decode())


if __name__ == "__main__":
    main()
