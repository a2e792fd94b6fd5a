"""The client's allocation: asked for, kept, found to be gone, released (RFC 8656 §6 to §8)."""

import itertools
import random
from collections import deque

import pytest

from quice.stun import responses
from quice.stun.attributes import (
    AdditionalAddressFamily,
    AddressErrorCode,
    AlternateDomain,
    AlternateServer,
    ErrorCode,
    Lifetime,
    Nonce,
    Realm,
    RequestedAddressFamily,
    RequestedTransport,
    XorMappedAddress,
    XorRelayedAddress,
)
from quice.stun.auth import LongTerm
from quice.stun.message import Message, Method
from quice.turn import AddressFamilies, Allocated, Bound, Client, Failed, Lost, Redirected
from quice.wire import Address
from tests.turn.relay import LOCAL, MAPPED, PEER, REALM, RELAYED, RELAYED6, SERVER, USER, Play, Relay, Rule, allocated

KNOWN = LongTerm(USER.username, USER.password, REALM, b"first")
OTHER = Address("192.0.2.2", 3479)


def test_rfc8656_7_an_allocation_takes_two_round_trips_and_tells_both_addresses() -> None:
    play = allocated()
    assert play.the(Allocated) == Allocated((RELAYED,), MAPPED, 600.0)
    first, second = play.relay.seen
    assert first.method is second.method is Method.ALLOCATE
    assert not first.has_integrity
    assert second.verify(play.relay.key)
    assert second.get(RequestedTransport) == RequestedTransport(17)
    assert second.get(Lifetime) == Lifetime(600)
    assert second.get(RequestedAddressFamily) is None


def test_with_realm_and_nonce_known_an_allocation_takes_one_round_trip() -> None:
    first = allocated()
    play = allocated(credentials=first.client.credentials)
    assert len(play.relay.seen) == 1
    assert play.the(Allocated)


def test_a_lost_allocate_request_is_sent_again_after_half_a_second() -> None:
    play = Play()
    play.lost = 1
    play.exchange()
    assert not play.told
    play.advance(0.5)
    assert play.the(Allocated)


def test_what_was_measured_makes_a_later_loss_good_sooner() -> None:
    play = Play()
    play.advance(0)
    play.lost = 1
    play.bind()
    play.advance(0.11)
    assert play.relay.channels


def test_rfc8489_6_2_2_over_a_stream_nothing_is_sent_twice() -> None:
    play = Play(reliable=True)
    play.lost = 1
    play.advance(7.9)
    assert len(play.sent) == 1
    play.advance(0.2)
    assert play.the(Failed).code is None


def test_a_silent_server_fails_within_eight_seconds() -> None:
    play = Play()
    play.relay.silent = True
    play.advance(7.9)
    assert not play.told
    play.advance(0.1)
    assert "does not answer" in play.the(Failed).reason
    assert play.client.is_over
    assert play.client.timeout() is None


def test_rfc8489_9_2_5_wrong_credentials_fail_with_advice() -> None:
    play = Play(credentials=LongTerm("alice", "wrong"))
    play.exchange()
    failed = play.the(Failed)
    assert failed.code == 401
    assert "user name or password" in failed.reason
    assert len(play.relay.seen) == 2


def test_a_server_that_can_not_sign_its_answers_is_not_believed() -> None:
    play = Play(Relay())
    play.relay.rules[Method.ALLOCATE] = lambda relay, request: (
        responses.success(request, XorRelayedAddress(RELAYED), XorMappedAddress(MAPPED), key=b"another")
        if request.has_integrity
        else relay.judge(request, 0.0)
    )
    play.advance(8.0)
    assert "not signed with this password" in play.the(Failed).reason


def test_rfc8489_9_2_5_sha256_is_used_where_the_server_offers_it() -> None:
    relay = Relay()
    relay.algorithms = ((2, b""), (1, b""))
    play = allocated(relay)
    assert play.relay.seen[-1].has_sha256
    assert play.the(Allocated)


