"""The control channel's protocol: frames out of any pieces, sessions of both sides, and peers that break the rules."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quice.signal.inband import (
    MAX_FRAME,
    MAX_SESSIONS,
    Begun,
    End,
    Ended,
    Event,
    Frame,
    FrameReader,
    Hello,
    Said,
    Say,
    Sessions,
    decode,
    encode,
)
from quice.signal.messages import MAX_MESSAGE, Answer, Bye, SignalDecodeError
from quice.signal.messages import encode as body
from tests.signal.test_messages import MESSAGES, OFFER, PWD, UFRAG

ANSWER = Answer(ufrag=UFRAG, pwd=PWD)
FRAMES: list[Frame] = [
    Hello(version=1),
    Hello(version=7),
    *(Say(session=number, body=body(message)) for number, message in enumerate(MESSAGES)),
    Say(session=(1 << 53) - 1, body=b""),
    End(session=0),
]


def raw(values: object) -> bytes:
    """A frame that says this."""
    data = msgspec.msgpack.encode(values)
    return len(data).to_bytes(2, "big") + data


@pytest.fixture
def client() -> Sessions:
    return Sessions(is_client=True)


@pytest.fixture
def server(client: Sessions) -> Sessions:
    sessions = Sessions(is_client=False)
    assert list(sessions.receive(client.hello(), 0.0)) == []
    return sessions


def heard(sessions: Sessions, data: bytes, now: float = 0.0) -> list[Event]:
    return list(sessions.receive(data, now))


@given(st.lists(st.integers(0, 200), max_size=40))
def test_frames_are_found_in_pieces_of_any_size(sizes: list[int]) -> None:
    data = b"".join(encode(frame) for frame in FRAMES)
    reader, found, at = FrameReader(), [], 0
    for size in (*sizes, len(data)):
        found += list(reader.receive(data[at : at + size]))
        at += size
    assert found == FRAMES


@given(st.binary(max_size=200))
def test_bytes_that_are_no_frame_are_refused_in_one_way(data: bytes) -> None:
    try:
        frame = decode(data)
    except SignalDecodeError:
        return
    assert decode(encode(frame)[2:]) == frame


@given(st.lists(st.one_of(st.binary(max_size=80), st.sampled_from([encode(frame) for frame in FRAMES])), max_size=12))
def test_whatever_comes_is_an_event_or_the_end_of_the_channel(pieces: list[bytes]) -> None:
    sessions = Sessions(is_client=False)
    opened: set[int] = set()
    try:
        for piece in pieces:
            for event in sessions.receive(piece, 0.0):
                match event:
                    case Begun(session):
                        assert session % 2 == 0
                        opened.add(session)
                    case Said(session):
                        assert session in opened
                    case Ended(session):
                        opened.remove(session)
    except SignalDecodeError:
        pass
    assert len(opened) <= MAX_SESSIONS


@pytest.mark.parametrize(
    "values",
    [
        {"type": "hello", "version": 0},
        {"type": "hello"},
        {"type": "say", "session": -2, "body": b""},
        {"type": "say", "session": 1 << 53, "body": b""},
        {"type": "say", "session": 0, "body": "text"},
        {"type": "end", "session": "0"},
        {"type": "other"},
        [],
        None,
    ],
    ids=repr,
)
def test_a_frame_with_a_wrong_value_ends_the_channel(server: Sessions, values: object) -> None:
    with pytest.raises(SignalDecodeError):
        heard(server, raw(values))


def test_a_frame_that_is_too_long_is_refused_before_it_has_come(server: Sessions) -> None:
    with pytest.raises(SignalDecodeError, match=f"{MAX_FRAME} are allowed"):
        heard(server, (MAX_FRAME + 1).to_bytes(2, "big"))


def test_the_largest_message_fits_a_frame(server: Sessions) -> None:
    frame = encode(Say(session=(1 << 53) - 2, body=bytes(MAX_MESSAGE)))
    assert len(frame) <= 2 + MAX_FRAME


def test_a_stream_that_does_not_begin_with_a_hello_is_no_channel() -> None:
    sessions = Sessions(is_client=False)
    with pytest.raises(SignalDecodeError, match="hello"):
        heard(sessions, sessions.say(0, OFFER))


def test_a_hello_where_none_belongs_is_refused(client: Sessions, server: Sessions) -> None:
    with pytest.raises(SignalDecodeError, match="hello"):
        heard(server, client.hello())
    with pytest.raises(SignalDecodeError, match="hello"):
        heard(client, client.hello())


def test_a_later_version_of_the_hello_is_taken() -> None:
    assert heard(Sessions(is_client=False), encode(Hello(version=9))) == []


def test_both_sides_begin_sessions_at_once_and_neither_takes_the_others_for_its_own(
    client: Sessions, server: Sessions
) -> None:
    ours, theirs = client.begin(), server.begin()
    assert ours is not None
    assert theirs is not None
    assert ours != theirs
    offers = client.say(ours, OFFER), server.say(theirs, OFFER)
    assert [type(event) for event in heard(server, offers[0])] == [Begun, Said]
    assert [type(event) for event in heard(client, offers[1])] == [Begun, Said]
    (said,) = heard(client, server.say(ours, ANSWER))
    assert isinstance(said, Said)
    assert (said.session, said.message) == (ours, ANSWER)


def test_sessions_follow_each_other_under_numbers_of_their_own(client: Sessions, server: Sessions) -> None:
    numbers = []
    for _ in range(3 * MAX_SESSIONS):
        session = client.begin()
        assert session is not None
        begun, said, ended = heard(server, client.say(session, OFFER) + client.end(session))
        assert (begun, ended) == (Begun(session), Ended(session))
        assert isinstance(said, Said)
        numbers.append(session)
    assert numbers == sorted(set(numbers))


def test_what_comes_for_a_session_that_is_over_is_late_and_ignored(client: Sessions, server: Sessions) -> None:
    session = client.begin()
    assert session is not None
    heard(server, client.say(session, OFFER))
    server.end(session)
    for late in (client.say(session, Bye()), client.say(session, OFFER), client.end(session)):
        assert heard(server, late) == []


def test_only_an_offer_under_the_peers_own_number_begins_a_session(client: Sessions, server: Sessions) -> None:
    assert heard(server, client.say(0, ANSWER)) == []
    assert heard(server, client.say(1, OFFER)) == []
    assert heard(server, client.end(0)) == []


def test_a_session_is_ended_once(client: Sessions) -> None:
    session = client.begin()
    assert session is not None
    assert client.end(session) == encode(End(session=session))
    assert client.end(session) == b""


def test_no_more_sessions_are_begun_than_the_peer_takes(client: Sessions, server: Sessions) -> None:
    sessions = [client.begin() for _ in range(MAX_SESSIONS)]
    assert client.begin() is None
    for session in sessions:
        assert session is not None
        heard(server, client.say(session, OFFER))
    client.end(0)
    assert client.begin() is not None
    assert server.begin() is not None


def test_a_peer_that_begins_too_many_sessions_loses_the_channel(client: Sessions, server: Sessions) -> None:
    for number in range(MAX_SESSIONS):
        heard(server, client.say(2 * number, OFFER))
    with pytest.raises(SignalDecodeError, match="sessions"):
        heard(server, client.say(2 * MAX_SESSIONS, OFFER))


def test_a_flood_loses_the_channel_and_the_same_at_leisure_does_not(client: Sessions, server: Sessions) -> None:
    session = client.begin()
    assert session is not None
    frame = client.say(session, OFFER)
    patient = Sessions(is_client=False)
    heard(patient, client.hello())
    for second in range(200):
        assert heard(patient, 10 * frame, float(second))
    with pytest.raises(SignalDecodeError, match="too much"):
        for _ in range(200):
            heard(server, 10 * frame)


def test_a_message_that_is_too_large_is_refused_by_who_says_it(client: Sessions) -> None:
    with pytest.raises(ValueError, match="send fewer candidates"):
        client.say(0, msgspec.structs.replace(OFFER, candidates=OFFER.candidates * 100))


def test_messages_keep_their_order(client: Sessions, server: Sessions) -> None:
    session = client.begin()
    assert session is not None
    data = b"".join(client.say(session, message) for message in [OFFER, *MESSAGES])
    rng, said = random.Random(5), []
    while data:
        cut = rng.randrange(1, 300)
        said += [event.message for event in heard(server, data[:cut]) if isinstance(event, Said)]
        data = data[cut:]
    assert said == [OFFER, *MESSAGES]
