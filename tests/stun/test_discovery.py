"""What a NAT is found to be (RFC 5780), and what a machine that asks takes for an answer."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from quice.stun import discovery
from quice.stun.attributes import ChangeRequest, OtherAddress, XorMappedAddress
from quice.stun.discovery import Behaviour, Discovery, DiscoveryError
from quice.stun.message import Kind, Message, Method
from quice.stun.responses import error, success
from quice.wire import Address, Transmit

SERVER, OTHER = Address("192.0.2.1", 3478), Address("192.0.2.2", 3479)
LOCAL = Address("192.168.1.11", 5000)
MAPPED = Address("203.0.113.1", 5000)


def request(transmit: Transmit) -> Message:
    return Message.decode(transmit.data)


def run(test: Discovery[object], reply: Callable[[Transmit], tuple[bytes, Address] | None]) -> list[Transmit]:
    """Answer each request with what `reply` says of it, until the test is over; returns all requests."""
    now, sent = 0.0, []
    while (deadline := test.timeout()) is not None:
        for transmit in test.transmits():
            sent.append(transmit)
            answered = reply(transmit)
            if answered is not None:
                test.receive(answered[0], answered[1], LOCAL, now)
        now = deadline
        test.handle_timeout(now)
    return sent


def answered(transmit: Transmit, seen: Address = MAPPED) -> tuple[bytes, Address]:
    """As a server of two addresses and ports would that no NAT stands before."""
    asked = transmit.destination
    other = Address(
        OTHER.host if asked.host == SERVER.host else SERVER.host,
        OTHER.port if asked.port == SERVER.port else SERVER.port,
    )
    answer = discovery.answer(transmit.data, seen, asked, other)
    assert answer is not None
    assert answer.source is not None
    return answer.data, answer.source


def new(questions: discovery.Questions[object]) -> Discovery[object]:
    return Discovery(questions, random.Random(1), 0.0)


def test_the_mapped_address_is_what_the_server_saw() -> None:
    test = new(discovery.mapped(SERVER))
    run(test, answered)
    assert test.result() == MAPPED


@pytest.mark.parametrize("port", [5000, 5001])
def test_one_mapping_for_all_is_endpoint_independent(port: int) -> None:
    test = new(discovery.mapping(SERVER, port))
    sent = run(test, answered)
    assert test.result() == (Behaviour.ENDPOINT_INDEPENDENT, port == 5000)
    assert [each.destination for each in sent] == [SERVER, Address(OTHER.host, SERVER.port)]


@pytest.mark.parametrize(
    ("depends_on", "behaviour"),
    [
        (lambda asked: asked.host, Behaviour.ADDRESS_DEPENDENT),
        (lambda asked: asked, Behaviour.ADDRESS_AND_PORT_DEPENDENT),
    ],
)
def test_mappings_that_differ_are_told_apart(depends_on: Callable[[Address], object], behaviour: Behaviour) -> None:
    ports: dict[object, int] = {}

    def reply(transmit: Transmit) -> tuple[bytes, Address]:
        port = ports.setdefault(depends_on(transmit.destination), 5000 + len(ports))
        return answered(transmit, Address(MAPPED.host, port))

    test = new(discovery.mapping(SERVER, 5000))
    run(test, reply)
    assert test.result() == (behaviour, True)


@pytest.mark.parametrize(
    ("lets_in", "behaviour"),
    [
        (lambda source: True, Behaviour.ENDPOINT_INDEPENDENT),
        (lambda source: source.host == SERVER.host, Behaviour.ADDRESS_DEPENDENT),
        (lambda source: source == SERVER, Behaviour.ADDRESS_AND_PORT_DEPENDENT),
    ],
)
def test_filters_are_told_apart_by_what_they_let_in(lets_in: Callable[[Address], bool], behaviour: Behaviour) -> None:
    def reply(transmit: Transmit) -> tuple[bytes, Address] | None:
        data, source = answered(transmit)
        return (data, source) if lets_in(source) else None

    test = new(discovery.filtering(SERVER))
    sent = run(test, reply)
    assert test.result() is behaviour
    assert {each.destination for each in sent} == {SERVER}, "asking the other address would open the filter"


def test_a_filter_is_told_from_a_lost_packet_by_asking_again() -> None:
    lost: list[bytes] = []

    def reply(transmit: Transmit) -> tuple[bytes, Address] | None:
        identifier = request(transmit).transaction_id
        lost.append(identifier)
        return answered(transmit) if lost.count(identifier) == 3 else None

    test = new(discovery.filtering(SERVER))
    run(test, reply)
    assert test.result() is Behaviour.ENDPOINT_INDEPENDENT


def test_a_server_that_does_not_answer_is_an_error() -> None:
    test = new(discovery.mapping(SERVER, 5000))
    sent = run(test, lambda transmit: None)
    assert len(sent) == 3
    assert test.finished
    with pytest.raises(DiscoveryError, match="does not answer"):
        test.result()


def test_a_server_without_another_address_is_an_error() -> None:
    def reply(transmit: Transmit) -> tuple[bytes, Address]:
        return success(request(transmit), XorMappedAddress(MAPPED)), transmit.destination

    test = new(discovery.filtering(SERVER))
    run(test, reply)
    with pytest.raises(DiscoveryError, match="no OtherAddress"):
        test.result()


@pytest.mark.parametrize("other", [Address("2001:db8::1", 3479), Address("192.0.2.2", 0)])
def test_a_server_whose_other_address_can_not_be_asked_is_an_error(other: Address) -> None:
    def reply(transmit: Transmit) -> tuple[bytes, Address]:
        return success(request(transmit), XorMappedAddress(MAPPED), OtherAddress(other)), transmit.destination

    for questions in (discovery.mapping(SERVER, 5000), discovery.filtering(SERVER)):
        test: Discovery[object] = new(questions)
        run(test, reply)
        with pytest.raises(DiscoveryError, match="other address"):
            test.result()


def test_what_does_not_answer_the_question_is_passed_over() -> None:
    test = new(discovery.mapped(SERVER))
    (sent,) = test.transmits()
    data, _ = answered(sent)
    other = Message(Method.BINDING, Kind.SUCCESS, bytes(12), (XorMappedAddress(MAPPED),)).encode()
    refusal = error(request(sent), 420)
    for wrong, source in ((data, OTHER), (other, SERVER), (sent.data, SERVER), (refusal, SERVER), (b"", SERVER)):
        test.receive(wrong, source, LOCAL, 0.0)
    assert not test.finished
    with pytest.raises(RuntimeError, match="not finished"):
        test.result()
    test.receive(data, SERVER, LOCAL, 0.0)
    test.receive(data, SERVER, LOCAL, 0.0)
    assert test.result() == MAPPED


@pytest.mark.parametrize(
    ("change", "source"),
    [
        (ChangeRequest(address=False, port=False), SERVER),
        (ChangeRequest(address=False, port=True), Address(SERVER.host, OTHER.port)),
        (ChangeRequest(address=True, port=False), Address(OTHER.host, SERVER.port)),
        (ChangeRequest(address=True, port=True), OTHER),
    ],
)
def test_a_server_answers_from_where_change_request_asks_for(change: ChangeRequest, source: Address) -> None:
    """RFC 5780 §6.1."""
    asked = Message(Method.BINDING, Kind.REQUEST, bytes(12), (change,)).encode()
    answer = discovery.answer(asked, MAPPED, SERVER, OTHER)
    assert answer is not None
    assert (answer.source, answer.destination) == (source, MAPPED)
    response = Message.decode(answer.data)
    assert response.get(XorMappedAddress) == XorMappedAddress(MAPPED)
    assert response.get(OtherAddress) == OtherAddress(OTHER)


@pytest.mark.parametrize("data", [b"", bytes(100), Message(Method.BINDING, Kind.INDICATION, bytes(12), ()).encode()])
def test_a_server_answers_nothing_but_binding_requests(data: bytes) -> None:
    assert discovery.answer(data, MAPPED, SERVER, OTHER) is None
