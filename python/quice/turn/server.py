"""A TURN server's control plane (RFC 8656), sans-I/O: it answers requests and orders what its data path is to do.

It is a machine as `quice.wire` has them, with three differences. Clients are known by their five-tuple, for some come
over TCP. Its events are orders for the data path, and are to be carried out before what `transmits` returns is sent.
And an `Open` order is answered, by `opened`: only who binds them knows which relayed addresses there are.
"""

from __future__ import annotations

import base64
import hmac
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush

from quice.stun import responses
from quice.stun.attributes import (
    AdditionalAddressFamily,
    AddressErrorCode,
    Attribute,
    ChannelNumber,
    ErrorCode,
    EvenPort,
    Lifetime,
    Nonce,
    Realm,
    RequestedAddressFamily,
    RequestedTransport,
    ReservationToken,
    StunDecodeError,
    Username,
    XorMappedAddress,
    XorPeerAddress,
    XorRelayedAddress,
)
from quice.stun.auth import long_term_key
from quice.stun.message import Kind, Message, Method
from quice.turn.granted import CHANNEL_LIFETIME, PERMISSION_LIFETIME, Granted
from quice.turn.nonce import Nonces
from quice.turn.orders import Answer, BindChannel, CloseFamily, Delete, FiveTuple, Open, Order, Permit
from quice.turn.policy import PeerPolicy
from quice.turn.strangers import Strangers
from quice.wire import Address, Random, random_bytes

IPV4, IPV6 = 1, 2
"""Address families as REQUESTED-ADDRESS-FAMILY has them (RFC 8656 §18.6)."""
_UDP = 17
DEFAULT_LIFETIME = 600
"""Seconds of an allocation that asks for none, and at least (RFC 8656 §7.2)."""
_MAX_LIFETIME = 3600
_CHANNELS = range(0x4000, 0x8000)
"""RFC 8656 §12 ends at 0x4FFF, for clients that tell protocols apart by the first octet. RFC 5766 did not, and clients
of its time choose from all of these; what comes here is only TURN."""
_MAX_PERMISSIONS = 256
_MAX_CHANNELS = 256
_REALM = "q"
"""As short as a realm can be, because a challenge is: see `Strangers`."""

_BAD_REQUEST = 400
_UNAUTHENTICATED = 401
_FORBIDDEN = 403
_MISMATCH = 437
_STALE_NONCE = 438
ADDRESS_FAMILY_NOT_SUPPORTED = 440
_WRONG_CREDENTIALS = 441
_UNSUPPORTED_TRANSPORT = 442
_PEER_FAMILY_MISMATCH = 443
_QUOTA_REACHED = 486
INSUFFICIENT_CAPACITY = 508


@dataclass(frozen=True)
class Limits:
    """How much there is to have."""

    of_one: int = 16
    """Allocations that one user may have at the same time."""
    of_all: int = 4096
    """Allocations that there may be at the same time."""


class _RefusedError(Exception):
    """A request fails with this code."""

    def __init__(self, code: int, *attributes: Attribute) -> None:
        super().__init__(code)
        self.code = code
        self.attributes = attributes


