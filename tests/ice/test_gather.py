"""Gathering from interfaces and STUN servers that the test plays (RFC 8445 §5.1.1)."""

from __future__ import annotations

import random
from typing import Any

import pytest

from quice.ice import Base, Candidate, CandidateKind, ExternalAddress, Gathered, Gatherer, GatheringComplete, Pacer
from quice.ice.candidate import MAX_LOCAL_PREFERENCE, priority
from quice.ice.gather import is_virtual, ranked
from quice.ice.pacing import DEFAULT_TA, MIN_TA
from quice.stun.attributes import ErrorCode, XorMappedAddress
from quice.stun.message import Kind, Message, Method
from quice.wire import Address, Transmit

SERVER = Address("192.0.2.1", 3478)
OTHER_SERVER = Address("192.0.2.2", 3478)
SERVER_V6 = Address("2001:db8::53", 3478)
MAPPED = Address("198.51.100.7", 40000)
HERE = Address("10.0.0.1", 5000)


def base(host: str, interface: str = "eth0") -> Base:
    return Base(Address(host, 5000), interface)


class Gathering:
    """A gatherer, the time, and what it has found."""

    def __init__(self, *bases: Base, servers: tuple[Address, ...] = (SERVER,), seed: int = 1, **options: Any) -> None:
        self.now = 0.0
        self.gatherer = Gatherer(bases, servers, random.Random(seed), self.now, **options)
        self.found: list[Candidate] = []
        self.completed_at: float | None = None
        self.sent: list[tuple[float, Transmit]] = []
        self._collect()

    def until(self, time: float) -> None:
        """Go to that time, waking the gatherer whenever it wants."""
        while (due := self.gatherer.timeout()) is not None and due <= time:
            self.now = max(self.now, due)
            self.gatherer.handle_timeout(self.now)
            assert (again := self.gatherer.timeout()) is None or again > self.now
            self._collect()
        self.now = time

    def answer(
        self,
        number: int,
        mapped: Address | None = MAPPED,
        *,
        kind: Kind = Kind.SUCCESS,
        source: Address | None = None,
        destination: Address | None = None,
    ) -> bool:
        """A server answers the request of that number among all that were sent."""
        request = self.sent[number][1]
        attribute = ErrorCode(500, "no") if kind is Kind.ERROR else mapped and XorMappedAddress(mapped)
        attributes = (attribute,) if attribute else ()
        identifier = Message.decode(request.data).transaction_id
        data = Message(Method.BINDING, kind, identifier, attributes).encode()
        assert request.source is not None
        taken = self.gatherer.receive(data, source or request.destination, destination or request.source, self.now)
        self._collect()
        return taken

    def reflexive(self) -> list[Candidate]:
        return [candidate for candidate in self.found if candidate.kind is CandidateKind.SERVER_REFLEXIVE]

    def asked(self) -> list[tuple[str, Address]]:
        """From which base which server was asked, without repetitions."""
        pairs = [(each.source.host, each.destination) for _, each in self.sent if each.source is not None]
        return list(dict.fromkeys(pairs))

    def _collect(self) -> None:
        self.sent += [(self.now, transmit) for transmit in self.gatherer.transmits()]
        for event in self.gatherer.events():
            match event:
                case Gathered(candidate):
                    assert self.completed_at is None
                    self.found.append(candidate)
                case GatheringComplete():
                    assert self.completed_at is None
                    self.completed_at = self.now


def test_rfc8445_5_1_1_1_every_base_is_a_host_candidate_at_once() -> None:
    gathering = Gathering(base("10.0.0.1"), base("2001:db8::1"))
    assert [(c.kind, c.address, c.base, c.related_address) for c in gathering.found] == [
        (CandidateKind.HOST, Address("2001:db8::1", 5000), Address("2001:db8::1", 5000), None),
        (CandidateKind.HOST, HERE, HERE, None),
    ]


def test_rfc8445_5_1_1_2_a_servers_answer_is_a_reflexive_candidate() -> None:
    gathering = Gathering(base("10.0.0.1"))
    gathering.until(0.05)
    assert gathering.answer(0)
    (candidate,) = gathering.reflexive()
    assert (candidate.address, candidate.base, candidate.related_address) == (MAPPED, HERE, HERE)
    assert candidate.priority == priority(CandidateKind.SERVER_REFLEXIVE, MAX_LOCAL_PREFERENCE)
    assert candidate.foundation != gathering.found[0].foundation
    assert gathering.completed_at == 0.05
    assert gathering.gatherer.timeout() is None


