"""Client transactions under virtual time."""

import random

import pytest

from quice.stun import responses
from quice.stun.attributes import (
    AlternateDomain,
    AlternateServer,
    Nonce,
    PasswordAlgorithm,
    PasswordAlgorithmChoice,
    PasswordAlgorithms,
    Realm,
    Userhash,
    Username,
    XorMappedAddress,
)
from quice.stun.auth import LongTerm, SecurityFeature, ShortTerm, long_term_key, nonce_cookie, userhash
from quice.stun.message import Kind, Message, Method
from quice.stun.transaction import (
    ClientTransaction,
    Incomprehensible,
    Outcome,
    Redirected,
    Refused,
    Succeeded,
    TimedOut,
)
from quice.wire import Address

SERVER = Address("192.0.2.1", 3478)
LOCAL = Address("10.0.0.1", 5000)
MAPPED = XorMappedAddress(Address("198.51.100.1", 40000))


def begin(credentials: ShortTerm | LongTerm | None = None, rto: float = 0.5) -> ClientTransaction:
    rng = random.Random(1)
    return ClientTransaction(Method.BINDING, (), LOCAL, SERVER, rng, 0.0, rto=rto, credentials=credentials)


def sent(transaction: ClientTransaction) -> list[Message]:
    return [Message.decode(transmit.data) for transmit in transaction.transmits()]


def expire(transaction: ClientTransaction) -> None:
    while (time := transaction.timeout()) is not None:
        transaction.handle_timeout(time)


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


def test_rfc8489_6_2_2_over_a_stream_a_request_goes_out_once_and_may_take_39_5_seconds() -> None:
    transaction = ClientTransaction(Method.BINDING, (), LOCAL, SERVER, random.Random(1), 0.0, reliable=True)
    assert len(sent(transaction)) == 1
    assert transaction.timeout() == 39.5
    transaction.handle_timeout(39.5)
    assert not sent(transaction)
    assert outcome(transaction) == TimedOut()


def test_who_has_less_patience_gives_up_sooner_and_anew_after_a_challenge() -> None:
    credentials = LongTerm("user", "secret")
    transaction = ClientTransaction(
        Method.BINDING, (), LOCAL, SERVER, random.Random(1), 0.0, credentials=credentials, patience=2.0
    )
    (request,) = sent(transaction)
    assert not transaction.is_signed
    transaction.receive(responses.challenge(request, 401, "example.org", b"one"), SERVER, LOCAL, 1.0)
    assert transaction.is_signed
    times = []
    while (time := transaction.timeout()) is not None:
        times.append(time)
        transaction.handle_timeout(time)
    assert times == [1.5, 2.5, 3.0]
    assert outcome(transaction) == TimedOut()


def test_rfc6298_3_a_retransmitted_request_tells_no_round_trip() -> None:
    transaction = begin()
    assert transaction.round_trip(0.2) == 0.2
    transaction.handle_timeout(0.5)
    assert transaction.round_trip(0.6) is None


def test_a_success_ends_it_and_is_reported_once() -> None:
    transaction = begin()
    (request,) = sent(transaction)
    assert transaction.receive(responses.success(request, MAPPED), SERVER, LOCAL, 0.1)
    result = outcome(transaction)
    assert isinstance(result, Succeeded)
    assert result.response.get(XorMappedAddress) == MAPPED
    assert outcome(transaction) is None
    assert transaction.timeout() is None


def test_an_answer_from_elsewhere_or_to_another_request_is_not_ours() -> None:
    transaction = begin()
    (request,) = sent(transaction)
    data = responses.success(request, MAPPED)
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
    transaction.receive(responses.success(request, MAPPED, key=b"wrong"), SERVER, LOCAL, 0.1)
    transaction.receive(responses.success(request, MAPPED), SERVER, LOCAL, 0.1)
    assert outcome(transaction) is None
    transaction.receive(responses.success(request, MAPPED, key=b"secret"), SERVER, LOCAL, 0.1)
    assert isinstance(outcome(transaction), Succeeded)


def test_rfc8489_9_1_4_unauthentic_answers_alone_are_a_violated_integrity() -> None:
    transaction = begin(ShortTerm("user", "secret"))
    (request,) = sent(transaction)
    for forged in (
        responses.success(request, MAPPED, key=b"wrong"),
        responses.error(request, 400),
        # The request has MESSAGE-INTEGRITY: an answer of another algorithm is not for it.
        Message(Method.BINDING, Kind.SUCCESS, request.transaction_id, (MAPPED,)).encode(b"secret", sha256=True),
    ):
        assert transaction.receive(forged, SERVER, LOCAL, 0.1)
    expire(transaction)
    assert outcome(transaction) == TimedOut(integrity_violated=True)


