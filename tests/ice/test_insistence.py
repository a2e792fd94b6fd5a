"""An agent whose peer may begin minutes after it, as when people carry the signalling."""

from __future__ import annotations

from itertools import pairwise

import pytest

from quice.ice import Failed, PairState, Role
from quice.ice.checklist import CheckListState
from quice.stun.message import Kind
from tests.ice.network import assert_agreed
from tests.ice.scripted import Scripted, remote
from tests.ice.test_agent import PORT_RESTRICTED, sites

MINUTES = 600.0
UNREPLIED = 30.0
"""Seconds after which many firewalls forget where a packet went out that nobody answered."""


@pytest.mark.parametrize("role", list(Role))
def test_every_pair_is_checked_again_before_a_firewall_forgets_it(role: Role) -> None:
    peer = Scripted(role, remotes=8, patience=MINUTES, insistent=True)
    sent = peer.until(MINUTES - 1)
    for number in range(1, 9):
        times = [each.time for each in sent if each.to == remote(number).address]
        assert times[-1] > MINUTES - UNREPLIED
        assert max(after - before for before, after in pairwise(times)) < UNREPLIED
        # Not more than that takes: an address that a peer names is no victim's.
        assert len(times) < MINUTES / 5


def test_it_gives_up_when_patience_ends() -> None:
    peer = Scripted(remotes=2, patience=MINUTES, insistent=True)
    peer.until(MINUTES - 1)
    assert peer.events() == []
    peer.until(MINUTES)
    assert [type(event) for event in peer.events()] == [Failed]
    assert peer.agent.report.state is CheckListState.FAILED
    assert peer.agent.timeout() is None


def test_an_error_is_asked_about_again_but_not_in_a_hurry() -> None:
    peer = Scripted(patience=MINUTES, insistent=True)
    answered = 0
    while peer.now < 60.0:
        for check in peer.until(peer.now + 0.1):
            peer.answer(check, code=400)
            answered += 1
    assert 11 <= answered <= 13


def test_once_something_works_no_failed_pair_is_revived() -> None:
    peer = Scripted(remotes=2, patience=MINUTES, insistent=True)
    first, second = peer.first_check(), peer.first_check()
    peer.answer(second, code=400)
    peer.answer(first)
    peer.until(20.0)
    assert peer.state(2) is PairState.FAILED


def test_an_agent_in_a_hurry_checks_again_nothing_that_failed() -> None:
    peer = Scripted(remotes=2, patience=MINUTES)
    peer.answer(peer.first_check(), code=400)
    assert all(sent.to == remote(2).address for sent in peer.until(60.0) if sent.message.kind is Kind.REQUEST)
    assert [peer.state(number) for number in (1, 2)] == [PairState.FAILED] * 2


@pytest.mark.parametrize("seconds", [10.0, 45.0, 300.0, 590.0])
def test_behind_two_restricted_nats_a_peer_that_begins_late_is_met_soon(seconds: float) -> None:
    network, one, two = sites(PORT_RESTRICTED, PORT_RESTRICTED, patience=MINUTES, insistent=True)
    network.tell(two, one)
    network.advance(seconds)
    begun = network.now
    network.tell(one, two)
    network.drive()
    assert_agreed(one, two)
    assert network.now - begun < 3.0
