"""What was received is acknowledged in one datagram with the application's answer, when there is one at once."""

from __future__ import annotations

from quice import _native
from quice._native import Event
from tests.engine.pair import Pair

REQUEST = bytes(100)
# noq skips a packet number now and then (RFC 9000 §21.4), and a gap is acknowledged at once. With these it skips none.
SEEDS = (bytes(32), bytes(range(32)))


def opened(near: _native.Connection, *, unidirectional: bool = False) -> int:
    stream = near.open(unidirectional=unidirectional)
    assert stream is not None
    return stream


def received(pair: Pair) -> tuple[list[Event], bool, int]:
    """What the client wrote reaches the server, which holds: its events, whether to pump again, and how many
    datagrams it sent."""
    pair.client.engine.pump(pair.now)
    for data, _, _ in pair.client.engine.transmits():
        pair.server.engine.receive(data, pair.client.address, pair.server.address[0], pair.now)
    events, _, more, _ = pair.server.engine.pump(pair.now, hold=True)
    return events, more, len(pair.server.engine.transmits())


def test_an_answer_leaves_in_one_datagram_with_the_acknowledgement_of_what_it_answers() -> None:
    pair = Pair(seeds=SEEDS)
    near, far = pair.connected()
    pair.advance(1.0)
    answers = []
    # RFC 9000 §13.2.2: every second packet is to be acknowledged at once, so there are two requests.
    for _ in range(2):
        near.write(stream := opened(near), REQUEST, 0)
        events, more, sent = received(pair)
        assert [event.stream for event in events if isinstance(event, Event.Opened)] == [stream]
        assert more
        assert sent == 0
        far.write(stream, b"answer", 0)
        pair.server.engine.pump(pair.now)
        answers += pair.server.engine.transmits()
    assert len(answers) == 2
    before = near.stats()["acks_received"]
    for data, _, _ in answers:
        pair.client.engine.receive(data, pair.server.address, pair.client.address[0], pair.now)
    assert near.stats()["acks_received"] == before + 1


def test_without_an_answer_the_next_pump_acknowledges() -> None:
    pair = Pair(seeds=SEEDS)
    near, _ = pair.connected()
    pair.advance(1.0)
    for sent in (0, 1):
        near.write(opened(near), REQUEST, 0)
        assert received(pair)[1:] == (True, 0)
        events, _, more, _ = pair.server.engine.pump(pair.now)
        assert events == []
        assert not more
        assert len(pair.server.engine.transmits()) == sent


def test_nothing_is_held_when_the_application_has_nothing_to_answer() -> None:
    pair = Pair(seeds=SEEDS)
    near, _ = pair.connected()
    pair.advance(1.0)
    stream = opened(near, unidirectional=True)
    near.write(stream, REQUEST, 0)
    received(pair)
    pair.server.engine.pump(pair.now)
    # More of a stream that nobody waits to read is no event.
    near.write(stream, REQUEST, 0)
    assert received(pair) == ([], False, 1)