def test_an_unsigned_error_waits_a_second_for_an_authentic_answer_and_is_told_without_one() -> None:
    for authentic in (False, True):
        transaction = begin(LongTerm("user", "secret"))
        (request,) = sent(transaction)
        transaction.receive(responses.challenge(request, 401, "example.org", b"one"), SERVER, LOCAL, 0.1)
        (request,) = sent(transaction)
        transaction.receive(responses.error(request, 486), SERVER, LOCAL, 0.2)
        key = long_term_key("user", "example.org", "secret")
        if authentic:
            transaction.receive(responses.success(request, MAPPED, key=key), SERVER, LOCAL, 1.1)
            assert isinstance(outcome(transaction), Succeeded)
        else:
            transaction.handle_timeout(0.6)
            transaction.handle_timeout(1.19)
            assert outcome(transaction) is None
            transaction.handle_timeout(1.2)
            result = outcome(transaction)
            assert isinstance(result, TimedOut)
            assert result.unsigned is not None
            assert result.unsigned.error.code == 486


@pytest.mark.parametrize("algorithm", PasswordAlgorithm)
@pytest.mark.parametrize("anonymity", [False, True])
def test_rfc8489_9_2_5_a_401_and_a_438_are_answered_with_credentials(
    algorithm: PasswordAlgorithm, anonymity: bool
) -> None:
    transaction = begin(LongTerm("user", "secret"))
    # 9 is an algorithm of the future: the first that is known is taken.
    offered = ((9, b""), (2, b""), (1, b"")) if algorithm is PasswordAlgorithm.SHA256 else ()
    key = long_term_key("user", "example.org", "secret", algorithm)
    for code, nonce in ((401, b"one"), (438, b"two")):
        (request,) = sent(transaction)
        refusal = responses.challenge(request, code, "example.org", nonce, offered, anonymity=anonymity)
        assert transaction.receive(refusal, SERVER, LOCAL, 0.1)
    (request,) = sent(transaction)
    assert request.verify(key)
    assert request.has_sha256 is bool(offered)
    named = request.get(Nonce)
    assert named is not None
    assert named.value.endswith(b"two")
    assert request.get(Realm) == Realm("example.org")
    assert request.get(PasswordAlgorithms) == (PasswordAlgorithms(offered) if offered else None)
    assert request.get(PasswordAlgorithmChoice) == (PasswordAlgorithmChoice(2) if offered else None)
    assert request.get(Userhash) == (Userhash(userhash("user", "example.org")) if anonymity else None)
    assert request.get(Username) == (None if anonymity else Username("user"))
    transaction.receive(responses.success(request, MAPPED, key=key), SERVER, LOCAL, 0.2)
    assert isinstance(outcome(transaction), Succeeded)


def test_rfc8489_9_2_3_2_later_requests_begin_with_the_credentials_of_the_last() -> None:
    first = begin(LongTerm("user", "secret"))
    (request,) = sent(first)
    first.receive(responses.challenge(request, 401, "example.org", b"one"), SERVER, LOCAL, 0.1)
    (request,) = sent(begin(first.credentials))
    assert request.verify(long_term_key("user", "example.org", "secret"))


def test_rfc8489_9_2_5_wrong_credentials_are_not_tried_again() -> None:
    transaction = begin(LongTerm("user", "wrong"))
    for nonce in (b"one", b"two"):
        (request,) = sent(transaction)
        transaction.receive(responses.challenge(request, 401, "example.org", nonce), SERVER, LOCAL, 0.1)
    result = outcome(transaction)
    assert isinstance(result, Refused)
    assert result.response.error.code == 401


def test_a_server_that_never_takes_a_nonce_is_given_up() -> None:
    transaction = begin(LongTerm("user", "secret"))
    for nonce in (b"one", b"two", b"three"):
        (request,) = sent(transaction)
        transaction.receive(responses.challenge(request, 438, "example.org", nonce), SERVER, LOCAL, 0.1)
    assert isinstance(outcome(transaction), Refused)


def test_rfc8489_9_2_5_a_bid_down_of_the_password_algorithm_is_refused() -> None:
    transaction = begin(LongTerm("user", "secret"))
    (request,) = sent(transaction)
    nonce = nonce_cookie(SecurityFeature.PASSWORD_ALGORITHMS) + b"one"
    transaction.receive(responses.error(request, 401, Realm("example.org"), Nonce(nonce)), SERVER, LOCAL, 0.1)
    assert isinstance(outcome(transaction), Refused)


def test_rfc8489_9_2_5_an_answer_whose_list_of_algorithms_was_removed_is_ignored() -> None:
    transaction = begin(LongTerm("user", "secret"))
    (request,) = sent(transaction)
    nonce = nonce_cookie(SecurityFeature.PASSWORD_ALGORITHMS) + b"one"
    transaction.receive(responses.success(request, MAPPED, Nonce(nonce)), SERVER, LOCAL, 0.1)
    assert outcome(transaction) is None


