"""Permissions, and data without channels (RFC 8656 §9 to §11)."""

from collections import deque

from quice.stun.attributes import Data, XorPeerAddress
from quice.stun.message import Kind, Message, Method
from quice.turn import AddressFamilies, Lost, PermissionRefused, Received
from quice.wire import Address
from tests.turn.relay import OTHER_PEER, PEER, PEER6, Relay, allocated

ID = b"123456789012"


def data_indication(data: bytes, peer: Address) -> bytes:
    return Message(Method.DATA, Kind.INDICATION, ID, (XorPeerAddress(peer), Data(data))).encode()


def test_rfc8656_10_several_addresses_are_permitted_by_one_request() -> None:
    play = allocated()
    play.client.permit([PEER.host, OTHER_PEER], play.now)
    play.exchange()
    assert set(play.relay.permitted) == {PEER.host, OTHER_PEER.host}
    assert play.relay.count(Method.CREATE_PERMISSION) == 1
    play.client.permit(PEER.host, play.now)
    play.exchange()
    assert play.relay.count(Method.CREATE_PERMISSION) == 1


def test_a_request_permits_one_family_so_that_one_does_not_fail_with_the_other() -> None:
    play = allocated(Relay(families=(1, 2)), families=AddressFamilies.BOTH)
    play.permit(PEER6.host, PEER.host)
    assert set(play.relay.permitted) == {PEER.host, PEER6.host}
    assert play.relay.count(Method.CREATE_PERMISSION) == 2


def test_private_addresses_that_a_server_refuses_do_not_delay_the_others() -> None:
    play = allocated()
    play.relay.forbidden.add("192.168.1.2")
    play.client.permit(["192.168.1.2", PEER.host, "10.0.0.2"], play.now)
    public = next(play.client.transmits())
    play.relay.take(public.data, play.now)
    assert set(play.relay.permitted) == {PEER.host}


def test_many_addresses_go_in_requests_that_fit_a_datagram() -> None:
    play = allocated(Relay(families=(1, 2)), families=AddressFamilies.BOTH)
    play.permit(*(f"2001:db8::{number:x}" for number in range(1, 101)))
    assert len(play.relay.permitted) == 100
    assert max(len(data) for data in play.sent) < 1200


def test_rfc8656_9_permissions_are_renewed_before_they_end() -> None:
    play = allocated()
    play.permit(PEER.host, OTHER_PEER.host)
    for _ in range(100):
        play.advance(60.0)
        assert all(expires > play.now for expires in play.relay.permitted.values())
    assert play.relay.count(Method.CREATE_PERMISSION) == 1 + 6000 // 240


def test_a_permission_that_is_not_needed_any_more_is_not_renewed() -> None:
    play = allocated()
    play.permit(PEER.host, OTHER_PEER.host)
    play.client.forget([PEER])
    play.advance(400.0)
    assert play.relay.permitted[PEER.host] < play.now < play.relay.permitted[OTHER_PEER.host]


def test_a_channel_given_up_leaves_the_permission_that_was_asked_for() -> None:
    play = allocated()
    play.permit(PEER.host)
    play.bind()
    play.client.unbind(PEER)
    play.advance(1000.0)
    assert play.relay.permitted[PEER.host] > play.now


def test_rfc8656_10_of_several_only_the_refused_one_is_told_to_be_so() -> None:
    play = allocated()
    play.relay.forbidden.add(OTHER_PEER.host)
    play.permit(PEER.host, OTHER_PEER.host, "198.51.100.50")
    refused = play.the(PermissionRefused)
    assert (refused.host, refused.code) == (OTHER_PEER.host, 403)
    assert "rules" in refused.reason
    assert set(play.relay.permitted) == {PEER.host, "198.51.100.50"}
    play.advance(1000.0)
    assert play.relay.permitted[PEER.host] > play.now
    assert play.the(PermissionRefused)


def test_a_permission_that_is_not_renewed_is_told() -> None:
    play = allocated()
    play.permit(PEER.host)
    play.relay.refusals[Method.CREATE_PERMISSION] = deque([508])
    play.advance(240.0)
    assert play.the(PermissionRefused).code == 508


def test_a_refusal_of_what_is_not_wanted_any_more_is_not_told() -> None:
    play = allocated()
    play.relay.forbidden.update((PEER.host, OTHER_PEER.host))
    play.client.permit([PEER, OTHER_PEER], play.now)
    play.client.forget([PEER, OTHER_PEER])
    play.exchange()
    assert not [event for event in play.told if isinstance(event, PermissionRefused)]


def test_a_server_silent_to_a_permission_is_lost() -> None:
    play = allocated()
    play.relay.silent = True
    play.permit(PEER.host)
    play.advance(8.0)
    assert play.the(Lost)


def test_rfc8656_11_data_without_a_channel_goes_in_indications() -> None:
    play = allocated()
    play.permit(PEER.host)
    assert play.send(b"to the peer")
    assert play.relay.relayed == [(b"to the peer", PEER)]
    assert play.hear(data_indication(b"from the peer", PEER))
    assert play.the(Received) == Received(b"from the peer", PEER)


def test_rfc8656_11_4_data_from_where_nobody_is_permitted_is_dropped() -> None:
    play = allocated()
    play.permit(PEER.host)
    assert play.hear(data_indication(b"forged", Address("203.0.113.66", 1)))
    assert not [event for event in play.told if isinstance(event, Received)]


def test_a_bound_peer_may_send_from_its_other_ports() -> None:
    play = allocated()
    play.bind(PEER)
    play.hear(data_indication(b"from another port", Address(PEER.host, 7000)))
    assert play.the(Received).peer == Address(PEER.host, 7000)


def test_indications_without_data_or_of_another_kind_are_dropped() -> None:
    play = allocated()
    play.permit(PEER.host)
    for message in (
        Message(Method.DATA, Kind.INDICATION, ID, (XorPeerAddress(PEER),)),
        Message(Method.DATA, Kind.INDICATION, ID, (Data(b"x"),)),
        Message(Method.SEND, Kind.INDICATION, ID, (XorPeerAddress(PEER), Data(b"x"))),
        Message(Method.DATA, Kind.SUCCESS, ID, (XorPeerAddress(PEER), Data(b"x"))),
        Message(Method.BINDING, Kind.SUCCESS, ID),
    ):
        play.hear(message.encode())
    assert not [event for event in play.told if isinstance(event, Received)]


def test_messages_of_the_server_that_are_not_turns_are_left_to_others() -> None:
    play = allocated()
    assert not play.hear(Message(Method.BINDING, Kind.SUCCESS, ID).encode())
    assert not play.hear(b"noise")


def test_nothing_is_sent_or_taken_after_the_end() -> None:
    play = allocated()
    channel = play.bind()
    play.permit(OTHER_PEER.host)
    play.client.close(play.now)
    play.exchange()
    sent = len(play.sent)
    assert not play.send(b"late")
    play.client.bind(OTHER_PEER, play.now)
    play.client.permit(["198.51.100.50"], play.now)
    play.client.check(play.now)
    play.hear(channel.to_bytes(2, "big") + b"\0\1x\0\0\0")
    play.hear(data_indication(b"late", OTHER_PEER))
    play.advance(1000.0)
    assert len(play.sent) == sent
    assert not [event for event in play.told if isinstance(event, Received)]
