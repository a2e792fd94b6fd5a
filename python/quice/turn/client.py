"""The TURN client: one allocation at one server (RFC 8656)."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial

from quice.stun.attributes import (
    AlternateDomain,
    AlternateServer,
    Attribute,
    ChannelNumber,
    Data,
    Lifetime,
    StunDecodeError,
    XorPeerAddress,
)
from quice.stun.auth import LongTerm
from quice.stun.message import Kind, Message, Method
from quice.stun.transaction import Incomprehensible, Outcome, Refused, Succeeded, TimedOut, transaction_id
from quice.stun.transaction import Redirected as TryAlternate
from quice.turn import allocation as allocations
from quice.turn.allocation import AddressFamilies, Allocation
from quice.turn.channel import Channel, Channels, decode_channel_data, encode_channel_data, is_channel_data
from quice.turn.codes import Code, explain
from quice.turn.events import Allocated, Bound, Event, Failed, Lost, PermissionRefused, Received, Redirected, Unbound
from quice.turn.framing import framed
from quice.turn.permission import Permissions, batches
from quice.turn.requests import Requests
from quice.wire import Address, Random, Transmit

_PATIENCE = 4.0
"""Seconds that an answer may take once there is an allocation. It counts as gone after two Refresh requests without."""
_CHECK_PATIENCE = 1.75
"""Likewise when somebody waits to know."""
_RETRY = 5.0
"""Seconds until a server that had trouble of its own is asked again."""
_MAX_REDIRECTIONS = 3
# What else is tried when a server has no address of a family; what it has least trouble with comes first.
_INSTEAD = {AddressFamilies.BOTH: (AddressFamilies.IPV4, AddressFamilies.IPV6)}


class _State(enum.Enum):
    ALLOCATING = "allocating"
    ALLOCATED = "allocated"
    CLOSING = "closing"
    OVER = "over"


class Client:
    """One allocation at one server from one local address. See `quice.wire` for the contract.

    It begins to allocate at once, and keeps up what it was given until `close`. `permit` and `bind` may be called at
    any time before that: the requests go out as soon as the server's nonce is known, behind the Allocate request.
    Over a stream (`reliable`), each of `transmits` is to be written as it is, and `receive` is given one message at a
    time, as `quice.turn.framing.Splitter` yields them.
    """

    def __init__(
        self,
        server: Address,
        source: Address,
        credentials: LongTerm,
        rng: Random,
        now: float,
        *,
        families: AddressFamilies = AddressFamilies.IPV4,
        lifetime: float = 600.0,
        reliable: bool = False,
    ) -> None:
        """`credentials`: with realm and nonce, if another client of the server has learned them; a request is saved.

        families: of which relayed addresses are wanted. With both, one is enough.
        """
        self.allocation: Allocation | None = None
        """What the server has given, while it is there."""
        self._rng = rng
        self._requests = Requests(source, server, credentials, rng, reliable=reliable)
        self._families = families
        self._instead = list(_INSTEAD.get(families, ()))
        self._lifetime = lifetime
        self._reliable = reliable
        # A nonce that was brought along may be one the server knows nothing of.
        self._own_nonce = not credentials.nonce
        self._state = _State.ALLOCATING
        self._goes_ahead = True
        """Whether requests for channels and permissions follow behind an Allocate request that is under way."""
        self._visited = [server]
        self._channels = Channels()
        self._permissions = Permissions()
        self._refresh_at: float | None = None
        self._checking = False
        self._events: deque[Event] = deque()
        self._allocate(now)

    @property
    def server(self) -> Address:
        """The server that is asked: another than at first, after a redirection."""
        return self._requests.server

    @property
    def source(self) -> Address:
        """The local address."""
        return self._requests.source

    @property
    def credentials(self) -> LongTerm:
        """With what the server has said so far, for the next client of it."""
        return self._requests.credentials

    @property
    def heard(self) -> float:
        """When the server last answered a request."""
        return self._requests.heard

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to be sent or waited for: it failed, was lost, or closed and released."""
        return self._state is _State.OVER or (self._state is _State.CLOSING and not self._requests)

    def permit(self, hosts: str | Iterable[str | Address], now: float) -> None:
        """Let datagrams of these IP addresses through, from any of their ports, until `forget`.

        Raises `ValueError` for what is no IP address.
        """
        named = [hosts] if isinstance(hosts, str) else hosts
        self._permissions.want([_host(each) for each in named])
        self._ask_waiting(now)

    def forget(self, hosts: str | Iterable[str | Address]) -> None:
        """Do not renew these permissions: they end within five minutes."""
        named = [hosts] if isinstance(hosts, str) else hosts
        self._permissions.drop([_host(each) for each in named])

    def bind(self, peer: Address, now: float) -> int:
        """Have a channel to this peer, until `unbind`; returns its number. What is sent may follow at once.

        It includes the permission. Raises `OverflowError` when no number is left, and `ValueError` for what is no
        address to send to.
        """
        if not 0 < peer.port < 1 << 16:
            raise ValueError(f"{peer} is no address to send to")
        channel = self._channels.open(Address(_host(peer), peer.port), now)
        self._ask_waiting(now)
        return channel.number

    def unbind(self, peer: Address) -> None:
        """Do not keep up this peer's channel: it ends within ten minutes, and its number is free in fifteen."""
        if (channel := self._channels.of(Address(_host(peer), peer.port))) is not None:
            channel.unbind()

    def send(self, data: bytes, peer: Address, now: float) -> bool:
        """Relay a datagram; returns whether that was possible, without a promise that it arrives.

        It goes through the peer's channel if there is one, else as a Send indication, for which the peer needs
        a permission. Raises `ValueError` for one that is too long.
        """
        if self._state not in (_State.ALLOCATING, _State.ALLOCATED):
            return False
        channel = self._channels.of(peer)
        if channel is not None and channel.carries_data:
            message = encode_channel_data(channel.number, data)
        elif self._state is _State.ALLOCATED:
            identifier = transaction_id(self._rng)
            attributes = (XorPeerAddress(peer.without_zone), Data(data))
            message = Message(Method.SEND, Kind.INDICATION, identifier, attributes).encode()
        else:
            return False
        message = framed(message) if self._reliable else message
        self._requests.outgoing.append(Transmit(message, self.source, self.server))
        return True

    def check(self, now: float) -> None:
        """Find out whether the allocation is still there: if not, `Lost` tells within seconds, else `heard` does."""
        if self._state is _State.ALLOCATED and not self._checking:
            self._checking = True
            self._refresh(now, patience=_CHECK_PATIENCE)

    def close(self, now: float) -> None:
        """Release the allocation. No events come any more; what is left to send should be sent, `is_over` or not."""
        if self._state not in (_State.ALLOCATING, _State.ALLOCATED):
            return
        self._events.clear()
        if self._state is _State.ALLOCATED:
            self._requests.abandon()
        elif not self.credentials.nonce:
            self._end()
            return
        # An Allocate request under way may succeed yet: this one follows behind it, and once it has, there is another.
        self._state = _State.CLOSING
        self._release(now)

    def receive(self, data: bytes, source: Address, destination: Address, now: float) -> bool:
        """Take in a datagram, or a message of the stream; returns whether it was the server's, for this client."""
        if source != self.server or destination != self.source:
            return False
        if is_channel_data(data):
            self._receive_channel_data(data)
            return True
        if self._requests.receive(data, source, destination, now):
            self._ask_waiting(now)
            return True
        return self._receive_indication(data)

    def timeout(self) -> float | None:
        """When `handle_timeout` wants to be called next."""
        times = [self._requests.timeout()]
        if self._state is _State.ALLOCATED:
            times += (self._refresh_at, self._channels.next_time(), self._permissions.next_time())
        return min((time for time in times if time is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        """Send again what was not answered, and refresh what would expire."""
        self._requests.handle_timeout(now)
        if self._state is not _State.ALLOCATED:
            return
        if self._refresh_at is not None and self._refresh_at <= now:
            self._refresh(now)
        for channel in self._channels.due(now):
            self._ask_channel(channel, now)
        due = self._permissions.due(now)
        # Binding a channel again renews its permission.
        covered = {host for host in due if self._channels.reaches(host)}
        self._permissions.grant(covered, now)
        self._ask_permissions([host for host in due if host not in covered], now)

    def transmits(self) -> Iterator[Transmit]:
        """What is to be sent, each once, in order."""
        while self._requests.outgoing:
            yield self._requests.outgoing.popleft()

    def events(self) -> Iterator[Event]:
        """What has happened, each once."""
        while self._events:
            yield self._events.popleft()

    # The allocation.

    def _allocate(self, now: float) -> None:
        attributes = allocations.request(self._families, self._lifetime, self.server)
        self._requests.ask(Method.ALLOCATE, attributes, self._on_allocate, now)

    def _on_allocate(self, outcome: Outcome, now: float) -> None:
        if self._state is _State.CLOSING:
            if isinstance(outcome, Succeeded):
                self._release(now)
        elif isinstance(outcome, Succeeded):
            self._take(outcome.response, now)
        elif isinstance(outcome, TimedOut):
            self._fail(None, _silence(outcome))
        elif isinstance(outcome, TryAlternate):
            self._follow(outcome.server, outcome.domain, outcome.response, now)
        elif isinstance(outcome, Incomprehensible):
            self._fail(None, "the relay's answer can't be understood. Check that it is a TURN server")
        else:
            self._on_refused_allocate(outcome.response, now)

    def _on_refused_allocate(self, response: Message, now: float) -> None:
        code = response.error.code
        alternate = response.get(AlternateServer)
        if code == Code.TRY_ALTERNATE and alternate is not None and not self.credentials.nonce:
            # RFC 8489 §14.8 wants a 300 signed; coturn sends it before it can. The other server has to sign its
            # answer with the password's key, so that who forges this gains nothing but that it fails.
            domain = response.get(AlternateDomain)
            self._follow(alternate.address, domain.value if domain is not None else None, response, now)
        elif code == Code.UNAUTHENTICATED and not self._own_nonce:
            self._own_nonce = True
            self._requests.credentials = _bare(self.credentials)
            self._allocate(now)
        elif code == Code.ADDRESS_FAMILY_NOT_SUPPORTED and self._instead:
            self._families = self._instead.pop(0)
            self._allocate(now)
        else:
            self._fail(code, explain(code, response.error.reason))

    def _take(self, response: Message, now: float) -> None:
        allocation = allocations.read(response, self._lifetime, now)
        if allocation is None:
            self._fail(None, "the relay gives no address that can be used. Check how it is configured")
            return
        self._state = _State.ALLOCATED
        self.allocation = allocation
        self._refresh_at = now + allocation.refresh_after
        self._events.append(Allocated(allocation.relayed, allocation.mapped, allocation.lifetime))

    def _follow(self, server: Address, domain: str | None, response: Message, now: float) -> None:
        """Allocate at the server that a 300 names (RFC 8489 §10), unless that leads nowhere or in a circle."""
        if server in self._visited or len(self._visited) > _MAX_REDIRECTIONS or not _may_lead(self.server, server):
            self._fail(Code.TRY_ALTERNATE, explain(Code.TRY_ALTERNATE, response.error.reason))
            return
        self._visited.append(server)
        self._requests.move(server, _bare(self.credentials))
        self._own_nonce = True
        self._channels.postpone()
        self._permissions.postpone()
        self._events.append(Redirected(server, domain))
        self._allocate(now)

    def _refresh(self, now: float, patience: float = _PATIENCE, *, again: bool = True) -> None:
        """Refresh. `again`: whether once more, with other retransmissions, before the server counts as silent."""
        self._refresh_at = None
        then = partial(self._on_refresh, now, patience, again)
        self._requests.ask(Method.REFRESH, (Lifetime(int(self._lifetime)),), then, now, patience=patience)

    def _on_refresh(self, asked: float, patience: float, again: bool, outcome: Outcome, now: float) -> None:
        if self.allocation is None or self._state is not _State.ALLOCATED:
            return
        if isinstance(outcome, TimedOut) and again:
            self._refresh(now, patience, again=False)
            return
        self._checking = False
        if isinstance(outcome, Succeeded):
            lifetime = allocations.granted(outcome.response, self._lifetime)
            self.allocation = replace(self.allocation, lifetime=lifetime, expires=now + lifetime)
            self._refresh_at = now + self.allocation.refresh_after
        elif isinstance(outcome, TimedOut):
            if self.heard > asked:
                self._refresh_at = now
            else:
                self._lose(_silence(outcome))
        elif outcome.response.error.code >= Code.SERVER_ERROR and now + _RETRY < self.allocation.expires:
            self._refresh_at = now + _RETRY
        else:
            error = outcome.response.error
            self._lose(explain(error.code, error.reason), error.code)

    def _release(self, now: float) -> None:
        self._requests.ask(Method.REFRESH, (Lifetime(0),), lambda *_: None, now, patience=_PATIENCE)

    def _end(self) -> None:
        self._state = _State.OVER
        self.allocation = None
        self._requests.drop()

    def _fail(self, code: int | None, reason: str) -> None:
        self._end()
        self._events.append(Failed(code, reason))

    def _lose(self, reason: str, code: int | None = None) -> None:
        self._end()
        self._events.append(Lost(reason, code))

    # Permissions and channels.

    def _ask_waiting(self, now: float) -> None:
        """Ask for what waits to be asked for, once the server's nonce is known.

        While the Allocate request is under way, this follows right behind it, to save a round trip.
        """
        may = self._state is _State.ALLOCATED or (
            self._state is _State.ALLOCATING and self._goes_ahead and self.credentials.nonce
        )
        if not may:
            return
        for channel in self._channels.waiting():
            self._ask_channel(channel, now)
        self._ask_permissions(self._permissions.waiting(), now)

    def _ask_channel(self, channel: Channel, now: float) -> None:
        channel.ask(now)
        attributes: tuple[Attribute, ...] = (ChannelNumber(channel.number), XorPeerAddress(channel.peer))
        early = self._state is _State.ALLOCATING
        then = partial(self._on_bind, channel, early)
        self._requests.ask(Method.CHANNEL_BIND, attributes, then, now, patience=_PATIENCE)

    def _on_bind(self, channel: Channel, early: bool, outcome: Outcome, now: float) -> None:
        if isinstance(outcome, Succeeded):
            self._permissions.grant([channel.peer.host], now)
            if channel.confirm(now):
                self._tell(Bound(channel.peer, channel.number))
        elif (refusal := self._refusal(outcome, early, now)) is not None:
            was_kept = channel.carries_data
            channel.unbind()
            if was_kept:
                reason = explain(refusal.error.code, refusal.error.reason)
                self._tell(Unbound(channel.peer, channel.number, refusal.error.code, reason))
        else:
            channel.postpone()

    def _ask_permissions(self, hosts: Iterable[str], now: float) -> None:
        for batch in batches(hosts):
            self._ask_batch(batch, now)

    def _ask_batch(self, hosts: list[str], now: float) -> None:
        self._permissions.ask(hosts)
        attributes = tuple(XorPeerAddress(Address(host, 0)) for host in hosts)
        early = self._state is _State.ALLOCATING
        then = partial(self._on_permission, hosts, early)
        self._requests.ask(Method.CREATE_PERMISSION, attributes, then, now, patience=_PATIENCE)

    def _on_permission(self, hosts: list[str], early: bool, outcome: Outcome, now: float) -> None:
        if isinstance(outcome, Succeeded):
            self._permissions.grant(hosts, now)
        elif (refusal := self._refusal(outcome, early, now)) is None:
            self._permissions.postpone(hosts)
        elif len(hosts) > 1:
            # One of them was refused, and none permitted (RFC 8656 §10.2): which, each alone will show.
            for host in hosts:
                if host in self._permissions:
                    self._ask_batch([host], now)
        elif hosts[0] in self._permissions:
            self._permissions.drop(hosts)
            reason = explain(refusal.error.code, refusal.error.reason)
            self._tell(PermissionRefused(hosts[0], refusal.error.code, reason))

    def _refusal(self, outcome: Outcome, early: bool, now: float) -> Message | None:
        """The response that refuses a channel or permission; None when it has to be asked for again, or all is lost.

        early: whether it was asked for before the allocation was there.
        """
        if isinstance(outcome, TimedOut):
            self.check(now)
            return None
        if isinstance(outcome, (Refused, TryAlternate, Incomprehensible)):
            if outcome.response.error.code != Code.ALLOCATION_MISMATCH:
                return outcome.response
            if early:
                # It has come before the Allocate request.
                self._goes_ahead = False
            elif self._state is _State.ALLOCATED:
                self._lose(explain(Code.ALLOCATION_MISMATCH, outcome.response.error.reason))
        return None

    def _tell(self, event: Event) -> None:
        if self._state in (_State.ALLOCATING, _State.ALLOCATED):
            self._events.append(event)

    # What comes from peers.

    def _receive_channel_data(self, message: bytes) -> None:
        decoded = decode_channel_data(message)
        if decoded is not None and self._state is _State.ALLOCATED:
            number, data = decoded
            channel = self._channels.numbered(number)
            # One that was asked for is bound before we hear so, and one that is not kept up is bound for a while.
            if channel is not None and channel.asked_at is not None:
                self._events.append(Received(data, channel.peer))

    def _receive_indication(self, data: bytes) -> bool:
        try:
            message = Message.decode(data)
        except StunDecodeError:
            return False
        if message.method is not Method.DATA or message.kind is not Kind.INDICATION:
            return False
        peer, content = message.get(XorPeerAddress), message.get(Data)
        # RFC 8656 §11.4: without Data it tells of an ICMP message. Nothing may come from where nobody is permitted.
        if peer is not None and content is not None and self._expects(peer.address):
            self._events.append(Received(content.value, peer.address))
        return True

    def _expects(self, peer: Address) -> bool:
        if self._state is not _State.ALLOCATED:
            return False
        return peer.host in self._permissions or self._channels.reaches(peer.host)


def _bare(credentials: LongTerm) -> LongTerm:
    """Without what a server has said."""
    return LongTerm(credentials.username, credentials.password)


def _host(named: str | Address) -> str:
    """An IP address in the text that the codec writes. Raises `ValueError` for what is none."""
    address = Address(named, 0) if isinstance(named, str) else named
    return str(address.without_zone.ip)


def _silence(outcome: TimedOut) -> str:
    if outcome.integrity_violated:
        return "the relay's answers are not signed with this password. Check user name and password"
    return "the relay does not answer. Check its address and port; where a network lets no UDP out, use TCP or TLS"


def _may_lead(here: Address, there: Address) -> bool:
    """Whether a server may send its clients to another: of its own family (RFC 8489 §10), where packets can go, and not
    in a network of theirs if it is not in one itself."""
    ours, other = here.without_zone.ip, there.without_zone.ip
    if ours.version != other.version or not there.port or other.is_multicast or other.is_unspecified:
        return False
    is_closer = other.is_loopback > ours.is_loopback or other.is_link_local > ours.is_link_local
    return not is_closer and there.is_private <= here.is_private
