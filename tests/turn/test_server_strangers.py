"""What the server says to who has proven nothing: little, and never more than it was told."""

from __future__ import annotations

import random

import pytest

from quice.stun.attributes import Nonce, Realm, Software, Username
from quice.stun.auth import LongTerm
from quice.stun.message import Kind, Message, Method
from quice.turn import Client
from quice.turn.nonce import LIFETIME, Nonces
from quice.turn.orders import FiveTuple
from quice.wire import Address
from tests.turn.serving import ALICE, BOB, SERVER, UDP, Service, account


def test_the_first_allocate_of_our_client_gets_its_challenge_at_once() -> None:
    client = Client(SERVER, ALICE.client, account(), random.Random(3), 0.0)
    (transmit,) = client.transmits()
    (challenge,) = Service().deliver(transmit.data)
    assert len(challenge) <= len(transmit.data)
    answer = Message.decode(challenge)
    assert answer.error.code == 401
    assert answer.get(Realm) is not None
    assert answer.get(Nonce) is not None


def test_a_request_that_is_shorter_than_its_answer_is_answered_when_it_is_repeated() -> None:
    service = Service()
    request = service.request(Method.ALLOCATE, UDP).encode(fingerprint=False)
    assert len(request) == 28
    assert service.deliver(request) == []
    (challenge,) = service.deliver(request)
    assert len(challenge) <= 2 * len(request)


def test_no_stranger_draws_more_bytes_than_it_sends() -> None:
    service = Service()
    rng = random.Random(4)
    received = sent = 0
    for _ in range(2000):
        attributes = [
            UDP,
            Username("9999999999:x"),
            Realm("q"),
            Nonce(rng.randbytes(8)),
            Software("x" * rng.randrange(90)),
        ]
        request = service.request(
            rng.choice([Method.ALLOCATE, Method.REFRESH, Method.CREATE_PERMISSION]), *rng.sample(attributes, 3)
        )
        data = request.encode(rng.choice([None, b"guessed"]), fingerprint=rng.random() < 0.5)
        received += len(data)
        sent += sum(map(len, service.deliver(data)))
        service.wait(rng.random() / 20)
        assert sent <= received
    assert sent > 0


def test_one_source_is_answered_a_limited_number_of_times_a_second_and_others_all_the_same() -> None:
    service = Service()
    request = service.request(Method.ALLOCATE, UDP, Software("x" * 60)).encode()
    answers = sum(len(service.deliver(request)) for _ in range(1000))
    assert answers == 500
    service.wait(1.0)
    assert sum(len(service.deliver(request)) for _ in range(1000)) == 100
    assert len(service.deliver(request, BOB)) == 1


def test_an_ipv6_network_is_one_source() -> None:
    service = Service()
    request = service.request(Method.ALLOCATE, UDP, Software("x" * 60)).encode()
    clients = [FiveTuple(Address(f"2001:db8::{n:x}", 1), SERVER) for n in range(1, 601)]
    assert sum(len(service.deliver(request, client)) for client in clients) == 500


def test_more_sources_than_can_be_remembered_draw_no_more_either() -> None:
    service = Service()
    request = service.request(Method.ALLOCATE, UDP).encode()
    for turn in range(2):
        for number in range(5000):
            client = FiveTuple(Address(f"198.51.{number >> 8}.{number & 255}", 1), SERVER)
            assert service.deliver(request, client) == [], turn
    assert len(service.turn._strangers._sources) <= 4096


def test_over_tcp_the_source_is_proven() -> None:
    service = Service()
    request = service.request(Method.ALLOCATE, UDP).encode(fingerprint=False)
    assert len(service.deliver(request, FiveTuple(ALICE.client, SERVER, tcp=True))) == 1


@pytest.mark.parametrize(
    "user",
    [
        account(secret="another"),
        account(lifetime=-1),
        LongTerm("alice", "guessed"),
        LongTerm("alice:9999999999", "guessed"),
        LongTerm("99999999999999:alice", "guessed"),
    ],
    ids=["of another secret", "expired", "without a time", "the wrong way round", "for ever"],
)
def test_who_has_no_valid_credentials_gets_a_challenge_and_no_allocation(user: LongTerm) -> None:
    service = Service()
    assert service.code(Method.ALLOCATE, UDP, user=user) == 401
    assert len(service.turn) == 0
    assert service.orders == []


def test_an_allocation_outlives_the_credentials_that_it_was_made_with_while_it_is_refreshed() -> None:
    service = Service()
    service.allocate(user=account(lifetime=700))
    for _ in range(3):
        service.wait(500)
        assert service.refresh() == 0
    assert service.code(Method.ALLOCATE, UDP, client=BOB, user=account(lifetime=700)) == 401


def test_a_request_without_all_that_belongs_to_a_signature_is_a_bad_one() -> None:
    service = Service()
    (answer,) = service.deliver(service.request(Method.ALLOCATE, UDP, Software("x" * 40)).encode(b"key"))
    assert Message.decode(answer).error.code == 400


def test_an_old_nonce_is_stale_and_the_answer_has_a_new_one() -> None:
    service = Service()
    service.allocate()
    service.wait(500)
    assert service.refresh(3600) == 0
    service.wait(3200)
    answer = service.ask(Method.REFRESH)
    assert answer.error.code == 438
    nonce, realm = answer.get(Nonce), answer.get(Realm)
    assert nonce is not None
    assert realm is not None
    user = account()
    renewed = LongTerm(user.username, user.password, realm.value, nonce.value)
    assert service.code(Method.REFRESH, user=renewed) == 0


def test_a_nonce_is_good_on_its_host_for_an_hour_and_nowhere_else() -> None:
    nonces = Nonces(b"key")
    nonce = nonces.make(ALICE.client, 1000.0)
    assert nonces.is_valid(nonce, ALICE.client._replace(port=1), 1000.0 + LIFETIME)
    assert not nonces.is_valid(nonce, ALICE.client, 1000.0 + LIFETIME + 61)
    assert not nonces.is_valid(nonce, BOB.client, 1000.0)
    assert not nonces.is_valid(nonce, ALICE.client, 900.0)
    assert not Nonces(b"another").is_valid(nonce, ALICE.client, 1000.0)
    for wrong in (b"", b"x", b"\0" * 8, nonce[:-1], nonce + b"A", "é".encode()):
        assert not nonces.is_valid(wrong, ALICE.client, 1000.0)


def test_what_was_signed_for_one_host_is_worth_nothing_from_another() -> None:
    service = Service()
    request = service.compose(Method.ALLOCATE, UDP)
    (answer,) = service.deliver(request, BOB)
    assert Message.decode(answer).error.code == 438
    assert len(service.turn) == 0


def test_noise_is_passed_over() -> None:
    service = Service()
    rng = random.Random(5)
    seeds = [service.compose(Method.ALLOCATE, UDP), service.request(Method.BINDING).encode()]
    for _ in range(3000):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        service.deliver(bytes(data[: rng.randrange(len(data) + 1)]))
    assert len(service.turn) <= 1
    response = Message(Method.ALLOCATE, Kind.SUCCESS, bytes(12)).encode()
    assert service.deliver(response) == []
