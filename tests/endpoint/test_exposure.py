"""Which of its addresses an endpoint uses, and which it tells peers of."""

from __future__ import annotations

import asyncio

import pytest

from quice import Address, Candidate, CandidateKind, Endpoint, ExternalAddress, Identity
from quice.ice import Base
from quice.machine import this_machine
from quice.signal import signalling_pair
from quice.signal.messages import Offer
from tests.endpoint.conftest import ALPN

EXTERNAL = "203.0.113.7"


async def told(endpoint: Endpoint) -> list[Candidate]:
    """The candidates that a peer gets to know with the offer."""
    ours, theirs = signalling_pair()
    connecting = asyncio.create_task(endpoint.connect(Identity.generate().peer, alpn=ALPN, signalling=ours))
    offer = await theirs.receive()
    connecting.cancel()
    await asyncio.gather(connecting, return_exceptions=True)
    assert isinstance(offer, Offer)
    return list(offer.candidates)


async def test_an_interface_that_the_filter_refuses_is_neither_used_nor_told() -> None:
    asked: list[Base] = []

    def refuse(base: Base) -> bool:
        asked.append(base)
        return base.address.host != refused.host

    refused = this_machine().addresses()[0]
    async with Endpoint.bind(interface_filter=refuse) as endpoint:
        assert refused.host not in [address.host for address in endpoint.addresses]
        assert refused.host not in [candidate.address.host for candidate in await told(endpoint)]
    assert Base(Address(refused.host, asked[0].address.port), refused.interface) in asked


async def test_without_any_interface_an_endpoint_has_no_address() -> None:
    async with Endpoint.bind(interface_filter=lambda base: False) as endpoint:
        assert endpoint.addresses == []
        assert await told(endpoint) == []


async def test_a_candidate_that_the_filter_refuses_is_not_told() -> None:
    async with Endpoint.bind(
        host="127.0.0.1",
        candidate_filter=lambda candidate: candidate.kind is not CandidateKind.HOST,
        external_addresses=[ExternalAddress(EXTERNAL, local="127.0.0.1")],
    ) as endpoint:
        assert [candidate.address.host for candidate in await told(endpoint)] == [EXTERNAL]
        assert endpoint.addresses == [Address("127.0.0.1", endpoint.port)]


async def test_a_declared_external_address_is_told_with_the_endpoints_own_port() -> None:
    async with Endpoint.bind(
        host="127.0.0.1", external_addresses=[ExternalAddress(EXTERNAL, local="127.0.0.1")]
    ) as endpoint:
        assert [(candidate.kind, candidate.address) for candidate in await told(endpoint)] == [
            (CandidateKind.HOST, Address("127.0.0.1", endpoint.port)),
            (CandidateKind.SERVER_REFLEXIVE, Address(EXTERNAL, endpoint.port)),
        ]


async def test_an_external_address_may_be_a_text() -> None:
    async with Endpoint.bind(external_addresses=[EXTERNAL]) as endpoint:
        told_hosts = [candidate.address.host for candidate in await told(endpoint)]
        families = {address.ip.version for address in endpoint.addresses if not address.ip.is_loopback}
        assert (EXTERNAL in told_hosts) == (4 in families)


async def test_an_external_address_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="example"):
        await Endpoint.bind(external_addresses=["example.com"])


async def test_rfc8445_5_1_1_a_lite_endpoint_tells_host_candidates_alone_and_those_that_others_reach() -> None:
    async with Endpoint.bind(
        host="127.0.0.1", external_addresses=[ExternalAddress(EXTERNAL, local="127.0.0.1")], lite=True
    ) as endpoint:
        assert [(candidate.kind, candidate.address) for candidate in await told(endpoint)] == [
            (CandidateKind.HOST, Address(EXTERNAL, endpoint.port))
        ]
    async with Endpoint.bind(host="127.0.0.1", lite=True) as endpoint:
        assert [candidate.address for candidate in await told(endpoint)] == [Address("127.0.0.1", endpoint.port)]
