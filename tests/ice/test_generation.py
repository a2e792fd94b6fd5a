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
