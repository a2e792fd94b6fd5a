"""Any NAT, whatever passes it in whatever order, lets in exactly what RFC 4787 says, to whom it belongs."""

from __future__ import annotations

import random
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from quice.sim.nat import NatBehaviour, Pooling, PortAllocation, Translator
from quice.sim.packet import Packet, Protocol
from quice.stun.discovery import Behaviour
from quice.wire import Address

EXTERNAL = ("203.0.113.1", "203.0.113.2")
TIMEOUT = 30.0

insides = st.builds(Address, st.sampled_from(["192.168.1.11", "192.168.1.12"]), st.sampled_from([5000, 5001, 80]))
remotes = st.builds(Address, st.sampled_from(["192.0.2.1", "192.0.2.2"]), st.sampled_from([80, 81]))
behaviours = st.builds(
    NatBehaviour,
    mapping=st.sampled_from(Behaviour),
    filtering=st.sampled_from(Behaviour),
    ports=st.sampled_from([PortAllocation.PRESERVED, PortAllocation.RANDOM, PortAllocation.SEQUENTIAL]),
    parity=st.booleans(),
    pooling=st.sampled_from(Pooling),
    timeout=st.just(TIMEOUT),
)
steps = st.lists(st.tuples(st.sampled_from([0.0, 1.0, 20.0]), insides, remotes, st.booleans()), max_size=40)


class Sent(NamedTuple):
    """Something that went out."""

    time: float
    inside: Address
    remote: Address
    external: Address


def depends_on(behaviour: Behaviour, remote: Address) -> tuple[object, ...]:
    return {
        Behaviour.ENDPOINT_INDEPENDENT: (),
        Behaviour.ADDRESS_DEPENDENT: (remote.host,),
        Behaviour.ADDRESS_AND_PORT_DEPENDENT: tuple(remote),
    }[behaviour]


@given(behaviours, steps)
def test_a_nat_lets_in_what_its_filter_says_to_whom_the_mapping_is(
    behaviour: NatBehaviour, steps: list[tuple[float, Address, Address, bool]]
) -> None:
    nat = Translator(behaviour, EXTERNAL, random.Random(1))
    now, sent = 0.0, list[Sent]()
    for pause, inside, remote, outwards in steps:
        now += pause
        fresh = [each for each in sent if now - each.time < TIMEOUT]
        if outwards:
            packet = nat.outbound(Packet(Protocol.UDP, inside, remote, b""), now)
            assert packet is not None
            key = depends_on(behaviour.mapping, remote)
            mine = {
                each.external
                for each in fresh
                if each.inside == inside and depends_on(behaviour.mapping, each.remote) == key
            }
            others = {each.external for each in fresh} - mine
            assert packet.source in mine if mine else packet.source not in others
            assert packet.source.host in EXTERNAL
            assert not behaviour.parity or packet.source.port % 2 == inside.port % 2
            sent.append(Sent(now, inside, remote, packet.source))
        for external in {each.external for each in sent}:
            fresh = [each for each in sent if now - each.time < TIMEOUT and each.external == external]
            allowed = {depends_on(behaviour.filtering, each.remote) for each in fresh}
            packet = nat.inbound(Packet(Protocol.UDP, remote, external, b""), now)
            if depends_on(behaviour.filtering, remote) in allowed:
                assert packet is not None
                assert {packet.destination} == {each.inside for each in fresh}
            else:
                assert packet is None