def test_a_nonce_brought_along_that_is_stale_costs_one_round_trip_more() -> None:
    relay = Relay()
    relay.nonce = b"another"
    play = allocated(relay, credentials=KNOWN)
    assert len(relay.seen) == 2
    assert play.the(Allocated)


def test_a_nonce_brought_along_that_is_answered_with_401_is_forgotten_once() -> None:
    relay = Relay()

    def restarted(relay: Relay, request: Message) -> bytes | None:
        nonce = request.get(Nonce)
        if nonce is not None and not nonce.value.endswith(b"new"):
            return responses.challenge(request, 401, REALM, b"new")
        return relay.judge(request, 0.0)

    relay.nonce = b"new"
    relay.rules[Method.ALLOCATE] = restarted
    play = Play(relay, credentials=KNOWN)
    play.exchange()
    assert play.the(Allocated)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (400, "user name or password"),
        (403, "rules"),
        (437, "new port"),
        (441, "another user name"),
        (442, "another server"),
        (486, "as many allocations"),
        (500, "later"),
        (508, "another server"),
        (499, "TURN server"),
    ],
)
def test_rfc8656_19_each_refusal_says_what_to_do(code: int, advice: str) -> None:
    play = Play()
    play.relay.refusals[Method.ALLOCATE] = deque([code])
    play.exchange()
    failed = play.the(Failed)
    assert failed.code == code
    assert str(code) in failed.reason
    assert advice in failed.reason


def test_what_a_server_says_can_not_write_on_a_terminal() -> None:
    play = Play()
    play.relay.rules[Method.ALLOCATE] = lambda relay, request: (
        Message(request.method, responses.Kind.ERROR, request.transaction_id, (ErrorCode(486, "a\x1b[2Jb"),)).encode(
            relay.key
        )
        if request.has_integrity
        else relay.judge(request, 0.0)
    )
    play.exchange()
    assert "(a[2Jb)" in play.the(Failed).reason


# Families.


def test_rfc8656_7_1_ipv6_alone_is_asked_for_by_its_family() -> None:
    play = allocated(Relay(families=(2,)), families=AddressFamilies.IPV6)
    assert play.relay.seen[0].get(RequestedAddressFamily) == RequestedAddressFamily(2)
    assert play.the(Allocated).relayed == (RELAYED6,)


def test_ipv4_is_asked_for_by_its_family_where_a_server_might_give_ipv6() -> None:
    play = allocated(Relay(Address("2001:db8::3", 3478)))
    assert play.relay.seen[0].get(RequestedAddressFamily) == RequestedAddressFamily(1)
    assert play.the(Allocated).relayed == (RELAYED,)


def test_rfc8656_7_1_both_families_come_with_one_request() -> None:
    play = allocated(Relay(families=(1, 2)), families=AddressFamilies.BOTH)
    assert play.relay.seen[0].get(AdditionalAddressFamily) == AdditionalAddressFamily(2)
    assert play.relay.seen[0].get(RequestedAddressFamily) is None
    assert play.the(Allocated).relayed == (RELAYED, RELAYED6)


def test_rfc8656_7_3_one_of_two_families_is_enough() -> None:
    play = allocated(Relay(families=(1,)), families=AddressFamilies.BOTH)
    assert play.the(Allocated).relayed == (RELAYED,)


def test_rfc8656_18_12_an_address_error_code_is_no_failure() -> None:
    play = Play(families=AddressFamilies.BOTH)
    play.relay.rules[Method.ALLOCATE] = lambda relay, request: (
        responses.success(
            request,
            XorRelayedAddress(RELAYED),
            XorMappedAddress(MAPPED),
            AddressErrorCode(2, 508, "none left"),
            key=relay.key,
        )
        if request.has_integrity
        else relay.judge(request, 0.0)
    )
    play.exchange()
    assert play.the(Allocated) == Allocated((RELAYED,), MAPPED, 600.0)


