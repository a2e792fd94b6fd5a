"""What waits to be read keeps alive little more than itself of what arrived together with it."""

from __future__ import annotations

import os
import select
import time

from quice import TransportConfig
from quice._native import Event
from tests.engine.test_lifetime import PATIENCE, connected

MIB = 1 << 20
# One packet in twenty is of the stream that is not read: as many as the kernel hands over in one piece.
OTHERS = 19


def resident() -> int:
    with open("/proc/self/statm") as status:
        return int(status.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_stream_that_is_not_read_keeps_the_packets_around_it_from_no_memory() -> None:
    config = TransportConfig(stream_window=MIB, connection_window=8 * MIB)
    server, client, near, far = connected(config)
    streams = [near.open(unidirectional=True) for _ in range(1 + OTHERS)]
    left = {stream: MIB for stream in streams if stream is not None}
    block = bytes(64 << 10)
    ignored: int | None = None
    sink = bytearray(MIB)
    read = 0
    before = resident()
    opened: list[int] = []
    deadline = time.monotonic() + PATIENCE
    while read < OTHERS * MIB and time.monotonic() < deadline:
        for stream, size in left.items():
            left[stream] -= near.write(stream, block[:size], 0)
        client.pump()
        opened += [event.stream for event in server.pump()[0] if isinstance(event, Event.Opened)]
        if opened:
            ignored = opened[0]
        for stream in opened[1:]:
            read += far.readinto(stream, sink) or 0
        select.select([server.news_fd, client.news_fd], [], [], 0)
    assert read == OTHERS * MIB
    assert ignored is not None
    # With every packet of a batch kept by the one that waits, it is twenty and more.
    assert resident() - before < 14 * MIB
    assert sum(len(far.read(ignored, 1 << 16) or b"") for _ in range(16)) >= MIB * 0.9
