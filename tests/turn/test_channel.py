"""Channels: bound at once, kept up, given up (RFC 8656 §12)."""

from collections import deque

import pytest

from quice.stun.attributes import ChannelNumber, XorPeerAddress
from quice.stun.message import Message, Method, is_stun
from quice.turn import Allocated, Bound, Lost, Received, Unbound
from quice.turn.channel import Channels, decode_channel_data, encode_channel_data
from quice.wire import Address
from tests.turn.relay import LOCAL, OTHER_PEER, PEER, PEER6, REALM, SERVER, USER, Play, Relay, allocated
from tests.turn.test_client import KNOWN


def test_rfc8656_12_a_channel_has_its_number_at_once_and_data_follows_the_request() -> None:
    play = allocated()
    channel = play.client.bind(PEER, play.now)
    assert channel == 0x4000
    assert play.client.send(b"hello", PEER, play.now)
    request, data = play.client.transmits()
    message = Message.decode(request.data)
    assert message.method is Method.CHANNEL_BIND
    assert message.get(ChannelNumber) == ChannelNumber(0x4000)
    assert message.get(XorPeerAddress) == XorPeerAddress(PEER)
    assert message.verify(play.relay.key)
    assert data.data == b"\x40\x00\x00\x05hello"


def test_binding_is_told_once_and_asked_for_once() -> None:
    play = allocated()
    assert play.bind() == play.bind()
    assert play.the(Bound) == Bound(PEER, 0x4000)
    assert play.relay.count(Method.CHANNEL_BIND) == 1
    assert play.bind(OTHER_PEER) == 0x4001


def test_data_goes_both_ways_through_a_channel() -> None:
    play = allocated()
    channel = play.bind()
    assert play.send(b"to the peer")
    assert play.relay.relayed == [(b"to the peer", PEER)]
    assert not is_stun(play.sent[-1])
    assert play.hear(encode_channel_data(channel, b"from the peer"))
    assert play.the(Received) == Received(b"from the peer", PEER)


def test_rfc8656_12_6_padding_is_no_data() -> None:
    play = allocated()
    channel = play.bind()
    play.hear(encode_channel_data(channel, b"12345") + bytes(3))
    assert play.the(Received).data == b"12345"


def test_rfc8656_12_5_over_a_stream_channel_data_is_padded() -> None:
    play = allocated(reliable=True)
    play.bind()
    play.send(b"12345")
    assert play.sent[-1] == b"\x40\x00\x00\x0512345\0\0\0"
    assert play.relay.relayed == [(b"12345", PEER)]


def test_data_that_overtakes_the_answer_that_the_channel_is_bound_is_taken() -> None:
    play = allocated()
    channel = play.client.bind(PEER, play.now)
    play.hear(encode_channel_data(channel, b"early"))
    assert play.the(Received) == Received(b"early", PEER)


def test_data_of_unknown_channels_and_broken_data_are_dropped() -> None:
    play = allocated()
    channel = play.bind()
    for data in (
        encode_channel_data(channel + 1, b"x"),
        encode_channel_data(channel, b"12345")[:-1],
        b"\x40",
        b"\x40\x00\x00",
    ):
        assert play.hear(data)
    assert not [event for event in play.told if isinstance(event, Received)]


def test_channel_data_of_others_than_the_server_is_not_ours() -> None:
    play = allocated()
    channel = play.bind()
    assert not play.hear(encode_channel_data(channel, b"forged"), Address("192.0.2.66", 3478))


def test_requests_follow_an_allocate_request_once_the_nonce_is_known() -> None:
    play = Play(credentials=KNOWN)
    play.client.bind(PEER, play.now)
    play.client.send(b"first flight", PEER, play.now)
    flight = list(play.client.transmits())
    assert [Message.decode(t.data).method for t in flight[:2]] == [Method.ALLOCATE, Method.CHANNEL_BIND]
    for transmit in flight:
        if (answer := play.relay.take(transmit.data, play.now)) is not None:
            play.hear(answer)
    # All within the first round trip.
    assert play.relay.relayed == [(b"first flight", PEER)]
    assert [type(event) for event in play.told] == [Allocated, Bound]


