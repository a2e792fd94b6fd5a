"""The TURN server's control plane: what clients and strangers say to it, in any order, for hours."""

from __future__ import annotations

import random
from dataclasses import replace

from fuzz.mutation import mutate
from fuzz.target import Target, require
from fuzz.targets.stun import any_attribute, complete
from quice.stun.attributes import (
    AdditionalAddressFamily,
    Attribute,
    ChannelNumber,
    EvenPort,
    Lifetime,
    Nonce,
    RequestedAddressFamily,
    RequestedTransport,
    XorPeerAddress,
)
from quice.stun.message import Kind, Message, Method
from quice.turn.credentials import time_limited
from quice.turn.orders import CloseFamily, Delete, FiveTuple, Open, Order
from quice.turn.policy import PeerPolicy
from quice.turn.server import ADDRESS_FAMILY_NOT_SUPPORTED, INSUFFICIENT_CAPACITY, IPV6, Limits, TurnServer
from quice.wire import Address, random_bytes

SERVER = Address("192.0.2.1", 3478)
_SECRET = "secret"
_EPOCH = 1_700_000_000.0
_LIMITS = Limits(of_one=2, of_all=5)
_HOSTS = ("203.0.113.7", "203.0.113.8", "2001:db8::7")
_PEERS = ("198.51.100.9", "198.51.100.10", "10.0.0.1", "127.0.0.1", "2001:db8::9", "fe80::1", "192.0.2.1")
_METHODS = (Method.ALLOCATE, Method.REFRESH, Method.CREATE_PERMISSION, Method.CHANNEL_BIND)


class _Session:
    """One server, its pretended data path, and the promises that both have to keep."""

    def __init__(self, rng: random.Random, keys: list[bytes]) -> None:
        self.rng = rng
        self.keys = keys
        self.now = 0.0
        clock = lambda: _EPOCH + self.now  # noqa: E731
        self.turn = TurnServer(_SECRET, PeerPolicy(), rng, clock, _LIMITS)
        self.open: dict[int, set[int]] = {}
        self.nonces: dict[FiveTuple, bytes] = {}
        self.balance = 0
        """Bytes that strangers have sent over UDP, less those that they were answered with."""

    def client(self) -> FiveTuple:
        host = self.rng.choice(_HOSTS)
        return FiveTuple(Address(host, self.rng.randrange(1, 4)), SERVER, self.rng.random() < 0.3)

    def deliver(self, data: bytes, client: FiveTuple) -> None:
        if not client.tcp:
            self.balance += len(data)
        self.turn.receive(data, client, self.now)
        self.settle()

    def settle(self) -> None:
        for order in self.turn.events():
            self.obey(order)
        for answer in self.turn.transmits():
            message = Message.decode(answer.data)
            nonce = message.get(Nonce)
            if nonce is not None:
                self.nonces[answer.client] = nonce.value
            if not answer.client.tcp and not any(map(message.verify, self.keys)):
                self.balance -= len(answer.data)
        require(self.balance >= 0, "strangers were sent more than they said")
        require(len(self.turn) == len(self.open) <= _LIMITS.of_all, "the data path knows of other allocations")

    def obey(self, order: Order) -> None:
        if isinstance(order, Open):
            require(order.allocation not in self.open, "an allocation is made twice")
            relayed = {family: self.address(family) for family in order.families}
            self.open[order.allocation] = {family for family, one in relayed.items() if isinstance(one, Address)}
            self.turn.opened(order.allocation, relayed, self.now)
            return
        require(order.allocation in self.open, f"an order for an allocation that is not there: {order}")
        if isinstance(order, Delete):
            del self.open[order.allocation]
        elif isinstance(order, CloseFamily):
            require(order.family in self.open[order.allocation], "a family that is not there is closed")
            self.open[order.allocation].discard(order.family)

    def address(self, family: int) -> Address | int:
        if self.rng.random() < 0.1:
            return self.rng.choice((ADDRESS_FAMILY_NOT_SUPPORTED, INSUFFICIENT_CAPACITY))
        return Address("2001:db8::1" if family == IPV6 else SERVER.host, self.rng.randrange(1, 1 << 16))

    def attributes(self) -> list[Attribute]:
        rng = self.rng
        peer = XorPeerAddress(Address(rng.choice(_PEERS), rng.randrange(3)))
        usual: list[Attribute] = [
            RequestedTransport(17),
            Lifetime(rng.choice((0, 1, 600, 10_000))),
            peer,
            ChannelNumber(rng.choice((0x4000, 0x4001, 0x3FFF))),
        ]
        unusual: list[Attribute] = [
            RequestedAddressFamily(rng.randrange(4)),
            AdditionalAddressFamily(rng.randrange(4)),
            EvenPort(reserve=rng.random() < 0.5),
            any_attribute(rng, bytes(12)),
        ]
        return [one for one in usual if rng.random() < 0.8] + [one for one in unusual if rng.random() < 0.15]


def _play(rng: random.Random) -> None:
    accounts = [time_limited(_SECRET, _EPOCH + rng.choice((600, 7200)), name) for name in ("one", "two")]
    users = [replace(account, realm="q") for account in accounts]
    session = _Session(rng, [user.key for user in users])
    said = [Message(Method.ALLOCATE, Kind.REQUEST, bytes(12), (RequestedTransport(17),)).encode()]
    for _ in range(rng.randrange(60)):
        client = session.client()
        user = replace(rng.choice(users), nonce=session.nonces.get(client, b""))
        chance = rng.random()
        if chance < 0.1:
            session.now += rng.choice((1.0, 200.0, 4000.0))
            session.turn.handle_timeout(session.now)
            session.settle()
        elif chance < 0.15:
            session.turn.gone(client)
            session.settle()
        elif chance < 0.3:
            data = mutate(rng, said)
            session.deliver(complete(rng, data, user.key) if rng.random() < 0.5 else data, client)
        else:
            attributes = session.attributes()
            if user.nonce or rng.random() < 0.2:
                attributes += user.attributes()
            request = Message(rng.choice(_METHODS), Kind.REQUEST, random_bytes(rng, 12), tuple(attributes))
            said.append(request.encode(user.key if user.nonce else None))
            session.deliver(said[-1], client)
    session.now += 100_000.0
    session.turn.handle_timeout(session.now)
    session.settle()
    require(not session.open, "allocations outlive their lifetime")
    require(session.turn.timeout() is None, "a timer without an allocation")


TARGETS = (Target("turn-server", _play),)
