"""Captures: files that other programs read."""

from __future__ import annotations

import io
import ipaddress
import struct

import pytest

from quice.sim.capture import Capture, internet_checksum, ip_packet
from quice.sim.link import Conditions
from quice.sim.packet import Packet, Protocol
from quice.sim.world import World
from quice.wire import Address
from tests.sim.clock import HeapClock
from tests.sim.sockets import Socket, address


def records(data: bytes) -> list[tuple[float, bytes]]:
    """The packets of a capture with their times."""
    magic, major, minor, _, _, _, link_type = struct.unpack_from("<IHHiIII", data)
    assert (magic, major, minor, link_type) == (0xA1B23C4D, 2, 4, 101)
    position, found = 24, []
    while position < len(data):
        seconds, nanoseconds, length, original = struct.unpack_from("<IIII", data, position)
        assert length == original
        found.append((seconds + nanoseconds / 1e9, data[position + 16 : position + 16 + length]))
        position += 16 + length
    return found


def test_the_checksum_is_that_of_the_rfcs_example() -> None:
    """RFC 1071 §3."""
    assert internet_checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xDDF2 ^ 0xFFFF


@pytest.mark.parametrize("data", [b"", b"odd", b"even"])
def test_a_datagram_over_ipv4_has_right_headers(data: bytes) -> None:
    raw = ip_packet(Packet(Protocol.UDP, Address("192.0.2.1", 5000), Address("192.0.2.2", 80), data))
    assert len(raw) == int.from_bytes(raw[2:4], "big") == 28 + len(data)
    assert internet_checksum(raw[:20]) == 0
    assert raw[9] == 17
    assert [str(ipaddress.ip_address(raw[12:16])), str(ipaddress.ip_address(raw[16:20]))] == ["192.0.2.1", "192.0.2.2"]
    assert struct.unpack("!HHH", raw[20:26]) == (5000, 80, 8 + len(data))
    assert internet_checksum(raw[12:20] + bytes((0, 17)) + raw[24:26] + raw[20:]) == 0


def test_a_datagram_over_ipv6_has_right_headers() -> None:
    source, destination = Address("fe80::1%eth0", 5000), Address("fe80::2%eth0", 80)
    packet = Packet(Protocol.UDP, source, destination, b"data")
    raw = ip_packet(packet)
    assert len(raw) == packet.size
    assert struct.unpack("!IHBB", raw[:8]) == (6 << 28, 12, 17, 64)
    assert internet_checksum(raw[8:40] + struct.pack("!II", 12, 17) + raw[40:]) == 0


def test_the_simulated_tcp_is_not_passed_off_as_tcp() -> None:
    raw = ip_packet(Packet(Protocol.TCP, Address("192.0.2.1", 5000), Address("192.0.2.2", 80), b"segment"))
    assert raw[9] == 253
    assert raw[20:] == b"segment"


def test_a_capture_on_a_host_has_what_it_sends_and_what_arrives_there(world: World, clock: HeapClock) -> None:
    file = io.BytesIO()
    world.watch(Capture(file, "alice"))
    server = Socket(world.host("server"), port=80)
    alice = Socket(world.site(uplink=Conditions(delay=0.25)).host("alice"))
    world.at(1.5, alice.send, b"question", Address(address(world.hosts["server"]), 80))
    clock.advance(1.75)
    server.reply(b"answer")
    clock.drain()
    assert [(time, raw[28:]) for time, raw in records(file.getvalue())] == [(1.5, b"question"), (2.0, b"answer")]


def test_a_capture_of_all_hosts_has_a_packet_where_it_starts_and_where_it_ends(world: World, clock: HeapClock) -> None:
    file = io.BytesIO()
    world.watch(Capture(file))
    Socket(world.host("server"), port=80)
    Socket(world.host("alice", link=Conditions(delay=0.5))).send(b"data", Address(address(world.hosts["server"]), 80))
    clock.drain()
    assert [time for time, _ in records(file.getvalue())] == [0.0, 0.5]