def test_without_a_nonce_they_follow_the_second_allocate_request() -> None:
    play = Play()
    play.client.bind(PEER, play.now)
    play.client.permit(["198.51.100.50"], play.now)
    assert not play.client.send(b"too early", PEER, play.now)
    (first,) = play.client.transmits()
    challenge = play.relay.take(first.data, play.now)
    assert challenge is not None
    play.client.receive(challenge, SERVER, LOCAL, play.now)
    flight = [Message.decode(transmit.data).method for transmit in play.client.transmits()]
    assert flight == [Method.ALLOCATE, Method.CHANNEL_BIND, Method.CREATE_PERMISSION]


def test_requests_that_overtake_the_allocate_request_are_sent_again_behind_it() -> None:
    play = Play(credentials=KNOWN)
    play.client.bind(PEER, play.now)
    play.client.permit(["198.51.100.50"], play.now)
    allocate, *others = play.client.transmits()
    for transmit in others:
        answer = play.relay.take(transmit.data, play.now)
        assert answer is not None
        assert Message.decode(answer).error.code == 437
        play.hear(answer)
    assert play.relay.count(Method.CHANNEL_BIND) == 1
    answer = play.relay.take(allocate.data, play.now)
    assert answer is not None
    play.hear(answer)
    assert [type(event) for event in play.told] == [Allocated, Bound]
    assert set(play.relay.permitted) == {PEER.host, "198.51.100.50"}


def test_an_early_437_that_comes_after_the_allocation_is_no_loss() -> None:
    play = Play(credentials=KNOWN)
    play.client.bind(PEER, play.now)
    allocate, bind = play.client.transmits()
    refused = play.relay.take(bind.data, play.now)
    given = play.relay.take(allocate.data, play.now)
    assert refused is not None
    assert given is not None
    play.hear(given)
    play.hear(refused)
    assert [type(event) for event in play.told] == [Allocated, Bound]


def test_rfc8656_12_a_channel_and_its_permission_are_renewed_by_one_request() -> None:
    play = allocated()
    channel = play.bind()
    play.permit(PEER.host)
    asked = play.relay.count(Method.CREATE_PERMISSION)
    for _ in range(100):
        play.advance(60.0)
        assert play.relay.channels[channel][1] > play.now
        assert play.relay.permitted[PEER.host] > play.now
    assert play.relay.count(Method.CREATE_PERMISSION) == asked
    assert play.relay.count(Method.CHANNEL_BIND) == 1 + 6000 // 240
    assert play.the(Bound)


def test_a_refused_channel_is_told_and_data_goes_as_indications() -> None:
    play = allocated()
    play.relay.refusals[Method.CHANNEL_BIND] = deque([508])
    channel = play.bind()
    unbound = play.the(Unbound)
    assert (unbound.peer, unbound.channel, unbound.code) == (PEER, channel, 508)
    assert "capacity" in unbound.reason or "bandwidth" in unbound.reason
    play.permit(PEER.host)
    play.send(b"data")
    assert is_stun(play.sent[-1])
    assert play.relay.relayed == [(b"data", PEER)]
    assert play.bind() == channel
    assert play.the(Bound)


def test_a_channel_that_the_server_does_not_renew_is_told() -> None:
    play = allocated()
    play.bind()
    play.relay.refusals[Method.CHANNEL_BIND] = deque([403])
    play.advance(240.0)
    assert play.the(Unbound).code == 403
    play.advance(600.0)
    assert play.relay.count(Method.CHANNEL_BIND) == 2


def test_rfc8656_19_a_peer_of_the_other_family_is_refused_with_443() -> None:
    play = allocated()
    play.bind(PEER6)
    assert play.the(Unbound).code == 443


def test_a_silent_server_to_a_channel_bind_is_lost() -> None:
    play = allocated()
    play.relay.silent = True
    play.bind()
    play.advance(9.0)
    assert play.the(Lost)


