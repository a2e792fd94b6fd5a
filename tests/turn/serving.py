"""A TURN server's control plane with a pretended data path, and a client that composes its requests one by one."""

from __future__ import annotations

import ipaddress
import random
from typing import TypeVar

from quice.stun.attributes import (
    Attribute,
    ChannelNumber,
    Lifetime,
    Nonce,
    Realm,
    RequestedTransport,
    XorPeerAddress,
)
from quice.stun.auth import LongTerm
from quice.stun.message import Kind, Message, Method
from quice.turn.credentials import time_limited
from quice.turn.orders import FiveTuple, Open, Order
from quice.turn.policy import PeerPolicy
from quice.turn.server import ADDRESS_FAMILY_NOT_SUPPORTED, IPV4, IPV6, Limits, TurnServer
from quice.wire import Address, random_bytes

OrderT = TypeVar("OrderT", bound=Order)

SECRET = "known to server and rendezvous"
EPOCH = 1_700_000_000.0
SERVER = Address("192.0.2.1", 3478)
ALICE = FiveTuple(Address("203.0.113.7", 40000), SERVER)
BOB = FiveTuple(Address("203.0.113.8", 40000), SERVER)
PEER = Address("198.51.100.9", 6000)
PEER6 = Address("2001:db8::9", 6000)
UDP = RequestedTransport(17)


def account(name: str = "alice", *, lifetime: float = 3600.0, secret: str = SECRET) -> LongTerm:
    """Credentials as the rendezvous gives them."""
    return time_limited(secret, EPOCH + lifetime, name)


class Service:
    """The server, at a time that tests set. Its data path has an address for each of `families`."""

    def __init__(self, *, allow: tuple[str, ...] = (), families: tuple[int, ...] = (IPV4,), **limits: int) -> None:
        self.now = 0.0
        self.families = families
        self.orders: list[Order] = []
        policy = PeerPolicy(ipaddress.ip_network(network) for network in allow)
        clock = lambda: EPOCH + self.now  # noqa: E731
        self.turn = TurnServer(SECRET, policy, random.Random(1), clock, Limits(**limits))
        self._rng = random.Random(2)
        self._credentials: dict[FiveTuple, LongTerm] = {}
        self._ports = iter(range(50000, 60000))

    def deliver(self, data: bytes, client: FiveTuple = ALICE) -> list[bytes]:
        """What the server answers to a message."""
        self.turn.receive(data, client, self.now)
        return self.settle()

    def settle(self) -> list[bytes]:
        """Carry out what it orders; returns what it sends."""
        for order in self.turn.events():
            self.orders.append(order)
            if isinstance(order, Open):
                self.turn.opened(
                    order.allocation, {family: self._address(family) for family in order.families}, self.now
                )
        return [answer.data for answer in self.turn.transmits()]

    def ordered(self, kind: type[OrderT]) -> list[OrderT]:
        """The orders of a kind, which are taken."""
        found = [order for order in self.orders if isinstance(order, kind)]
        self.orders = [order for order in self.orders if not isinstance(order, kind)]
        return found

    def wait(self, seconds: float) -> None:
        """Let time pass, with what becomes due."""
        self.now += seconds
        while (when := self.turn.timeout()) is not None and when <= self.now:
            self.turn.handle_timeout(self.now)
        self.settle()

    def request(self, method: Method, *attributes: Attribute) -> Message:
        """A request without credentials."""
        return Message(method, Kind.REQUEST, random_bytes(self._rng, 12), attributes)

    def compose(
        self, method: Method, *attributes: Attribute, client: FiveTuple = ALICE, user: LongTerm | None = None
    ) -> bytes:
        """A request with credentials, for which the server has been asked for a nonce."""
        user = self._known(client, user)
        return self.request(method, *attributes, *user.attributes()).encode(user.key)

    def ask(
        self, method: Method, *attributes: Attribute, client: FiveTuple = ALICE, user: LongTerm | None = None
    ) -> Message:
        """The answer to a request with credentials."""
        user = self._known(client, user)
        (data,) = self.deliver(self.compose(method, *attributes, client=client, user=user), client)
        answer = Message.decode(data)
        assert answer.verify(user.key) or answer.kind is Kind.ERROR
        return answer

    def code(
        self, method: Method, *attributes: Attribute, client: FiveTuple = ALICE, user: LongTerm | None = None
    ) -> int:
        """The code that a request fails with; 0 if it succeeds."""
        answer = self.ask(method, *attributes, client=client, user=user)
        return answer.error.code if answer.kind is Kind.ERROR else 0

    def allocate(self, *attributes: Attribute, client: FiveTuple = ALICE, user: LongTerm | None = None) -> Message:
        """A successful allocation."""
        answer = self.ask(Method.ALLOCATE, UDP, *attributes, client=client, user=user)
        assert answer.kind is Kind.SUCCESS, answer.error
        return answer

    def permit(self, *peers: Address, client: FiveTuple = ALICE) -> int:
        """Ask for permissions; returns the code."""
        return self.code(Method.CREATE_PERMISSION, *map(XorPeerAddress, peers), client=client)

    def bind(self, number: int, peer: Address, client: FiveTuple = ALICE) -> int:
        """Ask for a channel; returns the code."""
        return self.code(Method.CHANNEL_BIND, ChannelNumber(number), XorPeerAddress(peer), client=client)

    def refresh(self, lifetime: int | None = None, client: FiveTuple = ALICE) -> int:
        """Refresh the allocation; returns the code."""
        asked = () if lifetime is None else (Lifetime(lifetime),)
        return self.code(Method.REFRESH, *asked, client=client)

    def _known(self, client: FiveTuple, user: LongTerm | None) -> LongTerm:
        user = user or self._credentials.get(client) or account()
        if not user.nonce:
            request = self.request(Method.REFRESH)
            while not (answers := self.deliver(request.encode(), client)):
                pass
            challenge = Message.decode(answers[0])
            realm, nonce = challenge.get(Realm), challenge.get(Nonce)
            assert realm is not None
            assert nonce is not None
            user = LongTerm(user.username, user.password, realm.value, nonce.value)
        self._credentials.setdefault(client, user)
        return user

    def _address(self, family: int) -> Address | int:
        if family not in self.families:
            return ADDRESS_FAMILY_NOT_SUPPORTED
        return Address("2001:db8::1" if family == IPV6 else SERVER.host, next(self._ports))
