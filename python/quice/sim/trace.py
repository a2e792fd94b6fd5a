"""What can be made of a world's passages: pass these to `World.watch`."""

from __future__ import annotations

import hashlib
import struct
from collections import Counter

from quice.sim.packet import Fate, Passage

_TIME = struct.Struct("!d")


class Digest:
    """A hash over everything that happens to every packet, and when: equal for runs that are equal."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def __call__(self, passage: Passage) -> None:
        time, place, fate, (protocol, source, destination, data, *_) = passage
        line = (
            f"{place} {fate.value} {protocol:d} {source[0]} {source[1]} {destination[0]} {destination[1]} {len(data)} "
        )
        self._hash.update(_TIME.pack(time) + line.encode() + data)

    def hexdigest(self) -> str:
        """The hash of what has happened so far."""
        return self._hash.hexdigest()


class Traffic:
    """Packets and bytes on the wire that one host sent and another received, by the names of both."""

    def __init__(self) -> None:
        self.packets: Counter[tuple[str, str]] = Counter()
        self.bytes: Counter[tuple[str, str]] = Counter()

    def __call__(self, passage: Passage) -> None:
        if passage.fate is Fate.DELIVERED:
            pair = passage.packet.sender, passage.place
            self.packets[pair] += 1
            self.bytes[pair] += passage.packet.size