def test_a_request_that_is_not_answered_while_others_are_is_asked_again() -> None:
    play = allocated()
    play.relay.rules[Method.CHANNEL_BIND] = lambda relay, request: None
    play.bind()
    play.advance(5.0)
    play.client.check(play.now)
    play.advance(5.0)
    assert not [event for event in play.told if isinstance(event, Lost)]
    del play.relay.rules[Method.CHANNEL_BIND]
    play.advance(25.0)
    assert play.the(Bound)


def test_a_channel_that_was_given_up_is_not_renewed_but_still_heard() -> None:
    play = allocated()
    channel = play.bind()
    play.client.unbind(PEER)
    play.advance(300.0)
    assert play.relay.count(Method.CHANNEL_BIND) == 1
    play.hear(encode_channel_data(channel, b"late"))
    assert play.the(Received).data == b"late"
    assert not [event for event in play.told if isinstance(event, Unbound)]


def test_giving_up_a_channel_that_is_being_bound_tells_nothing() -> None:
    play = allocated()
    play.client.bind(PEER, play.now)
    play.client.unbind(PEER)
    play.exchange()
    assert [type(event) for event in play.told] == [Allocated]


def test_rfc8656_12_numbers_end_at_0x4fff_and_come_back_a_quarter_of_an_hour_after_their_last_request() -> None:
    channels = Channels()
    peers = [Address("198.51.100.9", port) for port in range(1, 4097)]
    for peer in peers:
        channels.open(peer, 0.0).ask(0.0)
    assert {channel.number for channel in channels} == set(range(0x4000, 0x5000))
    with pytest.raises(OverflowError, match="no channel is left"):
        channels.open(PEER, 1.0)
    channels.open(peers[7], 100.0).unbind()
    with pytest.raises(OverflowError):
        channels.open(PEER, 899.0)
    channel = channels.open(PEER, 900.0)
    assert channel.number == 0x4007
    assert channels.numbered(0x4007) is channel
    assert channels.of(peers[7]) is None


def test_channels_that_were_given_up_are_forgotten_and_their_numbers_rest() -> None:
    channels = Channels()
    for hour in range(100):
        peer = Address("198.51.100.9", 1 + hour)
        channel = channels.open(peer, hour * 3600.0)
        channel.ask(hour * 3600.0)
        assert channel.number == 0x4000 + hour
        assert len(list(channels)) == 1
        channel.unbind()


@pytest.mark.parametrize("peer", [Address("192.0.2.9", 0), Address("192.0.2.9", 65536), Address("peer", 1)])
def test_a_peer_that_nobody_can_send_to_is_a_value_error(peer: Address) -> None:
    play = allocated()
    with pytest.raises(ValueError):  # noqa: PT011  of `ipaddress` or ours
        play.client.bind(peer, play.now)
    play.advance(300.0)
    assert not play.relay.channels


def test_a_zone_is_no_business_of_the_servers() -> None:
    play = allocated(Relay(families=(1, 2)))
    play.bind(Address("fe80::1%eth0", 6000))
    assert play.the(Bound).peer == Address("fe80::1", 6000)


def test_what_does_not_fit_a_channel_data_message_is_a_value_error() -> None:
    play = allocated()
    play.bind()
    with pytest.raises(ValueError, match="65536 bytes"):
        play.client.send(bytes(65536), PEER, play.now)


@pytest.mark.parametrize("message", [b"", b"\x40\x00", b"\x40\x00\x00\x01", b"\x50\x00\x00\x00", b"\x00\x01\x00\x00"])
def test_what_is_no_channel_data_is_none(message: bytes) -> None:
    assert decode_channel_data(message) is None


def test_credentials_with_a_nonce_are_what_another_client_learned() -> None:
    assert allocated().client.credentials == type(USER)(USER.username, USER.password, REALM, KNOWN_NONCE)


KNOWN_NONCE = b"obMatJos2AAAAfirst"
