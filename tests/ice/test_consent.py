"""Consent freshness (RFC 7675) and keepalives (RFC 8445 §11) of one agent whose peer is the test."""

from __future__ import annotations

import itertools

import pytest

from quice.ice import ConsentExpired, Failed, Lost, Nominating, PairState, Role
from quice.ice.consent import FALLBACK_INTERVAL, FALLBACK_LIFETIME, INTERVAL, LIFETIME, TR
from quice.stun.attributes import UseCandidate
from quice.stun.message import Kind, Method
from tests.ice.scripted import STRANGER, Scripted, Sent, remote


def selected(role: Role = Role.CONTROLLING, *, remotes: int = 1, renomination: bool = False) -> Scripted:
    """An agent whose first pair is selected, and the others valid."""
    peer = Scripted(role, remotes=remotes, renomination=renomination)
    checks = [peer.first_check() for _ in range(remotes)]
    for check in reversed(checks):
        peer.answer(check)
    if role is Role.CONTROLLING:
        peer.answer(peer.first_check())
    else:
        peer.check(remote(1).address, nominate=True)
    assert peer.agent.selected is not None
    peer.events()
    return peer


def requests(sent: list[Sent]) -> list[Sent]:
    return [each for each in sent if each.message.kind is Kind.REQUEST]


def answered(peer: Scripted, until: float, *, silent: tuple[int, ...] = ()) -> list[Sent]:
    """Go to that time; the peer answers at once, but for these numbers of its candidates."""
    sent: list[Sent] = []
    while (due := peer.agent.timeout()) is not None and due <= until:
        for each in peer.until(due):
            sent.append(each)
            if each.message.kind is Kind.REQUEST and each.to.port - 6000 not in silent:
                peer.answer(each)
    peer.now = until
    return sent


@pytest.mark.parametrize("role", list(Role))
def test_rfc7675_5_1_consent_is_asked_for_every_five_seconds_give_or_take_a_fifth(role: Role) -> None:
    peer = selected(role)
    times = [peer.now, *(each.time for each in requests(answered(peer, 200.0)))]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert all(0.8 * INTERVAL <= gap <= 1.2 * INTERVAL for gap in gaps)
    assert max(gaps) - min(gaps) > 0.2 * INTERVAL
    assert sum(gaps) / len(gaps) == pytest.approx(INTERVAL, rel=0.1)
    assert peer.events() == []


def test_rfc7675_5_1_each_request_is_sent_once_under_an_id_of_its_own() -> None:
    peer = selected()
    sent = requests(peer.until(peer.now + LIFETIME - 0.1))
    assert len(sent) >= 4
    assert len({each.message.transaction_id for each in sent}) == len(sent)
    assert not any(each.nominates for each in sent)


@pytest.mark.parametrize("role", list(Role))
def test_rfc7675_5_1_consent_ends_thirty_seconds_after_the_last_answer(role: Role) -> None:
    peer = selected(role)
    answered(peer, 100.0)
    last = max(each.time for each in requests(answered(peer, 106.0)))
    pair = peer.agent.selected
    assert pair is not None
    peer.until(last + LIFETIME - 0.001)
    assert peer.events() == []
    peer.until(last + LIFETIME)
    expired, lost, failed = peer.events()
    assert expired == ConsentExpired(pair)
    assert lost == Lost(pair, None)
    assert isinstance(failed, Failed)
    assert "restart" in failed.reason
    assert peer.until(peer.now + 100.0) == []
    assert peer.agent.timeout() is None


def test_rfc7675_5_1_an_answer_to_an_earlier_request_counts() -> None:
    peer = selected()
    first = requests(peer.until(20.0))[0]
    peer.answer(first)
    peer.until(49.9)
    assert peer.events() == []


def test_rfc7675_5_1_an_answer_after_the_end_does_not_bring_consent_back() -> None:
    peer = selected()
    sent = requests(peer.until(40.0))
    peer.events()
    assert not peer.answer(sent[-1])
    assert peer.agent.selected is None
    assert peer.events() == []


def test_rfc7675_5_1_a_pair_without_consent_is_not_tried_again_with_the_same_credentials() -> None:
    peer = selected(renomination=True)
    peer.until(31.0)
    assert peer.state() is PairState.FAILED
    peer.events()
    peer.check(remote(1).address)
    assert requests(peer.until(60.0)) == []


@pytest.mark.parametrize(
    "forgery", [{"key": "guessed"}, {"source": STRANGER}, {"destination": STRANGER}, {"code": 400}, {"code": 500}]
)
def test_rfc7675_5_1_what_is_no_authentic_success_over_the_pair_is_no_consent(forgery: dict[str, object]) -> None:
    peer = selected()
    for each in requests(peer.until(29.9)):
        assert peer.answer(each, **forgery)  # type: ignore[arg-type]
    assert peer.events() == []
    peer.until(30.1)
    assert isinstance(peer.events()[0], ConsentExpired)