def test_rfc8489_9_2_5_no_known_password_algorithm_is_no_retry() -> None:
    transaction = begin(LongTerm("user", "secret"))
    (request,) = sent(transaction)
    transaction.receive(responses.challenge(request, 401, "example.org", b"one", ((9, b""),)), SERVER, LOCAL, 0.1)
    assert isinstance(outcome(transaction), Refused)


def test_rfc8489_9_2_5_sha256_once_agreed_on_stays() -> None:
    transaction = begin(LongTerm("user", "secret"))
    (request,) = sent(transaction)
    transaction.receive(responses.challenge(request, 401, "example.org", b"one", ((2, b""),)), SERVER, LOCAL, 0.1)
    (request,) = sent(transaction)
    transaction.receive(responses.challenge(request, 438, "example.org", b"two"), SERVER, LOCAL, 0.1)
    (request,) = sent(transaction)
    assert request.has_sha256


@pytest.mark.parametrize("realm", ["", "a\tb", "a\0", '""'])
def test_a_realm_that_can_not_enter_a_key_is_no_retry(realm: str) -> None:
    transaction = begin(LongTerm("user", "secret"))
    (request,) = sent(transaction)
    transaction.receive(responses.challenge(request, 401, realm, b"one", anonymity=True), SERVER, LOCAL, 0.1)
    assert isinstance(outcome(transaction), Refused)


def test_the_longest_challenge_that_can_be_read_can_be_answered() -> None:
    transaction = begin(LongTerm("user", "secret"))
    (request,) = sent(transaction)
    challenge = responses.challenge(request, 401, "\N{FACE SCREAMING IN FEAR}" * 190, bytes(750), ((2, b""),) * 64)
    transaction.receive(challenge, SERVER, LOCAL, 0.1)
    (request,) = sent(transaction)
    assert request.has_sha256


@pytest.mark.parametrize(("username", "password"), [("", "x"), ("x", ""), ("a\n", "x"), ("x", "\0"), ("\ud800", "x")])
def test_credentials_that_can_not_be_sent_are_a_value_error_at_once(username: str, password: str) -> None:
    for kind in (LongTerm, ShortTerm):
        with pytest.raises(ValueError):  # noqa: PT011  of `opaque_string` or of the encoding
            kind(username, password)


def test_rfc8489_10_a_signed_300_redirects() -> None:
    other = Address("192.0.2.9", 3479)
    transaction = begin(ShortTerm("user", "secret"))
    (request,) = sent(transaction)
    named = (AlternateServer(other), AlternateDomain("stun.example.org"))
    transaction.receive(responses.error(request, 300, *named, key=b"secret"), SERVER, LOCAL, 0.1)
    result = outcome(transaction)
    assert isinstance(result, Redirected)
    assert (result.server, result.domain) == (other, "stun.example.org")


def test_rfc8489_14_8_a_300_that_nobody_signed_leads_nowhere() -> None:
    transaction = begin()
    (request,) = sent(transaction)
    data = responses.error(request, 300, AlternateServer(Address("192.0.2.9", 3479)))
    transaction.receive(data, SERVER, LOCAL, 0.1)
    assert isinstance(outcome(transaction), Refused)


def test_rfc8489_10_a_300_to_another_address_family_leads_nowhere() -> None:
    transaction = begin(ShortTerm("user", "secret"))
    (request,) = sent(transaction)
    data = responses.error(request, 300, AlternateServer(Address("2001:db8::9", 3479)), key=b"secret")
    transaction.receive(data, SERVER, LOCAL, 0.1)
    assert isinstance(outcome(transaction), Refused)


def test_rfc8489_6_3_3_a_success_with_an_unknown_required_attribute_is_a_failure() -> None:
    transaction = begin()
    (request,) = sent(transaction)
    data = Message(Method.BINDING, Kind.SUCCESS, request.transaction_id).encode(fingerprint=False)
    transaction.receive(data[:2] + b"\0\x04" + data[4:] + bytes.fromhex("7ffe0000"), SERVER, LOCAL, 0.1)
    assert isinstance(outcome(transaction), Incomprehensible)


def test_rfc8489_6_3_4_an_error_without_a_code_is_a_failure() -> None:
    transaction = begin()
    (request,) = sent(transaction)
    transaction.receive(Message(Method.BINDING, Kind.ERROR, request.transaction_id).encode(), SERVER, LOCAL, 0.1)
    assert isinstance(outcome(transaction), Incomprehensible)


def test_an_answer_after_the_end_is_ours_and_changes_nothing() -> None:
    transaction = begin()
    (request,) = sent(transaction)
    data = responses.success(request, MAPPED)
    assert transaction.receive(data, SERVER, LOCAL, 0.1)
    assert isinstance(outcome(transaction), Succeeded)
    assert transaction.receive(data, SERVER, LOCAL, 0.2)
    assert outcome(transaction) is None
