"""Measure how a NAT maps and filters, by STUN (RFC 5780 §4).

`python -m lab.probe serve ADDRESS OTHER` answers on two addresses and two ports. From behind a NAT, `python -m
lab.probe measure ADDRESS` asks it and prints the verdict as JSON, and `python -m lab.probe mapped ADDRESS` prints
the address that it was seen from.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from lab.nat import Behaviour, Nat, Verdict
from lab.network import Host, Lab
from quice.stun.attributes import Attribute, ChangeRequest, OtherAddress, StunDecodeError, XorMappedAddress
from quice.stun.message import TRANSACTION_ID_LENGTH, Kind, Message, Method
from quice.wire import Address

PORTS = (3478, 3479)
_TRIES = 3
_WAIT = 0.3
"""Seconds; there is no delay in a lab, so that only a filter makes an answer late."""
_PROBE = (sys.executable, "-m", "lab.probe")


class ProbeError(RuntimeError):
    """The probe's server does not answer, or not as RFC 5780 asks."""


def serve(address: str, other: str) -> None:
    """Answer Binding requests on both addresses and ports, from where CHANGE-REQUEST asks for; never returns."""
    sockets = {}
    for host in (address, other):
        for port in PORTS:
            sockets[host, port] = _socket(host, port)
    print(json.dumps({"event": "ready"}), flush=True)
    while True:
        for ready in select.select(list(sockets.values()), [], [])[0]:
            data, source = ready.recvfrom(2048)
            try:
                request = Message.decode(data)
            except StunDecodeError:
                continue
            host, port = ready.getsockname()[:2]
            other_host = other if host == address else address
            other_port = PORTS[1] if port == PORTS[0] else PORTS[0]
            change = request.get(ChangeRequest) or ChangeRequest(address=False, port=False)
            sender = sockets[other_host if change.address else host, other_port if change.port else port]
            attributes = (XorMappedAddress(Address(*source[:2])), OtherAddress(Address(other_host, other_port)))
            response = Message(Method.BINDING, Kind.SUCCESS, request.transaction_id, attributes)
            sender.sendto(response.encode(), source)


def measure(address: str) -> Verdict:
    """What stands between here and the server at `address`; raises `ProbeError` when that does not answer."""
    mapping, preserves_port = _mapping(address)
    return Verdict(mapping, _filtering(address), preserves_port)


def mapped(address: str) -> str:
    """The IP address that the server at `address` sees us come from; raises `ProbeError`."""
    with _socket_to(address) as sock:
        return _get(_expect(_ask(sock, Address(address, PORTS[0]))), XorMappedAddress).host


def verdict(host: Host, server: Host) -> Verdict:
    """What a lab's host measures at a lab's server, on which `serving` is entered."""
    output = host.run(*_PROBE, "measure", server.address)
    return msgspec.json.decode(output, type=Verdict)


@contextmanager
def serving(host: Host, address: str, other: str) -> Iterator[None]:
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
            return verdict(lab.site(nat).host(), server)


def _mapping(address: str) -> tuple[Behaviour, bool]:
    """RFC 5780 §4.3: one socket, three destinations. Also whether the first mapping kept the port."""
    with _socket_to(address) as sock:
        first = _expect(_ask(sock, Address(address, PORTS[0])))
        other = _get(first, OtherAddress)
        mapped = _get(first, XorMappedAddress)
        preserves_port = mapped.port == sock.getsockname()[1]
        second = _get(_expect(_ask(sock, Address(other.host, PORTS[0]))), XorMappedAddress)
        if second == mapped:
            return Behaviour.ENDPOINT_INDEPENDENT, preserves_port
        third = _get(_expect(_ask(sock, Address(other.host, PORTS[1]))), XorMappedAddress)
        if third == second:
            return Behaviour.ADDRESS_DEPENDENT, preserves_port
        return Behaviour.ADDRESS_AND_PORT_DEPENDENT, preserves_port


def _filtering(address: str) -> Behaviour:
    """RFC 5780 §4.4: answers from elsewhere than was asked, to a socket that has asked nobody else."""
    server = Address(address, PORTS[0])
    with _socket_to(address) as sock:
        other = _get(_expect(_ask(sock, server)), OtherAddress)
        if _ask(sock, server, other, ChangeRequest(address=True, port=True)) is not None:
            return Behaviour.ENDPOINT_INDEPENDENT
        if _ask(sock, server, Address(address, PORTS[1]), ChangeRequest(address=False, port=True)) is not None:
            return Behaviour.ADDRESS_DEPENDENT
        return Behaviour.ADDRESS_AND_PORT_DEPENDENT


def _socket(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, port))
    return sock


def _socket_to(address: str) -> socket.socket:
    sock = _socket("::" if ":" in address else "0.0.0.0", 0)
    sock.settimeout(_WAIT)
    return sock


def _ask(
    sock: socket.socket, server: Address, answered_by: Address | None = None, *attributes: Attribute
) -> Message | None:
    """Ask `server`; the answer counts when it comes from `answered_by`, by default from whom was asked."""
    request = Message(Method.BINDING, Kind.REQUEST, os.urandom(TRANSACTION_ID_LENGTH), attributes)
    for _ in range(_TRIES):
        sock.sendto(request.encode(), server)
        try:
            while True:
                data, source = sock.recvfrom(2048)
                response = Message.decode(data)
                if response.transaction_id == request.transaction_id and source[:2] == (answered_by or server):
                    return response
        except TimeoutError:
            continue
    return None


def _expect(message: Message | None) -> Message:
    if message is None:
        raise ProbeError("the probe's server does not answer")
    return message


def _get(message: Message, kind: type[XorMappedAddress] | type[OtherAddress]) -> Address:
    attribute = message.get(kind)
    if attribute is None:
        raise ProbeError(f"an answer without {kind.__name__}")
    return attribute.address


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lab.probe", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    server = commands.add_parser("serve")
    server.add_argument("address")
    server.add_argument("other")
    for name in ("measure", "mapped"):
        commands.add_parser(name).add_argument("address")
    arguments = parser.parse_args()
    match arguments.command:
        case "serve":
            serve(arguments.address, arguments.other)
        case "mapped":
            print(mapped(arguments.address))
        case "measure":
            print(msgspec.json.encode(measure(arguments.address)).decode())


if __name__ == "__main__":
    main()