def test_rfc8656_19_after_a_440_to_both_each_family_is_tried_alone() -> None:
    play = allocated(Relay(families=(2,)), families=AddressFamilies.BOTH)
    assert play.the(Allocated).relayed == (RELAYED6,)
    assert play.relay.count(Method.ALLOCATE) == 4


def test_rfc8656_19_a_440_to_the_only_family_fails() -> None:
    play = Play(families=AddressFamilies.IPV6)
    play.exchange()
    assert play.the(Failed).code == 440


@pytest.mark.parametrize("relayed", [Address("0.0.0.0", 50000), Address("192.0.2.1", 0)])
def test_an_address_that_nobody_can_send_to_is_no_allocation(relayed: Address) -> None:
    play = Play()
    play.relay.rules[Method.ALLOCATE] = lambda relay, request: (
        responses.success(request, XorRelayedAddress(relayed), XorMappedAddress(MAPPED), key=relay.key)
        if request.has_integrity
        else relay.judge(request, 0.0)
    )
    play.exchange()
    assert "no address that can be used" in play.the(Failed).reason


# What keeps it, and what ends it.


def test_rfc8656_8_an_allocation_outlives_its_lifetime_by_refreshing() -> None:
    play = allocated()
    play.advance(3 * 3600.0)
    assert len(play.told) == 1
    assert play.client.allocation is not None
    assert play.client.allocation.expires > play.now
    # Every 25 s: for the NATs on the way, and to know.
    assert play.relay.count(Method.REFRESH) == 3 * 3600 // 25


def test_a_short_lifetime_is_refreshed_at_its_half() -> None:
    relay = Relay()
    relay.lifetime = 30
    play = allocated(relay)
    play.advance(16.0)
    assert relay.count(Method.REFRESH) == 1
    assert play.client.allocation is not None
    assert play.client.allocation.expires == 100.0 + 15.0 + 30.0


def test_a_lifetime_of_nothing_keeps_nobody_busy() -> None:
    relay = Relay()
    relay.lifetime = 0
    play = allocated(relay)
    play.advance(60.0)
    assert relay.count(Method.REFRESH) == 30


def test_rfc8489_9_2_5_a_stale_nonce_is_replaced_unseen() -> None:
    play = allocated()
    for number in range(4):
        play.relay.nonce = b"nonce %d" % number
        play.advance(25.0)
    play.bind()
    assert [type(event) for event in play.told] == [Allocated, Bound]
    assert play.client.credentials.nonce.endswith(b"nonce 3")


def test_a_realm_that_changes_is_followed() -> None:
    play = allocated()
    play.relay.realm, play.relay.nonce = "example.net", b"other"
    play.relay.rules[Method.REFRESH] = lambda relay, request: (
        relay.judge(request, 0.0)
        if request.get(Realm) == Realm("example.net")
        else responses.challenge(request, 401, relay.realm, relay.nonce)
    )
    play.advance(30.0)
    assert len(play.told) == 1
    assert play.client.credentials.realm == "example.net"


@pytest.mark.parametrize("method", [Method.REFRESH, Method.CREATE_PERMISSION, Method.CHANNEL_BIND])
def test_rfc8656_19_a_437_means_that_the_allocation_is_gone(method: Method) -> None:
    play = allocated()
    play.relay.allocated = False
    if method is Method.REFRESH:
        play.advance(25.0)
    elif method is Method.CREATE_PERMISSION:
        play.permit(PEER.host)
    else:
        play.bind()
    assert "new port" in play.the(Lost).reason
    assert play.client.is_over
    assert play.client.allocation is None
    assert play.client.timeout() is None


def test_a_server_that_falls_silent_is_lost_within_33_seconds() -> None:
    play = allocated()
    play.relay.silent = True
    play.advance(33.1)
    assert "does not answer" in play.the(Lost).reason


def test_one_that_was_asked_after_is_lost_within_four_seconds() -> None:
    play = allocated()
    play.relay.silent = True
    play.client.check(play.now)
    play.client.check(play.now)
    play.advance(3.5)
    assert play.the(Lost)


