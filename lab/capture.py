"""Everything that reaches or leaves a host, as its own kernel sees it: `python -m lab.capture FILE`."""

from __future__ import annotations

import ipaddress
import json
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.servers import Server
from lab.story import Machine

_ETH_P_ALL = 3
_FRAME = 1 << 16
_LENGTH = struct.Struct("!I")
_ETHERNET = 14
_COOKIE = bytes.fromhex("2112a442")


def record(file: str) -> None:
    """Write each frame, after its length, until killed."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL)) as sock, open(file, "wb", 0) as out:
        print(json.dumps({"event": "ready"}), flush=True)
        while True:
            frame = sock.recv(_FRAME)
            out.write(_LENGTH.pack(len(frame)) + frame)


@contextmanager
def capturing(machine: Machine, file: Path) -> Iterator[None]:
    """Have all frames of a host written to a file."""
    with Server(machine, '"ready"', sys.executable, "-m", "lab.capture", str(file)):
        yield


def frames(file: Path) -> Iterator[bytes]:
    """The frames in a file."""
    data = file.read_bytes()
    offset = 0
    while offset + _LENGTH.size <= len(data):
        (length,) = _LENGTH.unpack_from(data, offset)
        offset += _LENGTH.size + length
        yield data[offset - length : offset]


def mentions(frames: Iterator[bytes], address: str) -> int:
    """How many frames have an IP address in them: as source or destination, in binary, in text, or as STUN hides it."""
    return sum(_mentions(frame[_ETHERNET:], address) for frame in frames)


def _mentions(packet: bytes, address: str) -> bool:
    packed = ipaddress.ip_address(address).packed
    if packed in packet or address.encode() in packet:
        return True
    at = packet.find(_COOKIE)
    while at >= 0:
        # RFC 8489 §14.2: what hides an address is the cookie, and the transaction id that follows.
        mask = packet[at : at + len(packed)]
        if bytes(one ^ two for one, two in zip(packed, mask, strict=False)) in packet[at:] and len(mask) == len(packed):
            return True
        at = packet.find(_COOKIE, at + 1)
    return False


if __name__ == "__main__":
    record(sys.argv[1])