def test_rfc7675_5_2_a_403_ends_consent_at_once() -> None:
    peer = selected()
    (request,) = requests(peer.until(6.5))[:1]
    assert peer.answer(request, code=403)
    assert isinstance(peer.events()[0], ConsentExpired)
    assert requests(peer.until(60.0)) == []


def test_rfc7675_5_2_a_forged_403_ends_nothing() -> None:
    peer = selected()
    (request,) = requests(peer.until(6.5))[:1]
    assert peer.answer(request, code=403, key="guessed")
    assert peer.events() == []


def test_a_pair_that_quic_looks_after_is_not_asked_for_consent_and_never_expires() -> None:
    peer = selected()
    pair = peer.agent.selected
    assert pair is not None
    peer.agent.entrust(pair, peer.now)
    sent = peer.until(600.0)
    assert requests(sent) == []
    assert peer.events() == []
    assert peer.agent.selected is pair


def test_rfc8445_11_a_pair_that_is_not_asked_for_consent_gets_a_keepalive_when_it_has_been_silent() -> None:
    peer = selected()
    pair = peer.agent.selected
    assert pair is not None
    start = peer.now
    peer.agent.entrust(pair, start)
    sent = peer.until(start + 3 * TR + 0.01)
    assert [each.time - start for each in sent] == pytest.approx([TR, 2 * TR, 3 * TR])
    for each in sent:
        assert (each.message.kind, each.message.method, each.message.attributes) == (
            Kind.INDICATION,
            Method.BINDING,
            (),
        )
        assert each.message.has_fingerprint
        assert not each.message.has_integrity
        assert each.to == pair.remote.address


def test_rfc8445_11_a_pair_in_use_gets_no_keepalive() -> None:
    peer = selected()
    pair = peer.agent.selected
    assert pair is not None
    peer.agent.entrust(pair, peer.now)
    for _ in range(20):
        assert peer.until(peer.now + 10.0) == []
        peer.agent.pair_used(pair, peer.now)
    assert len(peer.until(peer.now + TR)) == 1


def test_the_cost_of_a_pair_that_quic_looks_after_is_four_small_packets_a_minute() -> None:
    peer = selected()
    pair = peer.agent.selected
    assert pair is not None
    peer.agent.entrust(pair, peer.now)
    sent = peer.until(peer.now + 3600.0)
    assert len(sent) == 240
    assert {len(each.transmit.data) for each in sent} == {28}


def test_rfc8445_11_keepalives_end_with_the_session() -> None:
    peer = selected()
    peer.agent.close()
    assert peer.until(1000.0) == []


def test_two_valid_pairs_are_kept_ready_for_a_while() -> None:
    peer = selected(remotes=4, renomination=True)
    start = peer.now
    sent = requests(answered(peer, start + FALLBACK_LIFETIME))
    others = [each for each in sent if each.to != remote(1).address]
    assert {each.to for each in others} == {remote(2).address, remote(3).address}
    assert len(others) == pytest.approx(2 * FALLBACK_LIFETIME / FALLBACK_INTERVAL, rel=0.2)
    later = requests(answered(peer, start + FALLBACK_LIFETIME + 60.0))
    assert {each.to for each in later} == {remote(1).address}


def test_without_an_agreement_on_later_nominations_no_other_pair_is_kept_ready() -> None:
    peer = selected(remotes=4)
    assert {each.to for each in requests(answered(peer, 60.0))} == {remote(1).address}


def test_a_pair_kept_ready_that_falls_silent_is_given_up() -> None:
    peer = selected(remotes=3, renomination=True)
    answered(peer, peer.now + LIFETIME + 1, silent=(2,))
    (expired,) = peer.events()
    assert isinstance(expired, ConsentExpired)
    assert expired.pair.remote == remote(2)
    assert peer.agent.selected is not None
    assert peer.state(2) is PairState.FAILED


def test_when_consent_ends_the_best_pair_kept_ready_is_nominated_at_once() -> None:
    peer = selected(remotes=3, renomination=True)
    pair = peer.agent.selected
    answered(peer, peer.now + LIFETIME - 0.5, silent=(1,))
    assert peer.events() == []
    answered(peer, peer.now + 0.6, silent=(1,))
    expired, lost, nominating, *_ = peer.events()
    assert expired == ConsentExpired(pair)  # type: ignore[arg-type]
    assert isinstance(lost, Lost)
    assert lost.fallback is not None
    assert isinstance(nominating, Nominating)
    assert nominating.pair is lost.fallback
    assert nominating.pair.remote == remote(2)
    assert peer.agent.selected is nominating.pair


def test_no_request_for_consent_nominates() -> None:
    peer = selected(remotes=2, renomination=True)
    assert not any(each.message.get(UseCandidate) for each in requests(answered(peer, 60.0)))