def test_to_ask_after_an_allocation_that_is_there_tells_by_when_it_was_heard() -> None:
    play = allocated()
    play.advance(10.0)
    assert play.client.heard == 100.0
    play.client.check(play.now)
    play.exchange()
    assert play.client.heard == 110.0
    assert play.relay.count(Method.REFRESH) == 1
    play.client.check(play.now)
    play.exchange()
    assert play.relay.count(Method.REFRESH) == 2


def test_a_server_with_trouble_of_its_own_is_asked_again_until_the_lifetime_ends() -> None:
    play = allocated()
    refusals = play.relay.refusals[Method.REFRESH] = deque([500, 508])
    play.advance(40.0)
    assert not refusals
    assert len(play.told) == 1
    refusals += [500] * 1000
    play.advance(700.0)
    assert play.the(Lost)


def test_credentials_that_have_expired_lose_the_allocation_with_advice() -> None:
    play = allocated()
    play.relay.rules[Method.REFRESH] = lambda relay, request: responses.challenge(request, 401, REALM, b"x")
    play.advance(25.0)
    assert "expire" in play.the(Lost).reason


def test_rfc8656_8_closing_releases_the_allocation() -> None:
    play = allocated()
    play.bind()
    play.told.clear()
    play.client.close(play.now)
    assert not play.client.is_over
    play.exchange()
    assert not play.relay.allocated
    assert play.relay.seen[-1].get(Lifetime) == Lifetime(0)
    assert play.client.is_over
    assert not play.told
    assert play.client.timeout() is None


def test_a_release_that_is_lost_is_repeated_for_some_seconds() -> None:
    play = allocated()
    play.relay.silent = True
    play.client.close(play.now)
    play.advance(0.2)
    play.relay.silent = False
    play.advance(3.5)
    assert not play.relay.allocated


def test_closing_does_not_wait_for_a_silent_server_for_long_nor_complain() -> None:
    play = allocated()
    play.relay.silent = True
    play.client.close(play.now)
    play.advance(4.0)
    assert play.client.is_over
    assert [type(event) for event in play.told] == [Allocated]


def test_closing_while_the_server_allocates_releases_what_it_will_have() -> None:
    play = Play(credentials=KNOWN)
    (request,) = play.client.transmits()
    play.client.close(play.now)
    # The Allocate request is overtaken by the one that releases.
    play.exchange()
    assert not play.relay.allocated
    answer = play.relay.take(request.data, play.now)
    assert play.relay.allocated
    assert answer is not None
    play.hear(answer)
    assert not play.relay.allocated
    assert not play.told
    assert play.client.is_over


def test_closing_before_the_server_knows_us_leaves_nothing_behind() -> None:
    play = Play()
    play.client.close(play.now)
    play.exchange()
    assert not play.sent
    assert play.client.is_over
    play.client.close(play.now)


def test_a_server_that_asks_for_no_password_is_served_too() -> None:
    relay = Relay()

    def open_to_all(relay: Relay, request: Message) -> bytes:
        code, attributes = relay._do(request, 0.0)
        return responses.error(request, code) if code else responses.success(request, *attributes)

    relay.rules = dict.fromkeys(Method, open_to_all)
    play = allocated(relay)
    play.bind()
    assert relay.channels
    play.client.close(play.now)
    play.exchange()
    assert not relay.allocated


# 300 Try Alternate.


def redirect(to: Address, *, signed: bool = True, domain: str | None = None) -> Rule:
    named = (AlternateServer(to), *((AlternateDomain(domain),) if domain else ()))

    def rule(relay: Relay, request: Message) -> bytes | None:
        if signed and not request.has_integrity:
            return relay.judge(request, 0.0)
        return responses.error(request, 300, *named, key=relay.key if signed else None)

    return rule