def test_rfc8445_5_1_3_a_mapped_address_that_is_the_base_itself_is_redundant() -> None:
    gathering = Gathering(base("10.0.0.1"))
    assert gathering.answer(0, HERE)
    assert [candidate.kind for candidate in gathering.found] == [CandidateKind.HOST]
    assert gathering.completed_at is not None


def test_rfc8445_5_1_3_the_same_mapping_from_two_servers_is_one_candidate() -> None:
    gathering = Gathering(base("10.0.0.1"), servers=(SERVER, OTHER_SERVER))
    gathering.until(0.05)
    for number in range(2):
        assert gathering.answer(number)
    assert len(gathering.reflexive()) == 1


def test_a_symmetric_nat_gives_a_candidate_for_every_server() -> None:
    gathering = Gathering(base("10.0.0.1"), servers=(SERVER, OTHER_SERVER))
    gathering.until(0.05)
    gathering.answer(0)
    gathering.answer(1, Address(MAPPED.host, 40001))
    one, two = gathering.reflexive()
    assert one.foundation != two.foundation


def test_rfc8445_14_1_a_request_begins_every_ta_and_not_faster() -> None:
    gathering = Gathering(*(base(f"10.0.0.{n}") for n in range(1, 6)), servers=(SERVER, OTHER_SERVER))
    gathering.until(0.15)
    assert [time for time, _ in gathering.sent] == pytest.approx([n * DEFAULT_TA for n in range(10)])
    assert len(gathering.asked()) == 10


def test_rfc8445_14_3_a_lost_request_is_repeated_after_half_a_second() -> None:
    gathering = Gathering(base("10.0.0.1"))
    gathering.until(0.6)
    assert [time for time, _ in gathering.sent] == pytest.approx([0.0, 0.5])
    assert gathering.sent[0][1] == gathering.sent[1][1]
    assert gathering.answer(1)
    assert gathering.reflexive()


def test_a_silent_server_ends_gathering_after_eight_seconds_and_five_requests() -> None:
    gathering = Gathering(base("10.0.0.1"))
    gathering.until(7.99)
    assert gathering.completed_at is None
    gathering.until(10.0)
    assert gathering.completed_at == pytest.approx(8.0)
    assert [time for time, _ in gathering.sent] == pytest.approx([0.0, 0.5, 1.5, 3.5, 7.5])
    assert gathering.gatherer.timeout() is None
    assert not gathering.answer(0)


def test_a_silent_server_does_not_hold_up_the_candidate_of_another() -> None:
    gathering = Gathering(base("10.0.0.1"), servers=(SERVER, OTHER_SERVER))
    gathering.until(0.05)
    gathering.answer(1)
    assert gathering.reflexive()
    assert gathering.completed_at is None


def test_without_servers_gathering_is_complete_at_once() -> None:
    gathering = Gathering(base("10.0.0.1"), servers=())
    assert gathering.completed_at == 0.0
    assert len(gathering.found) == 1


def test_without_bases_gathering_is_complete_with_nothing() -> None:
    gathering = Gathering()
    assert (gathering.completed_at, gathering.found) == (0.0, [])


def test_a_server_is_asked_from_bases_of_its_family_and_scope_alone() -> None:
    bases = (base("10.0.0.1"), base("2001:db8::1"), base("fe80::1%eth0"), base("127.0.0.1", "lo"))
    gathering = Gathering(*bases, servers=(SERVER, SERVER_V6))
    gathering.until(1.0)
    assert set(gathering.asked()) == {("10.0.0.1", SERVER), ("2001:db8::1", SERVER_V6)}


def test_a_server_on_loopback_is_asked_from_loopback_and_from_the_machines_other_addresses() -> None:
    server = Address("127.0.0.1", 3478)
    gathering = Gathering(base("10.0.0.1"), base("127.0.0.1", "lo"), servers=(server,))
    gathering.until(1.0)
    assert set(gathering.asked()) == {("10.0.0.1", server), ("127.0.0.1", server)}


def test_rfc4007_6_the_zone_of_a_link_local_base_is_not_told() -> None:
    gathering = Gathering(base("fe80::1%eth0"))
    (candidate,) = gathering.found
    assert candidate.address == Address("fe80::1", 5000)
    assert candidate.base == Address("fe80::1%eth0", 5000)


@pytest.mark.parametrize("interface", ["docker0", "br-1a2b", "veth12", "virbr0", "tailscale0", "wg0", "tun0", "utun3"])
def test_virtual_interfaces_rank_behind_all_real_ones(interface: str) -> None:
    bases = [base("172.17.0.1", interface), base("2001:db8:17::1", interface), base("10.0.0.1"), base("2001:db8::1")]
    order = [each.address.host for each, _ in ranked(bases)]
    assert order == ["2001:db8::1", "10.0.0.1", "2001:db8:17::1", "172.17.0.1"]


