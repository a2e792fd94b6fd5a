"""A TURN server in memory, strict where the RFC is, and a clock: what a client says to it goes there and back at once.

It is a second opinion on the protocol, written for the tests alone, and shares nothing with the client but the codec.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from quice.stun import responses
from quice.stun.attributes import (
    AdditionalAddressFamily,
    Attribute,
    ChannelNumber,
    Data,
    Lifetime,
    Nonce,
    Realm,
    RequestedAddressFamily,
    RequestedTransport,
    Username,
    XorMappedAddress,
    XorPeerAddress,
    XorRelayedAddress,
)
from quice.stun.auth import LongTerm, PasswordAlgorithm, long_term_key
from quice.stun.message import Kind, Message, Method, is_stun
from quice.turn import Client, Event
from quice.wire import Address

EventT = TypeVar("EventT")

SERVER = Address("192.0.2.1", 3478)
LOCAL = Address("10.0.0.1", 5000)
MAPPED = Address("203.0.113.7", 40000)
RELAYED = Address("192.0.2.1", 50000)
RELAYED6 = Address("2001:db8::1", 50000)
PEER = Address("198.51.100.9", 6000)
OTHER_PEER = Address("198.51.100.10", 6001)
PEER6 = Address("2001:db8::9", 6000)
USER = LongTerm("alice", "wonderland")
REALM = "example.org"

Answer = bytes | None
Rule = Callable[["Relay", Message], Answer]


class Relay:
    """The server. `refusals`: codes that the next requests of a method are refused with, whatever they ask."""

    def __init__(self, address: Address = SERVER, *, families: tuple[int, ...] = (1,)) -> None:
        self.address = address
        self.families = families
        self.realm = REALM
        self.nonce = b"first"
        self.algorithms: tuple[tuple[int, bytes], ...] = ()
        self.lifetime = 600
        self.silent = False
        self.allocated = False
        self.permitted: dict[str, float] = {}
        self.channels: dict[int, tuple[Address, float]] = {}
        self.forbidden: set[str] = set()
        self.refusals: dict[Method, deque[int]] = {}
        self.rules: dict[Method, Rule] = {}
        self.seen: list[Message] = []
        """Every request, in order."""
        self.relayed: list[tuple[bytes, Address]] = []
        """What it has sent to peers."""
        self._answered: dict[bytes, Answer] = {}

    def take(self, data: bytes, now: float) -> Answer:
        """What it answers to a message."""
        if self.silent:
            return None
        if not is_stun(data):
            self._take_channel_data(data, now)
            return None
        message = Message.decode(data)
        if message.kind is Kind.INDICATION:
            self._take_indication(message, now)
            return None
        # RFC 8656 §7.2: a request that was sent again has the answer that it had.
        if message.transaction_id not in self._answered:
            self.seen.append(message)
            rule = self.rules.get(message.method)
            self._answered[message.transaction_id] = rule(self, message) if rule else self.judge(message, now)
        return self._answered[message.transaction_id]

    def judge(self, request: Message, now: float) -> Answer:
        """Authenticate a request, and do it."""
        if not request.has_integrity:
            return responses.challenge(request, 401, self.realm, self.nonce, self.algorithms)
        key = self.key
        nonce, realm, username = request.get(Nonce), request.get(Realm), request.get(Username)
        if nonce is None or realm is None or username is None:
            return responses.error(request, 400)
        if not nonce.value.endswith(self.nonce):
            return responses.challenge(request, 438, self.realm, self.nonce, self.algorithms)
        if username.value != USER.username or not request.verify(key):
            return responses.challenge(request, 401, self.realm, self.nonce, self.algorithms)
        refusals = self.refusals.get(request.method)
        if refusals:
            return responses.error(request, refusals.popleft(), key=key)
        code, attributes = self._do(request, now)
        if code:
            return responses.error(request, code, *attributes, key=key)
        return responses.success(request, *attributes, key=key)

    @property
    def key(self) -> bytes:
        """The user's."""
        algorithm = PasswordAlgorithm.SHA256 if self.algorithms else PasswordAlgorithm.MD5
        return long_term_key(USER.username, self.realm, USER.password, algorithm)

    def count(self, method: Method) -> int:
        """How many requests of a method it has seen."""
        return sum(message.method is method for message in self.seen)

    def _do(self, request: Message, now: float) -> tuple[int, tuple[Attribute, ...]]:
        if request.method is Method.ALLOCATE:
            return self._allocate(request)
        if not self.allocated:
            return 437, ()
        if request.method is Method.REFRESH:
            wanted = request.get(Lifetime)
            self.allocated = wanted is None or wanted.value > 0
            return 0, (Lifetime(self.lifetime if self.allocated else 0),)
        peers = [attribute.address for attribute in request.attributes if isinstance(attribute, XorPeerAddress)]
        if not peers:
            return 400, ()
        if any(peer.host in self.forbidden for peer in peers):
            return 403, ()
        if any({4: 1, 6: 2}[peer.ip.version] not in self.families for peer in peers):
            return 443, ()
        if request.method is Method.CHANNEL_BIND:
            number = request.get(ChannelNumber)
            assert number is not None
            holder = self.channels.get(number.value)
            if not 0x4000 <= number.value <= 0x4FFF or (holder is not None and holder[0] != peers[0]):
                return 400, ()
            if any(peer == peers[0] and other != number.value for other, (peer, _) in self.channels.items()):
                return 400, ()
            self.channels[number.value] = peers[0], now + 600
        self.permitted.update((peer.host, now + 300) for peer in peers)
        return 0, ()

    def _allocate(self, request: Message) -> tuple[int, tuple[Attribute, ...]]:
        transport = request.get(RequestedTransport)
        assert transport == RequestedTransport(17)
        if self.allocated:
            return 437, ()
        family, additional = request.get(RequestedAddressFamily), request.get(AdditionalAddressFamily)
        wanted = {family.value if family is not None else 1} | ({2} if additional is not None else set())
        given = [each for each in sorted(wanted) if each in self.families]
        if not given or (additional is not None and 1 not in given):
            return 440, ()
        self.allocated = True
        addresses = {1: RELAYED, 2: RELAYED6}
        relayed = tuple(XorRelayedAddress(addresses[each]) for each in given)
        return 0, (*relayed, XorMappedAddress(MAPPED), Lifetime(self.lifetime))

    def _take_channel_data(self, data: bytes, now: float) -> None:
        number, length = int.from_bytes(data[:2], "big"), int.from_bytes(data[2:4], "big")
        held = self.channels.get(number)
        if held is not None and held[1] > now and self.permitted.get(held[0].host, 0) > now:
            self.relayed.append((data[4 : 4 + length], held[0]))

    def _take_indication(self, message: Message, now: float) -> None:
        peer, data = message.get(XorPeerAddress), message.get(Data)
        assert message.method is Method.SEND
        assert peer is not None
        assert data is not None
        if self.permitted.get(peer.address.host, 0) > now:
            self.relayed.append((data.value, peer.address))