@pytest.mark.parametrize("signed", [True, False])
def test_rfc8489_10_the_client_moves_to_the_server_that_is_named(signed: bool) -> None:
    play = Play()
    play.relay.rules[Method.ALLOCATE] = redirect(OTHER, signed=signed, domain="turn.example.org")
    play.others[OTHER] = other = Relay(OTHER)
    other.nonce, other.realm = b"of the other", "example.net"
    channel = play.client.bind(PEER, play.now)
    play.exchange()
    assert play.the(Redirected) == Redirected(OTHER, "turn.example.org")
    assert play.the(Allocated)
    assert play.client.server == OTHER
    assert other.allocated
    assert other.channels[channel][0] == PEER
    play.advance(60.0)
    assert other.count(Method.REFRESH) == 2


@pytest.mark.parametrize(
    "target",
    [
        SERVER,
        Address("2001:db8::2", 3478),
        Address("127.0.0.1", 3478),
        Address("224.0.0.1", 3478),
        Address("0.0.0.0", 3478),
        Address("169.254.169.254", 80),
        Address("10.0.0.1", 3478),
        Address("192.0.2.2", 0),
    ],
    ids=str,
)
def test_rfc8489_10_nobody_is_led_in_a_circle_or_where_no_server_is(target: Address) -> None:
    play = Play()
    play.relay.rules[Method.ALLOCATE] = redirect(target, signed=False)
    play.exchange()
    assert play.the(Failed).code == 300
    assert len(play.relay.seen) == 1


def test_a_chain_of_servers_is_followed_three_times() -> None:
    play = Play()
    chain = [Address("192.0.2.2", 3478 + number) for number in range(9)]
    play.relay.rules[Method.ALLOCATE] = redirect(chain[0])
    for here, there in itertools.pairwise(chain):
        play.others[here] = Relay(here)
        play.others[here].rules[Method.ALLOCATE] = redirect(there)
    play.exchange()
    assert sum(isinstance(event, Redirected) for event in play.told) == 3
    assert play.the(Failed).code == 300


# Strangers.


def test_answers_from_elsewhere_and_noise_change_nothing() -> None:
    play = Play()
    (first,) = play.client.transmits()
    answer = play.relay.take(first.data, play.now)
    assert answer is not None
    assert not play.client.receive(answer, OTHER, LOCAL, play.now)
    assert not play.client.receive(answer, SERVER, Address("10.0.0.2", 5000), play.now)
    rng = random.Random(7)
    for length in range(200):
        play.client.receive(rng.randbytes(length), SERVER, LOCAL, play.now)
    assert not list(play.client.transmits())
    assert play.client.receive(answer, SERVER, LOCAL, play.now)
    play.exchange()
    assert play.the(Allocated)


def test_an_unsigned_437_does_not_take_the_allocation_away() -> None:
    play = allocated()
    play.client.check(play.now)
    (request,) = play.client.transmits()
    play.hear(responses.error(Message.decode(request.data), 437))
    # The request is sent again, and its authentic answer counts.
    play.advance(5.0)
    assert len(play.told) == 1


def test_an_unsigned_refusal_counts_when_no_authentic_answer_comes_within_a_second() -> None:
    play = Play()
    play.relay.rules[Method.ALLOCATE] = lambda relay, request: (
        responses.error(request, 486) if request.has_integrity else relay.judge(request, 0.0)
    )
    play.advance(0.9)
    assert not play.told
    play.advance(0.2)
    assert play.the(Failed).code == 486


def test_the_same_inputs_at_the_same_times_give_the_same_bytes() -> None:
    runs = []
    for _ in range(2):
        play = allocated()
        play.bind()
        play.permit("198.51.100.50")
        play.advance(1000.0)
        runs.append(play.sent)
    assert runs[0] == runs[1]


def test_a_client_begins_by_itself() -> None:
    client = Client(SERVER, LOCAL, USER, random.Random(1), 0.0)
    (transmit,) = client.transmits()
    assert transmit.destination == client.server
    assert transmit.source == client.source