def test_rfc8421_4_ipv6_and_ipv4_take_turns() -> None:
    bases = [base(f"10.0.0.{n}") for n in (1, 2, 3)] + [base(f"2001:db8::{n}") for n in (1, 2)]
    order = [each.address.host for each, _ in ranked(bases)]
    assert order == ["2001:db8::1", "10.0.0.1", "2001:db8::2", "10.0.0.2", "10.0.0.3"]


def test_link_local_ipv6_ranks_behind_other_ipv6() -> None:
    order = [each.address.host for each, _ in ranked([base("fe80::1%eth0"), base("2001:db8::1")])]
    assert order == ["2001:db8::1", "fe80::1%eth0"]


def test_rfc8445_5_1_2_2_every_base_has_a_local_preference_of_its_own() -> None:
    bases = [base(f"10.0.{n}.1", f"eth{n}") for n in range(200)]
    preferences = [preference for _, preference in ranked(bases)]
    assert preferences == list(range(MAX_LOCAL_PREFERENCE, MAX_LOCAL_PREFERENCE - 200, -1))


def test_an_answer_from_another_server_than_was_asked_is_not_taken() -> None:
    gathering = Gathering(base("10.0.0.1"))
    assert not gathering.answer(0, source=OTHER_SERVER)
    assert not gathering.reflexive()


def test_an_answer_to_another_base_than_asked_is_not_taken() -> None:
    gathering = Gathering(base("10.0.0.1"), base("10.0.0.2"))
    assert not gathering.answer(0, destination=Address("10.0.0.2", 5000))
    assert not gathering.reflexive()


@pytest.mark.parametrize("mapped", [None, Address("198.51.100.7", 0)])
def test_an_answer_without_a_usable_address_gives_no_candidate_and_ends_the_asking(mapped: Address | None) -> None:
    gathering = Gathering(base("10.0.0.1"))
    assert gathering.answer(0, mapped)
    assert not gathering.reflexive()
    assert gathering.completed_at == 0.0


def test_a_server_that_refuses_ends_the_asking() -> None:
    gathering = Gathering(base("10.0.0.1"))
    assert gathering.answer(0, kind=Kind.ERROR)
    assert gathering.completed_at == 0.0


@pytest.mark.parametrize("data", [b"", bytes(20), b"\x01\x01\x00\x00\x21\x12\xa4\x42" + bytes(12), bytes(65507)])
def test_what_answers_nothing_is_not_taken(data: bytes) -> None:
    gathering = Gathering(base("10.0.0.1"))
    assert not gathering.gatherer.receive(data, SERVER, HERE, 0.0)


def test_the_same_seed_gives_the_same_requests() -> None:
    runs = []
    for seed in (1, 1, 2):
        gathering = Gathering(base("10.0.0.1"), base("10.0.0.2"), servers=(SERVER, OTHER_SERVER), seed=seed)
        gathering.until(5.0)
        runs.append(gathering.sent)
    assert runs[0] == runs[1] != runs[2]


def test_an_interface_that_the_filter_refuses_is_neither_used_nor_told() -> None:
    bases = (base("10.0.0.1"), base("172.17.0.1", "docker0"), base("100.64.0.7", "tailscale0"))
    gathering = Gathering(*bases, interfaces=lambda each: not is_virtual(each.interface))
    gathering.until(1.0)
    assert [candidate.address.host for candidate in gathering.found] == ["10.0.0.1"]
    assert gathering.asked() == [("10.0.0.1", SERVER)]


def test_a_filter_of_interfaces_may_go_by_the_address() -> None:
    gathering = Gathering(base("10.0.0.1"), base("192.168.1.1"), interfaces=lambda each: each.address.ip.is_private)
    assert len(gathering.found) == 2
    gathering = Gathering(base("10.0.0.1"), base("192.168.1.1"), interfaces=lambda each: each.address.host[:3] == "10.")
    assert [candidate.address.host for candidate in gathering.found] == ["10.0.0.1"]


def test_a_candidate_that_the_filter_refuses_is_not_told_but_its_base_is_used() -> None:
    gathering = Gathering(base("10.0.0.1"), candidates=lambda each: each.kind is not CandidateKind.HOST)
    assert gathering.found == []
    gathering.answer(0)
    assert [(each.kind, each.base) for each in gathering.found] == [(CandidateKind.SERVER_REFLEXIVE, HERE)]


