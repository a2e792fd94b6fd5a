"""Write simulated packets to a file that Wireshark and tcpdump read."""

from __future__ import annotations

import ipaddress
import struct
from typing import BinaryIO

from quice.sim.packet import Fate, Packet, Passage, Protocol

# The classic format of libpcap, with nanoseconds; link type 101 is IP without anything below.
_FILE = struct.Struct("<IHHiIII")
_RECORD = struct.Struct("<IIII")
_MAGIC_NANOSECONDS = 0xA1B23C4D
_RAW_IP = 101
_SNAPSHOT = 65535
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_UDP = struct.Struct("!HHHH")
_HOP_LIMIT = 64
# RFC 3692: the simulated TCP has a format of its own, so it is not shown as TCP.
_EXPERIMENT = 253


class Capture:
    """Pass one to `World.watch`. It writes what a host sends and what arrives there, as a capture on it would.

    file: open for writing bytes; closing it is its owner's. host: by name; of all hosts if None.
    """

    def __init__(self, file: BinaryIO, host: str | None = None) -> None:
        self._file = file
        self._host = host
        file.write(_FILE.pack(_MAGIC_NANOSECONDS, 2, 4, 0, 0, _SNAPSHOT, _RAW_IP))

    def __call__(self, passage: Passage) -> None:
        if passage.fate not in (Fate.SENT, Fate.DELIVERED, Fate.NOT_LISTENING):
            return
        if self._host is None or passage.place == self._host:
            data = ip_packet(passage.packet)
            seconds, nanoseconds = divmod(round(passage.time * 1e9), 10**9)
            self._file.write(_RECORD.pack(seconds, nanoseconds, len(data), len(data)) + data)


def ip_packet(packet: Packet) -> bytes:
    """The bytes of a packet on the wire, with its headers and their checksums."""
    source, destination = packet.source.without_zone.ip.packed, packet.destination.without_zone.ip.packed
    protocol = int(packet.protocol) if packet.protocol is Protocol.UDP else _EXPERIMENT
    payload = packet.data
    if packet.protocol is Protocol.UDP:
        length = _UDP.size + len(payload)
        header = _UDP.pack(packet.source.port, packet.destination.port, length, 0)
        pseudo = source + destination + struct.pack("!II", length, protocol)
        # RFC 768: a sum of zero is sent as its complement, for zero says that there is none.
        checksum = internet_checksum(pseudo + header + payload) or 0xFFFF
        payload = header[:6] + checksum.to_bytes(2, "big") + payload
    if isinstance(packet.destination.ip, ipaddress.IPv6Address):
        return _IPV6.pack(6 << 28, len(payload), protocol, _HOP_LIMIT, source, destination) + payload
    fields = (0x45, 0, _IPV4.size + len(payload), 0, 0x4000, _HOP_LIMIT, protocol)
    checksum = internet_checksum(_IPV4.pack(*fields, 0, source, destination))
    return _IPV4.pack(*fields, checksum, source, destination) + payload


def internet_checksum(data: bytes) -> int:
    """The ones' complement sum of RFC 1071."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
