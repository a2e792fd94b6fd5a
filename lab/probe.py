"""Measure how a NAT maps and filters, by STUN (RFC 5780 §4).

`python -m lab.probe serve ADDRESS OTHER` answers on two addresses and two ports; `python -m lab.probe measure
ADDRESS` asks it from behind a NAT, and prints the verdict as JSON.
"""

from __future__ import annotations

import json
import select
import socket
import sys
from dataclasses import asdict

from lab.nat import Behaviour, Verdict
from quice.stun.attributes import Attribute, ChangeRequest, OtherAddress, XorMappedAddress
from quice.stun.message import Kind, Message, Method
from quice.wire import Address

PORTS = (3478, 3479)
_TRIES = 3
_WAIT = 0.3


def serve(address: str, other: str) -> None:
    """Answer Binding requests on both addresses and ports, from where CHANGE-REQUEST asks for."""
    sockets = {}
    for host in (address, other):
        for port in PORTS:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind((host, port))
            sockets[host, port] = sock
    print(json.dumps({"event": "ready"}), flush=True)
    while True:
        for ready in select.select(list(sockets.values()), [], [])[0]:
            data, source = ready.recvfrom(2048)
            request = Message.decode(data)
            host, port = ready.getsockname()
            change = request.get(ChangeRequest) or ChangeRequest(address=False, port=False)
            other_host = other if host == address else address
            other_port = PORTS[1] if port == PORTS[0] else PORTS[0]
            sender = sockets[other_host if change.address else host, other_port if change.port else port]
            attributes = (
                XorMappedAddress(Address(*source)),
                OtherAddress(Address(other_host, other_port)),
            )
            response = Message(Method.BINDING, Kind.SUCCESS, request.transaction_id, attributes)
            sender.sendto(response.encode(), source)


def measure(address: str) -> Verdict:
    """Ask the server at `address`; raises `RuntimeError` when it does not answer at all."""
    first = _ask(_socket(), Address(address, PORTS[0]))
    if first is None:
        raise RuntimeError("the probe's server does not answer")
    return Verdict(_mapping(address), _filtering(address))


def _mapping(address: str) -> Behaviour:
    """RFC 5780 §4.3: one socket, three destinations."""
    sock = _socket()
    first = _expect(_ask(sock, Address(address, PORTS[0])))
    other = _get(first, OtherAddress)
    mapped = _get(first, XorMappedAddress)
    second = _expect(_ask(sock, Address(other.host, PORTS[0])))
    if _get(second, XorMappedAddress) == mapped:
        return Behaviour.ENDPOINT_INDEPENDENT
    third = _expect(_ask(sock, Address(other.host, PORTS[1])))
    if _get(third, XorMappedAddress) == _get(second, XorMappedAddress):
        return Behaviour.ADDRESS_DEPENDENT
    return Behaviour.ADDRESS_AND_PORT_DEPENDENT


def _filtering(address: str) -> Behaviour:
    """RFC 5780 §4.4: answers from elsewhere than was asked, to a socket that has asked nobody else."""
    server = Address(address, PORTS[0])
    sock = _socket()
    if _ask(sock, server, ChangeRequest(address=True, port=True)) is not None:
        return Behaviour.ENDPOINT_INDEPENDENT
    if _ask(sock, server, ChangeRequest(address=False, port=True)) is not None:
        return Behaviour.ADDRESS_DEPENDENT
    return Behaviour.ADDRESS_AND_PORT_DEPENDENT


def _socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("0.0.0.0", 0))
    sock.settimeout(_WAIT)
    return sock


def _ask(sock: socket.socket, server: Address, *attributes: Attribute) -> Message | None:
    for number in range(_TRIES):
        request = Message(Method.BINDING, Kind.REQUEST, bytes(11) + bytes([number]), attributes)
        sock.sendto(request.encode(), server)
        try:
            return Message.decode(sock.recv(2048))
        except TimeoutError:
            continue
    return None


def _expect(message: Message | None) -> Message:
    if message is None:
        raise RuntimeError("the probe's server stopped answering")
    return message


def _get(message: Message, kind: type[XorMappedAddress] | type[OtherAddress]) -> Address:
    attribute = message.get(kind)
    if attribute is None:
        raise RuntimeError(f"an answer without {kind.__name__}")
    return attribute.address


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(*sys.argv[2:])
    elif sys.argv[1] == "mapped":
        print(_get(_expect(_ask(_socket(), Address(sys.argv[2], PORTS[0]))), XorMappedAddress).host)
    else:
        print(json.dumps(asdict(measure(sys.argv[2]))))
