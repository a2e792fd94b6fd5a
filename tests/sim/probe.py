"""The lab's STUN probe (RFC 5780) on simulated hosts."""

from __future__ import annotations

import random
from typing import TypeVar

from quice.sim.host import Host
from quice.sim.packet import Packet, Protocol
from quice.stun import discovery
from quice.stun.discovery import Behaviour, Discovery, Questions, Verdict
from quice.wire import Address
from tests.sim.clock import HeapClock
from tests.sim.sockets import address

PORTS = (3478, 3479)

T = TypeVar("T")


def serve(host: Host, version: int = 4) -> Address:
    """Have a host answer on two of its addresses and on two ports; returns the one to ask."""
    hosts = [address(host, version=version, index=index) for index in range(2)]
    others = {
        Address(hosts[one], PORTS[two]): Address(hosts[1 - one], PORTS[1 - two]) for one in (0, 1) for two in (0, 1)
    }

    def answer(packet: Packet) -> None:
        there = others[packet.destination]
        answer = discovery.answer(packet.data, packet.source, packet.destination, there)
        if answer is not None and answer.source is not None:
            bindings[answer.source].send(answer.data, answer.destination)

    bindings = {here: host.bind(Protocol.UDP, here, answer) for here in others}
    return next(iter(others))


def measure(host: Host, server: Address, clock: HeapClock) -> Verdict:
    """What stands between a host and the server. Raises `DiscoveryError` when that does not answer."""
    mapping, preserves_port = Client(host, server, clock).mapping()
    return Verdict(mapping, Client(host, server, clock).filtering(), preserves_port)


class Client:
    """A socket that asks a server questions."""

    def __init__(self, host: Host, server: Address, clock: HeapClock) -> None:
        self._server = server
        self._clock = clock
        self._received: list[Packet] = []
        wildcard = "::" if ":" in server.host else "0.0.0.0"
        self._binding = host.bind(Protocol.UDP, Address(wildcard, 0), self._received.append)

    def mapping(self) -> tuple[Behaviour, bool]:
        """How the NAT maps, and whether it preserves the port."""
        return self._discover(discovery.mapping(self._server, self._binding.local.port))

    def filtering(self) -> Behaviour:
        """How the NAT filters."""
        return self._discover(discovery.filtering(self._server))

    def mapped(self) -> Address:
        """The address that the server sees."""
        return self._discover(discovery.mapped(self._server))

    def _discover(self, questions: Questions[T]) -> T:
        test = Discovery(questions, random.Random(1), self._clock.time())
        while (deadline := test.timeout()) is not None:
            for transmit in test.transmits():
                self._binding.send(transmit.data, transmit.destination)
            self._clock.advance(deadline - self._clock.time())
            while self._received:
                packet = self._received.pop(0)
                test.receive(packet.data, packet.source, packet.destination, self._clock.time())
            test.handle_timeout(self._clock.time())
        return test.result()
