"""Mailboxes over WebSockets, frame by frame."""

from __future__ import annotations

from quice.identity import Identity
from quice.server import Server
from quice.server.mailboxes import CLAIMS_BY_SOURCE
from quice.signal.protocol import (
    AttendMailbox,
    ClaimMailbox,
    MailboxBody,
    MailboxClosed,
    MailboxEnd,
    MailboxOpened,
    MailboxTaken,
    OpenMailbox,
    PutMailbox,
)
from tests.server.peers import RawPeer, raw_peer


async def opened(peer: RawPeer) -> int:
    await peer.send(OpenMailbox(body=b"greeting"))
    answer = await peer.receive()
    assert isinstance(answer, MailboxOpened)
    return answer.number


async def test_two_peers_exchange_three_bodies(server: Server) -> None:
    async with raw_peer(server) as alice, raw_peer(server) as bob:
        await alice.registered()
        await bob.registered()
        number = await opened(alice)
        await bob.send(ClaimMailbox(number=number))
        assert await bob.receive() == MailboxBody(number=number, peer=alice.peer.key, body=b"greeting")
        assert await alice.receive() == MailboxTaken(number=number, peer=bob.peer.key)
        await bob.send(PutMailbox(number=number, body=b"answer"))
        assert await alice.receive() == MailboxBody(number=number, peer=bob.peer.key, body=b"answer")
        await alice.send(PutMailbox(number=number, body=b"reply"))
        assert await bob.receive() == MailboxBody(number=number, peer=alice.peer.key, body=b"reply")


async def test_a_mailbox_outlives_the_connection_that_it_was_opened_on(server: Server) -> None:
    identity = Identity.generate()
    async with raw_peer(server) as bob:
        await bob.registered()
        async with raw_peer(server, identity) as alice:
            await alice.registered()
            number = await opened(alice)
        await bob.send(ClaimMailbox(number=number))
        await bob.receive()
        await bob.send(PutMailbox(number=number, body=b"answer"))
        async with raw_peer(server, identity) as alice:
            await alice.registered()
            await alice.send(AttendMailbox(number=number))
            assert await alice.receive() == MailboxTaken(number=number, peer=bob.peer.key)
            assert await alice.receive() == MailboxBody(number=number, peer=bob.peer.key, body=b"answer")


async def test_an_address_is_limited_whoever_comes_from_it(server: Server) -> None:
    """By many peers, each of which makes a single claim."""
    reasons = []
    for _ in range(CLAIMS_BY_SOURCE.burst + 1):
        async with raw_peer(server) as peer:
            await peer.registered()
            await peer.send(ClaimMailbox(number=999_999))
            answer = await peer.receive()
            assert isinstance(answer, MailboxClosed)
            reasons.append(answer.reason)
    assert reasons == [MailboxEnd.GONE] * CLAIMS_BY_SOURCE.burst + [MailboxEnd.LIMIT]
