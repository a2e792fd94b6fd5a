"""Priorities, foundations, and which addresses may be sent to."""

import pytest

from quice.ice import Candidate, CandidateKind
from quice.ice.candidate import MAX_LOCAL_PREFERENCE, can_pair, foundation, on_link_of, priority
from quice.wire import Address
from tests.ice.network import host_candidate


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (CandidateKind.HOST, 2130706431),
        (CandidateKind.PEER_REFLEXIVE, 1862270975),
        (CandidateKind.SERVER_REFLEXIVE, 1694498815),
        (CandidateKind.RELAYED, 16777215),
    ],
)
def test_rfc8445_5_1_2_1_priority_is_type_then_local_preference_then_component(
    kind: CandidateKind, expected: int
) -> None:
    assert priority(kind, MAX_LOCAL_PREFERENCE) == expected
    assert priority(kind, MAX_LOCAL_PREFERENCE - 1) == expected - 256


def test_rfc8445_5_1_2_1_every_priority_is_positive_and_fits_31_bits() -> None:
    for kind in CandidateKind:
        for preference in (0, MAX_LOCAL_PREFERENCE):
            assert 0 < priority(kind, preference) < 2**31


def test_rfc8445_5_1_2_2_the_worst_host_candidate_is_better_than_the_best_of_any_other_kind() -> None:
    others = [priority(kind, MAX_LOCAL_PREFERENCE) for kind in CandidateKind if kind is not CandidateKind.HOST]
    assert priority(CandidateKind.HOST, 0) > max(others)


def test_rfc8445_5_1_1_3_a_foundation_is_shared_by_kind_base_and_server_alone() -> None:
    name = foundation(CandidateKind.SERVER_REFLEXIVE, "10.0.0.1", "192.0.2.1")
    assert name == foundation(CandidateKind.SERVER_REFLEXIVE, "10.0.0.1", "192.0.2.1")
    others = {
        foundation(CandidateKind.RELAYED, "10.0.0.1", "192.0.2.1"),
        foundation(CandidateKind.SERVER_REFLEXIVE, "10.0.0.2", "192.0.2.1"),
        foundation(CandidateKind.SERVER_REFLEXIVE, "10.0.0.1", "192.0.2.2"),
    }
    assert len(others) == 3
    assert name not in others


def test_rfc8839_5_1_a_foundation_is_of_at_most_32_ice_chars() -> None:
    name = foundation(CandidateKind.HOST, "fe80::1%a-very-long-interface-name")
    assert name.isalnum()
    assert name.isascii()
    assert 0 < len(name) <= 32


@pytest.mark.parametrize(
    ("local", "remote"),
    [
        ("10.0.0.1", "192.0.2.1"),
        ("10.0.0.1", "10.0.0.2"),
        ("10.0.0.1", "192.168.7.2"),
        ("192.168.1.5", "100.64.9.9"),
        ("fd12::1", "fd77::2"),
        ("2001:db8::1", "64:ff9b::cb00:7105"),
        ("127.0.0.1", "127.0.0.2"),
        ("169.254.3.4", "169.254.5.6"),
        ("2001:db8::1", "2001:db8:1::2"),
        ("fd12::1", "2001:db8::2"),
        ("fe80::1%eth0", "fe80::2"),
        ("::1", "::1"),
    ],
)
def test_addresses_of_one_family_and_scope_pair(local: str, remote: str) -> None:
    assert can_pair(Address(local, 5000), Address(remote, 5000))


