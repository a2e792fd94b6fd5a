"""Client transactions under virtual time."""

import random

import pytest

from quice.stun.attributes import (
    ErrorCode,
    Nonce,
    PasswordAlgorithm,
    PasswordAlgorithms,
    Realm,
    Username,
    XorMappedAddress,
)
from quice.stun.auth import LongTerm, ShortTerm, long_term_key
from quice.stun.message import Kind, Message, Method
from quice.stun.transaction import ClientTransaction, Outcome, Refused, Succeeded, TimedOut
from quice.wire import Address

SERVER = Address("192.0.2.1", 3478)
LOCAL = Address("10.0.0.1", 5000)
MAPPED = XorMappedAddress(Address("198.51.100.1", 40000))


def begin(credentials: ShortTerm | LongTerm | None = None, rto: float = 0.5) -> ClientTransaction:
    rng = random.Random(1)
    return ClientTransaction(Method.BINDING, (), LOCAL, SERVER, rng, 0.0, rto=rto, credentials=credentials)


def sent(transaction: ClientTransaction) -> list[Message]:
    return [Message.decode(transmit.data) for transmit in transaction.transmits()]


def answer(request: Message, kind: Kind, *attributes: object, key: bytes | None = None) -> bytes:
    return Message(request.method, kind, request.transaction_id, attributes).encode(key)  # type: ignore[arg-type]


def outcome(transaction: ClientTransaction) -> Outcome | None:
    return next(transaction.events(), None)


def test_rfc8489_6_2_1_requests_go_out_at_the_times_of_the_rfc() -> None:
    transaction = begin()
    times = []
    now: float | None = 0.0
    while now is not None:
        transaction.handle_timeout(now)
        times += [now] * len(sent(transaction))
        last, now = now, transaction.timeout()
    assert times == [0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
    assert last == 39.5
    assert outcome(transaction) == TimedOut()


def test_a_success_ends_it_and_is_reported_once() -> None:
    transaction = begin()
    (request,) = sent(transaction)
    assert transaction.receive(answer(request, Kind.SUCCESS, MAPPED), SERVER, LOCAL, 0.1)
    result = outcome(transaction)
    assert isinstance(result, Succeeded)
    assert result.response.get(XorMappedAddress) == MAPPED
    assert outcome(transaction) is None
    assert transaction.timeout() is None


def test_an_answer_from_elsewhere_or_to_another_request_is_not_ours() -> None:
    transaction = begin()
    (request,) = sent(transaction)
    data = answer(request, Kind.SUCCESS, MAPPED)
    assert not transaction.receive(data, Address("192.0.2.2", 3478), LOCAL, 0.1)
    other = Message(Method.BINDING, Kind.SUCCESS, bytes(12), (MAPPED,)).encode()
    assert not transaction.receive(other, SERVER, LOCAL, 0.1)
    assert not transaction.receive(b"noise", SERVER, LOCAL, 0.1)
    assert outcome(transaction) is None


def test_rfc8489_9_1_4_an_unauthentic_success_is_as_if_it_had_not_come() -> None:
    transaction = begin(ShortTerm("user", "secret"))
    (request,) = sent(transaction)
    assert request.get(Username) == Username("user")
    assert request.verify(b"secret")
    transaction.receive(answer(request, Kind.SUCCESS, MAPPED, key=b"wrong"), SERVER, LOCAL, 0.1)
    transaction.receive(answer(request, Kind.SUCCESS, MAPPED), SERVER, LOCAL, 0.1)
    assert outcome(transaction) is None
    transaction.receive(answer(request, Kind.SUCCESS, MAPPED, key=b"secret"), SERVER, LOCAL, 0.1)
    assert isinstance(outcome(transaction), Succeeded)


@pytest.mark.parametrize("algorithm", PasswordAlgorithm)
def test_rfc8489_9_2_5_a_401_and_a_438_are_answered_with_credentials(algorithm: PasswordAlgorithm) -> None:
    transaction = begin(LongTerm("user", "secret"))
    offered = (PasswordAlgorithms(((2, b""), (1, b""))),) if algorithm is PasswordAlgorithm.SHA256 else ()
    nonces = [b"obMatJos2gAAAone", b"obMatJos2gAAAtwo"] if offered else [b"one", b"two"]
    key = long_term_key("user", "example.org", "secret", algorithm)
    for code, nonce in zip((401, 438), nonces, strict=True):
        (request,) = sent(transaction)
        refusal = answer(request, Kind.ERROR, ErrorCode(code), Realm("example.org"), Nonce(nonce), *offered)
        assert transaction.receive(refusal, SERVER, LOCAL, 0.1)
    (request,) = sent(transaction)
    assert request.verify(key)
    assert request.get(Nonce) == Nonce(nonces[1])
    transaction.receive(answer(request, Kind.SUCCESS, MAPPED, key=key), SERVER, LOCAL, 0.2)
    assert isinstance(outcome(transaction), Succeeded)


def test_rfc8489_9_2_5_wrong_credentials_are_not_tried_again() -> None:
    transaction = begin(LongTerm("user", "wrong"))
    for _ in range(2):
        (request,) = sent(transaction)
        refusal = answer(request, Kind.ERROR, ErrorCode(401), Realm("example.org"), Nonce(b"one"))
        transaction.receive(refusal, SERVER, LOCAL, 0.1)
    result = outcome(transaction)
    assert isinstance(result, Refused)
    assert result.response.error.code == 401


def test_rfc8489_9_2_5_a_bid_down_of_the_password_algorithm_is_refused() -> None:
    transaction = begin(LongTerm("user", "secret"))
    (request,) = sent(transaction)
    stripped = answer(request, Kind.ERROR, ErrorCode(401), Realm("example.org"), Nonce(b"obMatJos2gAAAone"))
    transaction.receive(stripped, SERVER, LOCAL, 0.1)
    assert isinstance(outcome(transaction), Refused)
