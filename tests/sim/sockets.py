"""A socket that keeps what it gets, and what a trace says of packets."""

from __future__ import annotations

import os
import re
from contextlib import AbstractContextManager

import pytest

from quice.sim.host import Host
from quice.sim.packet import Fate, Packet, Passage, Protocol
from quice.wire import Address


class Socket:
    """A UDP socket on a simulated host, on every IPv4 address unless told otherwise."""

    def __init__(self, host: Host, address: str = "0.0.0.0", port: int = 0, protocol: Protocol = Protocol.UDP) -> None:
        self.received: list[Packet] = []
        self.binding = host.bind(protocol, Address(address, port), self.received.append)
        self.port = self.binding.local.port

    def send(self, data: bytes, destination: Address, source_host: str | None = None) -> None:
        self.binding.send(data, destination, source_host)

    def reply(self, data: bytes) -> None:
        """Answer the last packet from the address that it came to."""
        last = self.received[-1]
        self.binding.send(data, last.source, last.destination.host)

    @property
    def texts(self) -> list[bytes]:
        return [packet.data for packet in self.received]


def address(host: Host, *, version: int = 4, index: int = 0) -> str:
    """An address of a host's interfaces, not of loopback and not of one link alone."""
    found = [each.host for each in host.addresses() if each.interface != "lo" and each.ip.version == version]
    return [each for each in found if not each.startswith("fe80")][index]


def fates(trace: list[Passage], data: bytes) -> list[Fate]:
    """What happened to the packets with this data."""
    return [passage.fate for passage in trace if passage.packet.data == data]


def refused(number: int) -> AbstractContextManager[object]:
    """What is done in this context raises OSError with this errno."""
    return pytest.raises(OSError, match=re.escape(f"[Errno {number}] {os.strerror(number)}"))