def test_forty_container_bridges_cost_no_request_when_they_are_filtered() -> None:
    bridges = [base(f"172.{n}.0.1", f"br-{n:012x}") for n in range(16, 56)]
    gathering = Gathering(*bridges, base("10.0.0.1"), interfaces=lambda each: not is_virtual(each.interface))
    gathering.until(5.0)
    assert len(gathering.found) == 1
    assert {transmit.source for _, transmit in gathering.sent} == {HERE}


def test_forty_container_bridges_come_after_the_real_interface_and_do_not_flood() -> None:
    bridges = [base(f"172.{n}.0.1", f"br-{n:012x}") for n in range(16, 56)]
    gathering = Gathering(*bridges, base("10.0.0.1"))
    gathering.until(0.4)
    assert gathering.found[0].address == HERE
    assert gathering.asked()[0] == ("10.0.0.1", SERVER)
    assert [time for time, _ in gathering.sent] == pytest.approx([n * DEFAULT_TA for n in range(41)])


def test_a_declared_external_address_is_a_reflexive_candidate_at_once() -> None:
    gathering = Gathering(base("10.0.0.1"), servers=(), external=[ExternalAddress("203.0.113.5")])
    host, external = gathering.found
    assert host.address == HERE
    assert external.kind is CandidateKind.SERVER_REFLEXIVE
    assert external.address == Address("203.0.113.5", HERE.port)
    assert (external.base, external.related_address) == (HERE, HERE)
    assert external.priority < host.priority
    assert external.foundation != host.foundation


def test_a_declared_external_address_may_be_told_as_a_host_candidate_with_a_priority_of_its_own() -> None:
    external = ExternalAddress("203.0.113.5", kind=CandidateKind.HOST)
    gathering = Gathering(base("10.0.0.1"), base("10.0.0.2", "eth1"), servers=(), external=[external])
    assert [(each.kind, each.address.host) for each in gathering.found] == [
        (CandidateKind.HOST, "10.0.0.1"),
        (CandidateKind.HOST, "10.0.0.2"),
        (CandidateKind.HOST, "203.0.113.5"),
        (CandidateKind.HOST, "203.0.113.5"),
    ]
    assert [each.base for each in gathering.found[2:]] == [HERE, Address("10.0.0.2", 5000)]
    priorities = [each.priority for each in gathering.found]
    assert sorted(set(priorities), reverse=True) == priorities


def test_a_declared_external_address_stands_for_the_address_that_it_names_or_its_family() -> None:
    bases = (base("10.0.0.1"), base("10.0.0.2", "eth1"), base("2001:db8::1"), base("127.0.0.1", "lo"))
    named = Gathering(*bases, servers=(), external=[ExternalAddress("203.0.113.5", "10.0.0.2")])
    assert [each.base for each in named.reflexive()] == [Address("10.0.0.2", 5000)]
    every = Gathering(*bases, servers=(), external=[ExternalAddress("203.0.113.5")])
    assert [each.base for each in every.reflexive()] == [HERE, Address("10.0.0.2", 5000)]


def test_rfc8445_5_1_3_a_server_that_tells_the_declared_address_tells_nothing_new() -> None:
    gathering = Gathering(base("10.0.0.1"), external=[ExternalAddress("203.0.113.5")])
    gathering.answer(0, Address("203.0.113.5", HERE.port))
    assert len(gathering.reflexive()) == 1


def test_rfc8445_5_1_1_1_addresses_that_must_not_be_told_are_not() -> None:
    bases = (base("fec0::1"), base("::ffff:10.0.0.1"), base("::10.0.0.1"), base("10.0.0.1"))
    gathering = Gathering(*bases, servers=())
    assert [each.address.host for each in gathering.found] == ["10.0.0.1"]


def test_rfc8445_5_1_1_1_a_link_local_address_is_told_where_its_interface_has_no_other() -> None:
    bases = (base("fe80::1%eth0"), base("2001:db8::1"), base("fe80::2%eth1", "eth1"))
    gathering = Gathering(*bases, servers=())
    assert [each.address.host for each in gathering.found] == ["2001:db8::1", "fe80::2"]


def test_rfc8445_14_2_all_gatherers_of_a_program_keep_one_pace() -> None:
    pacer = Pacer()
    gatherings = [Gathering(base("10.0.0.1"), base("10.0.0.2"), pacer=pacer) for _ in range(3)]
    for gathering in gatherings:
        gathering.until(0.001)
    for _ in range(30):
        due = min(time for each in gatherings if (time := each.gatherer.timeout()) is not None)
        for gathering in gatherings:
            gathering.now = due
            gathering.gatherer.handle_timeout(due)
            gathering._collect()
    times = sorted(time for gathering in gatherings for time, _ in gathering.sent if time < 0.1)
    assert times == pytest.approx([n * MIN_TA for n in range(6)])