@pytest.mark.parametrize(
    ("local", "remote", "why"),
    [
        ("10.0.0.1", "2001:db8::1", "another family"),
        ("2001:db8::1", "10.0.0.1", "another family"),
        ("10.0.0.1", "127.0.0.1", "our own loopback"),
        ("2001:db8::1", "::1", "our own loopback"),
        ("127.0.0.1", "10.0.0.1", "not to be reached from loopback"),
        ("10.0.0.1", "0.0.0.0", "unspecified"),
        ("2001:db8::1", "::", "unspecified"),
        ("10.0.0.1", "224.0.0.251", "multicast"),
        ("2001:db8::1", "ff02::1", "multicast"),
        ("10.0.0.1", "255.255.255.255", "broadcast"),
        ("10.0.0.1", "169.254.5.6", "RFC 3927 2.6.2: another scope"),
        ("2001:db8::1", "fe80::2", "RFC 8445 6.1.2.2: another scope"),
        ("fe80::1%eth0", "2001:db8::2", "RFC 8445 6.1.2.2: another scope"),
        ("169.254.3.4", "169.254.169.254", "a metadata service"),
        ("10.0.0.1", "100.100.100.200", "a metadata service"),
        ("fd12::1", "fd00:ec2::254", "a metadata service"),
        ("10.0.0.1", "192.0.0.192", "a metadata service"),
        ("10.0.0.1", "168.63.129.16", "a metadata service"),
        ("fd12::1", "fd20:ce::254", "a metadata service"),
        ("10.0.0.1", "0.1.2.3", "RFC 6890 2.2.2: this host"),
        ("10.0.0.1", "240.0.0.1", "RFC 6890 2.2.2: reserved"),
        ("192.0.2.1", "10.0.0.1", "private, as nothing of ours is"),
        ("192.0.2.1", "192.168.1.1", "private, as nothing of ours is"),
        ("192.0.2.1", "100.64.0.1", "a carrier's, as nothing of ours is"),
        ("2001:db8::1", "fd12::1", "private, as nothing of ours is"),
        ("fd12::1", "fd71:7569:6365::1", "what the engine calls relays by"),
        ("2001:db8::1", "64:ff9b::a9fe:a9fe", "a metadata service behind a NAT64"),
        ("2001:db8::1", "64:ff9b::a00:1", "private, behind a NAT64"),
        ("2001:db8::1", "64:ff9b::7f00:1", "loopback of a NAT64"),
        ("2001:db8::1", "2002:c0a8:101::1", "private, by 6to4"),
        ("2001:db8::1", "::127.0.0.1", "IPv4 in disguise"),
        ("2001:db8::1", "::ffff:127.0.0.1", "loopback in disguise"),
        ("2001:db8::1", "::ffff:10.0.0.1", "IPv4 in disguise"),
    ],
)
def test_an_address_that_is_not_one_other_machine_of_our_scope_is_never_paired(
    local: str, remote: str, why: str
) -> None:
    assert not can_pair(Address(local, 5000), Address(remote, 5000)), why


def test_a_private_address_that_a_check_has_come_from_is_paired() -> None:
    public, private = Address("192.0.2.1", 5000), Address("10.0.0.1", 5000)
    assert not can_pair(public, private)
    assert can_pair(public, private, heard=True)
    assert not can_pair(public, Address("169.254.169.254", 80), heard=True)


def test_port_0_is_never_paired() -> None:
    assert not can_pair(Address("10.0.0.1", 5000), Address("192.0.2.1", 0))


@pytest.mark.parametrize("zone", ["", "%eth7"])
def test_rfc4007_6_the_peers_zone_is_replaced_by_the_one_of_our_base(zone: str) -> None:
    remote = host_candidate(Address(f"fe80::2{zone}", 5000))
    assert on_link_of(Address("fe80::1%eth0", 6000), remote).address == Address("fe80::2%eth0", 5000)


def test_an_address_without_a_zone_is_left_as_it_is() -> None:
    remote = host_candidate(Address("2001:db8::2", 5000))
    assert on_link_of(Address("2001:db8::1", 6000), remote) is remote


def test_a_candidate_is_written_as_kind_and_address() -> None:
    address = Address("2001:db8::1", 5000)
    candidate = Candidate(kind=CandidateKind.SERVER_REFLEXIVE, address=address, priority=1, foundation="1")
    assert str(candidate) == "srflx [2001:db8::1]:5000"
