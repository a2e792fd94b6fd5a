"""What a generation pairs, apart from its checks."""

from __future__ import annotations

import msgspec

from quice.ice import Candidate, CandidateKind
from quice.ice.checks import Credentials
from quice.ice.generation import Generation
from quice.stun.attributes import Priority
from quice.stun.message import Kind, Message, Method
from quice.wire import Address
from tests.ice.network import host_candidate

ONE, OTHER = Address("10.0.0.1", 5000), Address("10.0.0.2", 5000)
THERE = Address("192.0.2.7", 6000)


def test_rfc8445_7_3_1_3_a_revealed_candidate_that_gets_its_name_is_paired_with_all_of_ours() -> None:
    """Its check has come to one of them, which may not be the one that works both ways."""
    generation = Generation(0, Credentials("ufrag", "password" * 3), True, 100, 0.0)
    for address in (ONE, OTHER):
        generation.add_local(host_candidate(address))
    check = Message(Method.BINDING, Kind.REQUEST, bytes(12), (Priority(1234),))
    revealed = generation.pair_of(check, THERE, ONE)
    assert revealed is not None
    assert generation.checklist.find(OTHER, THERE) is None
    named = Candidate(kind=CandidateKind.SERVER_REFLEXIVE, address=THERE, priority=2345, foundation="1")
    assert generation.add_remote(named)
    pairs = [generation.checklist.find(address, THERE) for address in (ONE, OTHER)]
    assert pairs[0] is revealed
    assert all(pair is not None and pair.remote == named for pair in pairs)
    assert not generation.add_remote(msgspec.structs.replace(named))


def test_what_is_revealed_at_a_relay_of_the_peers_is_relayed() -> None:
    """An allocation that the peer takes for lost, whose five-tuple its NAT has given it again: as a candidate like any
    that no relay has it would be preferred to the direct one."""
    generation = Generation(0, Credentials("ufrag", "password" * 3), True, 100, 0.0)
    generation.add_local(host_candidate(ONE))
    relayed = Candidate(kind=CandidateKind.RELAYED, address=THERE, priority=1, foundation="1")
    generation.add_remote(relayed)
    check = Message(Method.BINDING, Kind.REQUEST, bytes(12), (Priority(1234),))
    revealed = generation.pair_of(check, THERE._replace(port=6001), ONE)
    assert revealed is not None
    assert (revealed.remote.kind, revealed.relays) == (CandidateKind.RELAYED, 1)
    # It gets its name all the same.
    named = msgspec.structs.replace(relayed, address=revealed.remote.address, foundation="2")
    assert generation.add_remote(named)
    assert revealed.remote == named
    # A peer may run a relay, and be at its address itself.
    other = Address("192.0.2.8", 6000)
    for kind, port in ((CandidateKind.RELAYED, 6000), (CandidateKind.SERVER_REFLEXIVE, 6001)):
        generation.add_remote(Candidate(kind=kind, address=other._replace(port=port), priority=1, foundation="3"))
    own = generation.pair_of(check, other._replace(port=6002), ONE)
    assert own is not None
    assert own.remote.kind is CandidateKind.PEER_REFLEXIVE