class TurnServer:
    """The allocations of one server.

    secret: makes and checks time-limited credentials, as `quice.turn.credentials` does for clients. clock: the time in
    seconds since 1970, which those count in.
    """

    def __init__(
        self,
        secret: str,
        policy: PeerPolicy,
        rng: Random,
        clock: Callable[[], float],
        limits: Limits,
    ) -> None:
        self.refused: Counter[int] = Counter()
        """How often a request has failed, by code."""
        self._secret = secret.encode()
        self._policy = policy
        self._clock = clock
        self._limits = limits
        self._nonces = Nonces(random_bytes(rng, 32))
        self._strangers = Strangers()
        self._allocations: dict[int, Granted] = {}
        self._by_client: dict[FiveTuple, Granted] = {}
        self._owners: Counter[str] = Counter()
        self._number = 0
        self._timers: list[tuple[float, int]] = []
        self._orders: deque[Order] = deque()
        self._answers: deque[Answer] = deque()
        self._opening: dict[int, tuple[Message, float, tuple[int, ...]]] = {}

    def __len__(self) -> int:
        """How many allocations there are."""
        return len(self._allocations)

    def challenge(self, host: str, now: float) -> tuple[str, bytes]:
        """Realm and nonce for clients on this host, who save a round trip if they have them beforehand."""
        return _REALM, self._nonces.make(Address(host, 0), now)

    def receive(self, data: bytes, client: FiveTuple, now: float) -> None:
        """Take in a request. What is none is ignored: data and indications are the data path's business."""
        try:
            request = Message.decode(data)
        except StunDecodeError:
            return
        if request.kind is not Kind.REQUEST or request.method not in _HANDLERS:
            return
        if not client.tcp:
            self._strangers.heard(client.client, len(data), now)
        try:
            username, owner, key = self._authenticate(request, client, now)
        except _RefusedError as refusal:
            self._challenge(request, client, refusal, now)
            return
        attempt = _Attempt(request, client, username, owner, key, now)
        try:
            if request.unknown_required:
                self._answer(client, responses.unknown_attributes(request, key))
                return
            _HANDLERS[request.method](self, attempt)
        except _RefusedError as refusal:
            self._refuse(attempt, refusal)

    def opened(self, number: int, relayed: Mapping[int, Address | int], now: float) -> None:
        """How an `Open` order went: for each family its relayed address, or the code that says why there is none."""
        granted = self._allocations[number]
        request, lifetime, families = self._opening.pop(number)
        attempt = _Attempt(request, granted.client, granted.username, granted.owner, granted.key, now)
        addresses = {family: one for family, one in relayed.items() if isinstance(one, Address)}
        errors = {family: one for family, one in relayed.items() if isinstance(one, int)}
        if not addresses:
            self._delete(granted)
            self._refuse(attempt, _RefusedError(errors[families[0]]))
            return
        for family, address in addresses.items():
            self._policy.own.add(address.ip)
            granted.relayed[family] = now + lifetime
        self._watch(granted, now + lifetime)
        attributes: list[Attribute] = [XorRelayedAddress(address) for address in addresses.values()]
        # RFC 8656 §7.2: of two addresses asked for, one is better than none.
        attributes += [AddressErrorCode(family, code) for family, code in errors.items()]
        attributes += [Lifetime(int(lifetime)), XorMappedAddress(granted.client.client)]
        granted.response = responses.success(request, *attributes, key=granted.key)
        self._answer(granted.client, granted.response)

    def gone(self, client: FiveTuple) -> None:
        """A client's TCP connection is closed: its allocation goes with it (RFC 8656 §3.1)."""
        granted = self._by_client.get(client)
        if granted is not None:
            self._delete(granted)

    def timeout(self) -> float | None:
        """When `handle_timeout` wants to be called next."""
        return self._timers[0][0] if self._timers else None

    def handle_timeout(self, now: float) -> None:
        """End what is due."""
        while self._timers and self._timers[0][0] <= now:
            _, number = heappop(self._timers)
            granted = self._allocations.get(number)
            if granted is None:
                continue
            orders = list(granted.expire(now))
            if granted.relayed:
                self._orders += orders
                self._watch(granted, granted.next_expiry())
            else:
                self._delete(granted)

    def events(self) -> Iterator[Order]:
        """What the data path is to do, each once."""
        while self._orders:
            yield self._orders.popleft()

    def transmits(self) -> Iterator[Answer]:
        """What is to be sent once the orders are carried out, each once."""
        while self._answers:
            yield self._answers.popleft()

    def _authenticate(self, request: Message, client: FiveTuple, now: float) -> tuple[str, str, bytes]:
        """RFC 8489 §9.2.4. Returns who it is: user name, owner and key."""
        if not request.has_integrity:
            raise _RefusedError(_UNAUTHENTICATED)
        username, realm, nonce = request.get(Username), request.get(Realm), request.get(Nonce)
        if username is None or realm is None or nonce is None:
            raise _RefusedError(_BAD_REQUEST)
        if not self._nonces.is_valid(nonce.value, client.client, now):
            raise _RefusedError(_STALE_NONCE)
        granted = self._by_client.get(client)
        if granted is not None and granted.username == username.value and request.verify(granted.key):
            # Not asked whether the credentials have expired meanwhile: who keeps an allocation up keeps it.
            return granted.username, granted.owner, granted.key
        owner, key = self._account(username.value)
        if not request.verify(key):
            raise _RefusedError(_UNAUTHENTICATED)
        return username.value, owner, key

    def _account(self, username: str) -> tuple[str, bytes]:
        """Whose time-limited credentials these are, and the key that they stand for."""
        expires, _, owner = username.partition(":")
        if not (expires.isascii() and expires.isdigit() and len(expires) <= 12) or int(expires) <= self._clock():
            raise _RefusedError(_UNAUTHENTICATED)
        password = base64.b64encode(hmac.digest(self._secret, username.encode(), "sha1")).decode()
        try:
            return owner, long_term_key(username, _REALM, password)
        except ValueError:
            raise _RefusedError(_UNAUTHENTICATED) from None

    def _allocate(self, attempt: _Attempt) -> None:
        """RFC 8656 §7.2."""
        request, client = attempt.request, attempt.client
        granted = self._by_client.get(client)
        if granted is not None:
            if granted.transaction_id != request.transaction_id:
                raise _RefusedError(_MISMATCH)
            if granted.response:
                self._answer(client, granted.response)
            return
        families = _families(request)
        if self._owners[attempt.owner] >= self._limits.of_one:
            raise _RefusedError(_QUOTA_REACHED)
        if len(self) >= self._limits.of_all:
            raise _RefusedError(INSUFFICIENT_CAPACITY)
        self._number += 1
        granted = Granted(self._number, client, attempt.username, attempt.owner, attempt.key, request.transaction_id)
        self._allocations[granted.number] = self._by_client[client] = granted
        self._owners[attempt.owner] += 1
        self._opening[granted.number] = (request, _lifetime(request), families)
        even = request.get(EvenPort) is not None
        self._orders.append(Open(granted.number, client, attempt.owner, families, even))

    def _refresh(self, attempt: _Attempt) -> None:
        """RFC 8656 §8.2."""
        granted = self._granted(attempt)
        asked = attempt.request.get(RequestedAddressFamily)
        families = list(granted.relayed) if asked is None else [asked.value]
        if any(family not in granted.relayed for family in families):
            raise _RefusedError(_PEER_FAMILY_MISMATCH)
        lifetime = _lifetime(attempt.request)
        for family in families:
            if lifetime:
                granted.relayed[family] = attempt.now + lifetime
            else:
                del granted.relayed[family]
                self._orders.append(CloseFamily(granted.number, family))
        if not granted.relayed:
            self._delete(granted)
        self._succeed(attempt, Lifetime(lifetime))

    def _create_permission(self, attempt: _Attempt) -> None:
        """RFC 8656 §10.2: all of the peers or none."""
        granted = self._granted(attempt)
        peers = [one.address for one in attempt.request.attributes if isinstance(one, XorPeerAddress)]
        if not peers:
            raise _RefusedError(_BAD_REQUEST)
        for peer in peers:
            self._check_peer(granted, peer)
        if len(granted.permissions.keys() | {peer.host for peer in peers}) > _MAX_PERMISSIONS:
            raise _RefusedError(INSUFFICIENT_CAPACITY)
        for peer in peers:
            self._permit(granted, peer, attempt.now)
        self._succeed(attempt)

    def _channel_bind(self, attempt: _Attempt) -> None:
        """RFC 8656 §12.2."""
        granted = self._granted(attempt)
        channel, named = attempt.request.get(ChannelNumber), attempt.request.get(XorPeerAddress)
        if channel is None or named is None or channel.value not in _CHANNELS or not named.address.port:
            raise _RefusedError(_BAD_REQUEST)
        number, peer = channel.value, named.address
        bound = granted.channels.get(number)
        if (bound is not None and bound[0] != peer) or granted.channel_of(peer) not in (None, number):
            raise _RefusedError(_BAD_REQUEST)
        self._check_peer(granted, peer)
        if bound is None and len(granted.channels) >= _MAX_CHANNELS:
            raise _RefusedError(INSUFFICIENT_CAPACITY)
        if peer.host not in granted.permissions and len(granted.permissions) >= _MAX_PERMISSIONS:
            raise _RefusedError(INSUFFICIENT_CAPACITY)
        self._permit(granted, peer, attempt.now)
        granted.channels[number] = (peer, attempt.now + CHANNEL_LIFETIME)
        self._watch(granted, attempt.now + CHANNEL_LIFETIME)
        if bound is None:
            self._orders.append(BindChannel(granted.number, number, peer))
        self._succeed(attempt)

    def _granted(self, attempt: _Attempt) -> Granted:
        """The allocation that a request is about (RFC 8656 §5)."""
        granted = self._by_client.get(attempt.client)
        if granted is None:
            raise _RefusedError(_MISMATCH)
        if granted.username != attempt.username:
            raise _RefusedError(_WRONG_CREDENTIALS)
        return granted

    def _check_peer(self, granted: Granted, peer: Address) -> None:
        if (IPV4 if peer.ip.version == 4 else IPV6) not in granted.relayed:
            raise _RefusedError(_PEER_FAMILY_MISMATCH)
        if not self._policy.allows(peer.ip):
            raise _RefusedError(_FORBIDDEN)

    def _permit(self, granted: Granted, peer: Address, now: float) -> None:
        if peer.host not in granted.permissions:
            self._orders.append(Permit(granted.number, peer.host))
        granted.permissions[peer.host] = now + PERMISSION_LIFETIME
        self._watch(granted, now + PERMISSION_LIFETIME)

    def _delete(self, granted: Granted) -> None:
        del self._allocations[granted.number]
        del self._by_client[granted.client]
        self._owners[granted.owner] -= 1
        if not self._owners[granted.owner]:
            del self._owners[granted.owner]
        self._orders.append(Delete(granted.number))

    def _watch(self, granted: Granted, when: float | None) -> None:
        # What is renewed meanwhile is looked at in vain: cheaper than to find its timer.
        if when is not None:
            heappush(self._timers, (when, granted.number))

    def _succeed(self, attempt: _Attempt, *attributes: Attribute) -> None:
        self._answer(attempt.client, responses.success(attempt.request, *attributes, key=attempt.key))

    def _refuse(self, attempt: _Attempt, refusal: _RefusedError) -> None:
        self.refused[refusal.code] += 1
        response = responses.error(attempt.request, refusal.code, *refusal.attributes, key=attempt.key)
        self._answer(attempt.client, response)

    def _challenge(self, request: Message, client: FiveTuple, refusal: _RefusedError, now: float) -> None:
        """Refuse somebody unknown: in few words, and not at all where that would be more than was said."""
        self.refused[refusal.code] += 1
        attributes: list[Attribute] = [ErrorCode(refusal.code)]
        if refusal.code != _BAD_REQUEST:
            attributes += [Realm(_REALM), Nonce(self._nonces.make(client.client, now))]
        response = Message(request.method, Kind.ERROR, request.transaction_id, tuple(attributes))
        data = response.encode(fingerprint=request.has_fingerprint)
        if client.tcp or self._strangers.may_answer(client.client, len(data), now):
            self._answer(client, data)

    def _answer(self, client: FiveTuple, data: bytes) -> None:
        self._answers.append(Answer(data, client))


