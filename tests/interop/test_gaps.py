"""A peer that cuts its streams into single bytes with gaps between them; aioquic can be made to."""

from __future__ import annotations

import asyncio

import pytest
from aioquic.quic import events as theirs
from aioquic.quic.rangeset import RangeSet

from quice import TransportConfig
from quice._native import Event, Loss
from tests.interop.test_aioquic import Certificates, Meeting, issue, ours_serves

WINDOW = 1 << 18
# As the engine allows: a thousand, and one more for each KiB of the connection's window.
ALLOWED = 1024 + WINDOW // 1024
# So many chunks of a stream may be in noq, uncounted.
LEFT = 1024


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    return issue()


def send_every_other_byte(meeting: Meeting, stream: int, count: int) -> None:
    """So many bytes of the stream, each in a frame and with a missing one before it."""
    quic = meeting.theirs.quic
    quic.send_stream_data(stream, bytes(2 * count))
    sender = quic._streams[stream].sender
    sender._pending = RangeSet([range(i, i + 1) for i in range(1, 2 * count, 2)])
    meeting.theirs.transmit()


@pytest.mark.parametrize("streams", [1, 3])
async def test_more_gaps_than_packets_can_have_lost_end_the_connection(
    certificates: Certificates, streams: int
) -> None:
    async with ours_serves(certificates, TransportConfig(connection_window=WINDOW)) as meeting:
        for _ in range(streams):
            stream = meeting.theirs.opened(unidirectional=True)
            send_every_other_byte(meeting, stream, 2 * ALLOWED // streams + LEFT)
        lost = await meeting.ours.next(Event.Lost)
        assert lost.loss is Loss.Failed
        assert "too many gaps" in lost.reason
        terminated = await meeting.theirs.next(theirs.ConnectionTerminated)
        assert "too many gaps" in terminated.reason_phrase


async def test_fewer_gaps_are_kept_until_they_are_filled(certificates: Certificates) -> None:
    async with ours_serves(certificates, TransportConfig(connection_window=WINDOW)) as meeting:
        stream = meeting.theirs.opened(unidirectional=True)
        send_every_other_byte(meeting, stream, ALLOWED - 1)
        sender = meeting.theirs.quic._streams[stream].sender
        while len(sender._pending):
            await asyncio.sleep(0.01)
        sender._pending = RangeSet([range(i, i + 1) for i in range(0, 2 * ALLOWED - 2, 2)])
        meeting.theirs.write(stream, b"")
        opened = await meeting.ours.next(Event.Opened)
        content = await meeting.ours.read(meeting.ours.engine.connection(opened.connection), stream)
        assert content == bytes(2 * ALLOWED - 2)