class Play:
    """A client, its server, and the time."""

    def __init__(
        self, relay: Relay | None = None, *, credentials: LongTerm = USER, seed: int = 1, **options: Any
    ) -> None:
        self.relay = relay or Relay()
        self.others: dict[Address, Relay] = {}
        """Other servers that there are."""
        self.now = 100.0
        self.lost = 0
        """How many datagrams are lost next, on their way to the server."""
        self.told: list[Event] = []
        self.sent: list[bytes] = []
        """Everything that the client has sent."""
        self.client = Client(self.relay.address, LOCAL, credentials, random.Random(seed), self.now, **options)

    def exchange(self) -> None:
        """All that there is to say is said, and answered."""
        while transmits := list(self.client.transmits()):
            for data, source, destination in transmits:
                assert source == LOCAL
                self.sent.append(data)
                if self.lost:
                    self.lost -= 1
                    continue
                server = self.others.get(destination) or self.relay
                assert destination == server.address
                answer = server.take(data, self.now)
                if answer is not None:
                    self.client.receive(answer, server.address, LOCAL, self.now)
        self.told += self.client.events()

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.exchange()
        end = self.now + seconds
        while (due := self.client.timeout()) is not None and due <= end:
            assert due >= self.now
            self.now = due
            self.client.handle_timeout(due)
            self.exchange()
        self.now = end

    def hear(self, data: bytes, source: Address | None = None) -> bool:
        """The client receives something, from its server unless it says otherwise."""
        taken = self.client.receive(data, source or self.client.server, LOCAL, self.now)
        self.exchange()
        return taken

    def the(self, kind: type[EventT]) -> EventT:
        """The one event of this class that it has told."""
        (event,) = (event for event in self.told if isinstance(event, kind))
        return event

    def bind(self, peer: Address = PEER) -> int:
        """Bind a channel."""
        channel = self.client.bind(peer, self.now)
        self.exchange()
        return channel

    def permit(self, *hosts: str) -> None:
        """Ask for permissions."""
        self.client.permit(hosts, self.now)
        self.exchange()

    def send(self, data: bytes, peer: Address = PEER) -> bool:
        """Send to a peer."""
        went = self.client.send(data, peer, self.now)
        self.exchange()
        return went


def allocated(relay: Relay | None = None, **options: Any) -> Play:
    """A client with its allocation."""
    play = Play(relay, **options)
    play.exchange()
    assert play.relay.allocated
    return play
