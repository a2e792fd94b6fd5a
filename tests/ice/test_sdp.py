"""Candidate lines, as other ICE agents write and read them (RFC 8839 §5.1)."""

import ipaddress

import pytest
from aioice import Candidate as TheirCandidate
from hypothesis import given
from hypothesis import strategies as st

from quice.ice import Candidate, CandidateKind
from quice.ice.sdp import MAX_LINE, SdpDecodeError, format_candidate, parse_candidate
from quice.wire import Address

HOST = "candidate:1 1 udp 2130706431 192.0.2.1 5000 typ host"
SERVER_REFLEXIVE = "candidate:2 1 udp 1694498815 203.0.113.7 40000 typ srflx raddr 192.168.1.11 rport 5000"


def plain(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return not ip.is_unspecified and not (ip.version == 6 and ip.ipv4_mapped is not None)


ports = st.integers(1, 65535)
addresses = st.builds(Address, st.ip_addresses().filter(plain).map(str), ports)
lines = st.sampled_from([HOST, SERVER_REFLEXIVE])


@st.composite
def candidates(draw: st.DrawFn) -> Candidate:
    """What an agent may tell its peer."""
    kind = draw(st.sampled_from(CandidateKind))
    return Candidate(
        kind=kind,
        address=draw(addresses),
        priority=draw(st.integers(1, 2**31 - 1)),
        foundation=draw(st.from_regex(r"[A-Za-z0-9+/]{1,32}", fullmatch=True)),
        related_address=None if kind is CandidateKind.HOST else draw(st.none() | addresses),
    )


def host(address: str) -> Candidate | None:
    return parse_candidate(f"1 1 udp 1 {address} 5000 typ host")


@given(candidates())
def test_a_candidate_is_the_same_after_its_line(candidate: Candidate) -> None:
    assert parse_candidate(format_candidate(candidate)) == candidate
    assert parse_candidate("a=" + format_candidate(candidate)) == candidate


@given(candidates())
def test_aioice_reads_our_lines_and_we_read_its(candidate: Candidate) -> None:
    theirs = TheirCandidate.from_sdp(format_candidate(candidate).removeprefix("candidate:"))
    assert (theirs.host, theirs.port) == candidate.address
    assert (theirs.type, theirs.priority, theirs.component) == (candidate.kind.value, candidate.priority, 1)
    assert parse_candidate(theirs.to_sdp()) == candidate


def test_a_host_candidate_is_written_as_rfc8839_has_it() -> None:
    candidate = Candidate(
        kind=CandidateKind.HOST, address=Address("192.0.2.1", 5000), priority=2130706431, foundation="1"
    )
    assert format_candidate(candidate) == HOST


def test_rfc8839_5_1_a_reflexive_candidate_names_its_related_address() -> None:
    candidate = parse_candidate(SERVER_REFLEXIVE)
    assert candidate is not None
    assert candidate.kind is CandidateKind.SERVER_REFLEXIVE
    assert candidate.address == Address("203.0.113.7", 40000)
    assert candidate.related_address == Address("192.168.1.11", 5000)
    assert format_candidate(candidate) == SERVER_REFLEXIVE


@pytest.mark.parametrize(("address", "nobody"), [("192.0.2.1", "0.0.0.0"), ("2001:db8::1", "::")])
def test_rfc8839_5_1_a_related_address_that_is_kept_back_has_a_stand_in(address: str, nobody: str) -> None:
    candidate = Candidate(kind=CandidateKind.RELAYED, address=Address(address, 1), priority=1, foundation="1")
    line = format_candidate(candidate)
    assert line.endswith(f"typ relay raddr {nobody} rport 9")
    assert parse_candidate(line) == candidate


def test_neither_base_nor_zone_leaves_the_machine() -> None:
    inside = Address("fe80::1%eth0", 5000)
    line = format_candidate(Candidate(kind=CandidateKind.HOST, address=inside, base=inside, priority=1, foundation="1"))
    assert line == "candidate:1 1 udp 1 fe80::1 5000 typ host"
    assert host("fe80::1%eth7") == parse_candidate(line)


def test_an_ipv6_address_is_read_in_its_shortest_form() -> None:
    candidate = host("2001:DB8:0:0:0:0:0:1")
    assert candidate is not None
    assert candidate.address == Address("2001:db8::1", 5000)


@pytest.mark.parametrize(
    "line",
    [
        "candidate:842163049 1 udp 1677729535 203.0.113.7 40000 typ srflx raddr 0.0.0.0 rport 0 generation 0 "
        "ufrag EEtu network-cost 999",
        "a=candidate:1 1 UDP 2122260223 192.0.2.1 5000 typ HOST generation 0\r\n",
        "A=Candidate:1 1 udp 1 192.0.2.1 5000 typ host flag",
        "1 1 udp 1 192.0.2.1 5000 typ srflx raddr somewhere.example rport 5000",
        "1 1 udp 1 192.0.2.1 5000 typ srflx rport 5000 raddr 192.168.1.11",
    ],
)
def test_what_extensions_a_candidate_has_does_not_matter(line: str) -> None:
    candidate = parse_candidate(line)
    assert candidate is not None
    assert candidate.related_address is None


@pytest.mark.parametrize(
    "line",
    [
        "1 1 tcp 2105458943 192.0.2.1 9 typ host tcptype active",
        "1 2 udp 2130706430 192.0.2.1 5001 typ host",
        "1 1 udp 2130706431 192.0.2.1 5000 typ carrier-pigeon",
        "1 1 udp 2113937151 1f4712db-ea17-4bcf-a596-105139dfd8bf.local 5000 typ host",
        "1 1 udp 2130706431 192.0.2.256 5000 typ host",
        "1 1 udp 2130706431 ::ffff:192.0.2.1 5000 typ host",
        "1 1 udp 2130706431 0.0.0.0 5000 typ host",
        "1 1 udp 2130706431 192.0.2.1 0 typ host",
    ],
)
def test_rfc8839_5_1_a_candidate_that_cannot_be_used_is_ignored(line: str) -> None:
    assert parse_candidate(line) is None


@pytest.mark.parametrize(
    "line",
    [
        "",
        "candidate:",
        "a=ice-ufrag:abcd",
        HOST.replace(" typ host", ""),
        HOST.replace("typ", "type"),
        HOST.replace(":1 ", ":not_ice-chars "),
        HOST.replace(":1 ", f":{'1' * 33} "),
        HOST.replace(" 1 ", " 0 "),
        HOST.replace(" 1 ", " 257 "),
        HOST.replace("2130706431", "0"),
        HOST.replace("2130706431", "2147483648"),
        HOST.replace("2130706431", "-1"),
        HOST.replace("2130706431", "1" * 5000),
        HOST.replace("2130706431", "٣"),
        HOST.replace("5000", "65536"),
        SERVER_REFLEXIVE.replace("rport 5000", "rport 65536"),
        HOST + " " + "x" * MAX_LINE,
    ],
)
def test_what_is_no_candidate_line_is_refused(line: str) -> None:
    with pytest.raises(SdpDecodeError):
        parse_candidate(line)


@given(st.text() | st.builds(lambda line, at, text: line[:at] + text + line[at:], lines, st.integers(0, 90), st.text()))
def test_any_text_is_read_ignored_or_refused(text: str) -> None:
    try:
        candidate = parse_candidate(text)
    except SdpDecodeError:
        return
    if candidate is not None:
        assert parse_candidate(format_candidate(candidate)) == candidate