@dataclass(frozen=True)
class _Attempt:
    """An authentic request."""

    request: Message
    client: FiveTuple
    username: str
    owner: str
    key: bytes = field(repr=False)
    now: float


_HANDLERS: dict[Method, Callable[[TurnServer, _Attempt], None]] = {
    Method.ALLOCATE: TurnServer._allocate,
    Method.REFRESH: TurnServer._refresh,
    Method.CREATE_PERMISSION: TurnServer._create_permission,
    Method.CHANNEL_BIND: TurnServer._channel_bind,
}


def _families(request: Message) -> tuple[int, ...]:
    """The families that an Allocate request wants relayed addresses of, if it is one that can be served (§7.2)."""
    transport, even = request.get(RequestedTransport), request.get(EvenPort)
    family, additional = request.get(RequestedAddressFamily), request.get(AdditionalAddressFamily)
    token = request.get(ReservationToken)
    if transport is None:
        raise _RefusedError(_BAD_REQUEST)
    if transport.value != _UDP:
        raise _RefusedError(_UNSUPPORTED_TRANSPORT)
    if token is not None and (even is not None or family is not None or additional is not None):
        raise _RefusedError(_BAD_REQUEST)
    if token is not None or (even is not None and even.reserve):
        # Pairs of ports are for RTP without multiplexing; none are kept here.
        raise _RefusedError(INSUFFICIENT_CAPACITY)
    if additional is not None and (family is not None or additional.value != IPV6):
        raise _RefusedError(_BAD_REQUEST)
    if additional is not None:
        return (IPV4, IPV6)
    if family is None:
        return (IPV4,)
    if family.value not in (IPV4, IPV6):
        raise _RefusedError(ADDRESS_FAMILY_NOT_SUPPORTED)
    return (family.value,)


def _lifetime(request: Message) -> int:
    """The seconds that a request gets: at least the default, unless it is zero (§7.2, §8.2)."""
    asked = request.get(Lifetime)
    if asked is None:
        return DEFAULT_LIFETIME
    return (
        0
        if request.method is Method.REFRESH and not asked.value
        else max(DEFAULT_LIFETIME, min(asked.value, _MAX_LIFETIME))
    )
