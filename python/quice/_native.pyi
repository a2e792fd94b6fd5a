"""The QUIC engine: noq-proto and noq-udp, bound in Rust. Inside quice only; its public face is `quice.Endpoint`.

Nothing here blocks, and nothing needs asyncio. Addresses are `(host, port)`; a link-local host carries its
zone. Bytes go in by the buffer protocol. Stream ids are those of RFC 9000 §2.1.
"""

import os
from typing import ClassVar, Protocol

from typing_extensions import Buffer

Address = tuple[str, int]

class Settings(Protocol):
    """What `Engine` reads of its settings; `quice.TransportConfig` has it."""

    @property
    def idle_timeout(self) -> float: ...
    @property
    def keep_alive(self) -> float | None: ...
    @property
    def stream_window(self) -> int: ...
    @property
    def connection_window(self) -> int: ...
    @property
    def send_window(self) -> int: ...
    @property
    def max_streams(self) -> int: ...
    @property
    def datagram_buffer(self) -> int: ...
    @property
    def path_idle_timeout(self) -> float: ...
    @property
    def path_keep_alive(self) -> float: ...
    @property
    def nat_traversal(self) -> bool: ...
    @property
    def qlog_dir(self) -> str | os.PathLike[str] | None: ...

class StreamReset(Exception):  # noqa: N818
    """The peer reset the stream; `args[0]` is its code."""

class StreamStopped(Exception):  # noqa: N818
    """The peer reads no more of the stream; `args[0]` is its code."""

class StreamClosed(Exception):  # noqa: N818
    """This half of the stream is over: finished, reset or stopped by us, or never opened."""

class ConnectionGone(Exception):  # noqa: N818
    """The connection is closed, or drained and its handle means nothing any more."""

class RaceWon(Exception):  # noqa: N818
    """Another attempt of the race is a connection already."""

class DatagramRefused(Exception):  # noqa: N818
    """The datagram is too large now, or the peer takes none."""

class PathRefused(Exception):  # noqa: N818
    """What was asked of a path can't be: the peer speaks no multipath, the path is closed or the last one, or the
    connection was accepted and its client alone opens paths."""

class NatTraversalRefused(Exception):  # noqa: N818
    """What was asked of NAT traversal can't be: it is not on at both sides, there are too many addresses (the peer
    takes eight) or none, or the connection was accepted and its client alone starts rounds."""

class Credentials:
    """Who an endpoint is."""

    @staticmethod
    def raw_key(seed: bytes) -> Credentials:
        """An Ed25519 seed (32 bytes): raw public keys in both directions (RFC 7250)."""

    @staticmethod
    def x509(chain: list[bytes], key: bytes, roots: list[bytes]) -> Credentials:
        """A DER certificate chain with its PKCS #8 key to serve with, and DER roots to trust as a client."""

class Engine:
    """An endpoint's QUIC. With `sockets`, datagrams travel through the sockets that `bind` makes, on the
    system's clock; without, they go in by `receive` and come out of `transmits`, on the caller's clock."""

    def __init__(
        self,
        credentials: Credentials,
        alpns: list[bytes],
        settings: Settings,
        *,
        sockets: bool,
        seed: bytes | None = None,
        reserved_streams: int = 0,
    ) -> None:
        """`alpns`: what we answer to as a server, the preferred first; with none, connections are not accepted.
        `reserved_streams`: bidirectional streams that a client may open beside `max_streams`. `seed`: 32 bytes to draw
        everything random from, keys included, so that the same inputs at the same times give the same datagrams;
        in memory and with raw keys only, as it is no secret.
        Raises `ValueError` for settings out of range, keys that are none and seeds where they don't belong."""

    def bind(self, host: str, port: int) -> tuple[int, Address]:
        """Bind a UDP socket; returns its descriptor, to watch for reading, and its address. In memory: note an
        address of ours, whose port events and paths then show; returns -1 and the address, port 0 replaced by
        the first that is free. Raises `OSError`."""

    @property
    def news_fd(self) -> int:
        """Becomes readable when events wait that no socket or timer announces."""

    def pump(
        self, now: float | None = None, *, receive: bool = True, hold: bool = False
    ) -> tuple[list[Event], float | None, bool, bool]:
        """Move packets, timers and events, for about a millisecond at most, without the GIL. `receive` False
        leaves the sockets alone: the caller knows that they are not readable. `hold` leaves acknowledgements to
        the next pump when the events are such that an application answers: both then share a datagram.

        Returns the events; the time until the next pump is due (with sockets, seconds from now; in memory with
        `now`, a time on the caller's clock at which something will be due); whether to pump again at once; whether
        to pump when the sockets are writable."""

    def connect(
        self,
        remote: Address,
        alpns: list[bytes],
        *,
        peer: bytes | None = None,
        name: str = "",
        local: str | None = None,
        race: int | None = None,
        initial_id: bytes | None = None,
    ) -> Connection:
        """Start a handshake with the holder of the key `peer` or, with X.509, of a certificate for `name`,
        sending from the address `local` until an answer shows another. `alpns`: what to offer, the preferred first.

        Connections with one number as their `race` are attempts at the same thing on different addresses. The first
        to be established wins: the others get `Event.Lost` with `Loss.Outraced` at once, before any of them lets
        its server finish the handshake, and `Event.Drained` when they are gone; their servers are told. Attempts
        may join until then. The number is free for another race when all its connections are drained.

        `initial_id`: 8 to 20 bytes that no two attempts share, the first packet's destination connection id, random if
        not given. The server is told of it (`Event.Connected.initial_id`), and so is whoever is between.

        `local` may be the host of a relay: then all goes through it, if `remote` has a channel there.

        Raises `OSError` when it can't begin, `RaceWon` when it is too late to join the race, `ValueError` for a
        host that is no IP address and an initial_id of another length."""

    def expect(self, tag: bytes) -> None:
        """Handshakes whose first destination connection id begins with these 8 bytes are expected: they need not prove
        their address first, however many others are under way."""

    def expect_no_more(self, tag: bytes) -> None:
        """They are not any more."""

    def connection(self, id: int) -> Connection:
        """A handle for the connection that an event names."""

    def send(self, data: Buffer, destination: Address, source: str | None = None) -> None:
        """Send one datagram that is not QUIC, from the local address `source` if given. It may get lost. From a relay's
        host it goes in ChannelData, or is dropped if the destination has no channel there."""

    def add_relay(self, server: Address, *, local: str | None = None, stream: bool = False) -> str:
        """Have a relay, behind the TURN server at `server`, to which we send from the address `local` if given. Returns
        a host of this engine alone, which no other relay of it had or will have: packets that leave from there go
        through the relay, and those that the server passes on come to there.

        From then on, what comes from the server and starts like ChannelData is taken for that (RFC 9443 §3), and STUN
        from the server for the layer above, as ever. With `stream` the server is reached over TCP or TLS, whose bytes
        go out by `Event.RelayOutput` and in by `receive_stream`."""

    def remove_relay(self, host: str) -> None:
        """Have it no more. What is still sent from its host is dropped, and paths from there must be closed."""

    def bind_channel(self, host: str, peer: Address, channel: int) -> None:
        """From now on packets to `peer` carry this channel number, and what comes with it is from that peer. Raises
        `ValueError` for a relay that is not there, and a number that is none (RFC 8656 §12)."""

    def unbind_channel(self, host: str, peer: Address) -> None:
        """Send nothing more to this peer, and take nothing from it. One that has no channel has none afterwards."""

    def receive_relayed(self, host: str, peer: Address, data: Buffer, now: float | None = None) -> None:
        """Take in what `peer` sent through a relay and came in a Data indication, in memory at the time `now`. Pump
        afterwards."""

    def receive_stream(self, host: str, data: Buffer, now: float | None = None) -> None:
        """Take in bytes from the server of a relay with a stream, cut anywhere; in memory at the time `now`. STUN of
        the server comes as `Event.Packet` from the server's address. After something that is no message nothing more
        is understood, and the server's answers stay away. Pump afterwards."""

    def set_relay_congested(self, host: str, congested: bool) -> None:
        """While a stream takes no more, drop what QUIC sends over it, as a full socket buffer would: QUIC slows down
        and sends it again. Raises `ValueError` for a relay that is not there or has no stream."""

    def relay_drops(self) -> tuple[int, int, int]:
        """Datagrams dropped at relays so far: from a server, as their channel is not bound or they are cut off; to a
        peer without a channel or from a host that is no relay any more; while a stream took no more."""

    def receive(self, data: Buffer, source: Address, destination: str, now: float) -> None:
        """In memory: take in a datagram that came to the local address `destination`."""

    def transmits(self) -> list[tuple[bytes, str | None, Address]]:
        """In memory: the datagrams sent since the last call, as (data, local host or None, destination)."""

    def drops(self) -> tuple[int, int]:
        """Datagrams dropped so far: of no protocol of ours or too large, and STUN beyond what was fetched in time."""

    def close(self) -> None:
        """Close the sockets at once; connections that are still open are abandoned."""

class Connection:
    """A handle to a connection. It owns nothing. Every method raises `ConnectionGone` once it is drained; once it
    is closed, whoever did that, all but `close`, `paths`, `stats` and the reading of what has come before."""

    @property
    def id(self) -> int: ...
    def open(self, *, unidirectional: bool) -> int | None:
        """Open a stream. None while the peer allows no more: `Event.StreamsAvailable` will follow."""

    def read(self, stream: int, limit: int) -> bytes | None:
        """Up to `limit` bytes; b"" at the end, None for nothing yet: `Event.Readable` will follow.
        Raises `StreamReset`, and `StreamClosed` after the end."""

    def readinto(self, stream: int, buffer: Buffer) -> int | None:
        """Like `read`, into `buffer`; 0 at the end."""

    def write(self, stream: int, buffer: Buffer, offset: int) -> int:
        """How many bytes of `buffer` from `offset` on were taken; less than all: `Event.Writable` will follow.
        Raises `StreamStopped` and `StreamClosed`."""

    def finish(self, stream: int) -> None:
        """End our half after what was written. Raises `StreamStopped` and `StreamClosed`."""

    def reset(self, stream: int, code: int) -> None:
        """Abandon our half (RESET_STREAM). Raises `StreamClosed`."""

    def stop(self, stream: int, code: int) -> None:
        """Ask the peer to abandon its half (STOP_SENDING). Raises `StreamClosed`."""

    def release(self, stream: int) -> bool:
        """Give up a stream that nobody can use any more: finish our half, stop the peer's. Returns whether there is
        something to send for it."""

    def priority(self, stream: int) -> int: ...
    def set_priority(self, stream: int, priority: int) -> None: ...
    def send_datagram(self, data: Buffer) -> bool:
        """False while the buffer is full: `Event.DatagramsUnblocked` will follow. Raises `DatagramRefused`."""

    def receive_datagram(self) -> bytes | None:
        """None for nothing yet: `Event.DatagramReceived` will follow."""

    def max_datagram_size(self) -> int | None: ...
    def close(self, code: int, reason: bytes) -> None: ...
    def multipath(self) -> bool:
        """Whether both sides speak multipath (draft-ietf-quic-multipath); False before the handshake is over."""

    def open_path(self, remote: Address, local: str | None = None, *, backup: bool) -> int | None:
        """As the client, open a path to `remote`, sending from `local` if given, which may be a relay's host. There may
        be several to one remote if each has a `local` of its own. Returns its id, which is never used
        again; None when none can be opened now, as the peer allows four at once, and none before its
        connection ids for them arrive just after the handshake: ask again later.
        `Event.PathOpened` follows on both sides when it is validated, or `Event.PathLost`. Raises `PathRefused`, and
        `ValueError` for addresses between which there can be no path."""

    def move_path(self, path: int, remote: Address, local: str) -> None:
        """Let a path go on between other ends, which checks have found to reach each other, and close all others; the
        engine goes on as if nothing had changed. For a path that has been silent: what was lost shows at once. Raises
        `PathRefused` when there is no such path, and `ConnectionGone`."""

    def moved_from(self, remote: Address, local: str) -> int | None:
        """The path that was between these ends before `move_path`, and is so yet to the engine: it can be moved back,
        and none be opened there. Raises `ConnectionGone`."""

    def relocate(self, remote: Address, local: str) -> None:
        """As the server: let the client go on between these ends, which checks have found to reach each other. What
        comes to another local address than a path's own is dropped otherwise. Raises `ConnectionGone`."""

    def silence(self) -> float:
        """For how many seconds something has waited for an answer, on any path, while none has come on any; 0 when
        nothing waits. Raises `ConnectionGone`."""

    def nudge(self) -> None:
        """After a silence: have something answered at once, which shows what was lost. Raises `ConnectionGone`."""

    def set_path_status(self, path: int, *, backup: bool) -> None:
        """Send data over a path, or as a backup only while no validated path is available. With several available
        ones, the failure of one costs seconds instead of less than one. The peer is told, with
        `Event.PathStatus`. A server does as its client, until it sets a status of its own; a client does not follow.
        Raises `PathRefused`."""

    def close_path(self, path: int) -> None:
        """Give up a path; what was lost on it goes over another. Raises `PathRefused`, also for the last one."""

    def ping_path(self, path: int) -> None:
        """Have the peer acknowledge something on this path. While there are several, each side does so by itself: on a
        path that was quiet for `path_keep_alive`; and on all, ten times within `path_idle_timeout`, as long as
        something that was sent on one of them is not answered. Raises `PathRefused`."""

    def add_nat_traversal_address(self, address: Address) -> None:
        """Name one of our addresses to the peer: as the server at once, which is `Event.AddressAdded` to the client;
        as the client with the next round. Raises `NatTraversalRefused`."""

    def remove_nat_traversal_address(self, address: Address) -> None:
        """Take an address back. Raises `NatTraversalRefused`."""

    def initiate_nat_traversal_round(self) -> list[Address]:
        """As the client, have both sides probe each other's addresses, nine times within four seconds; ends the round
        before. Each address that answers becomes a backup path, with `Event.PathOpened`. Returns those that we probe.

        Only addresses of the family of the connection's paths are probed, and of IPv6 alone if there is a path of
        both. Not probed are loopback, unless the connection runs over it, multicast, broadcast, unspecified and
        reserved addresses, IPv4 addresses written as IPv6, link-local ones of another link than a path's, and the
        metadata services of clouds; and no more than 50 times in a second all in all. What was not sent is counted
        in `stats()["refused_probes"]`. Raises `NatTraversalRefused`."""

    def paths(self) -> list[dict[str, object]]:
        """Each path: id, status ("available" or "backup"), validated, local and remote address (a relay's host has port
        0), rtt in seconds, mtu, congestion_window, sent_packets, lost_packets, sent_bytes, received_bytes."""

    def stats(self) -> dict[str, int]:
        """sent_datagrams, sent_bytes, received_datagrams, received_bytes, sent_packets, lost_packets,
        lost_bytes, acks_received, refused_probes."""

class Loss:
    """Why a connection was lost."""

    ClosedByApplication: ClassVar[Loss]
    ClosedByPeer: ClassVar[Loss]
    Failed: ClassVar[Loss]
    TimedOut: ClassVar[Loss]
    Reset: ClassVar[Loss]
    NoCommonVersion: ClassVar[Loss]
    Outraced: ClassVar[Loss]

class PathLoss:
    """Why a path was given up."""

    Closed: ClassVar[PathLoss]
    ClosedByPeer: ClassVar[PathLoss]
    TimedOut: ClassVar[PathLoss]
    NetworkChanged: ClassVar[PathLoss]

class Event:
    """What happened. Each is an instance of one of the classes inside this one."""

    class Connected(Event):
        connection: int
        accepted: bool
        initial_id: bytes | None
        """Of an accepted one: what its client chose as `initial_id`."""

        peer: bytes | None
        alpn: bytes

    class Lost(Event):
        connection: int
        loss: Loss
        code: int
        reason: str

    class Opened(Event):
        connection: int
        stream: int

    class Readable(Event):
        connection: int
        stream: int

    class Writable(Event):
        connection: int
        stream: int

    class Stopped(Event):
        connection: int
        stream: int
        code: int

    class StreamsAvailable(Event):
        connection: int
        unidirectional: bool

    class DatagramReceived(Event):
        connection: int

    class DatagramsUnblocked(Event):
        connection: int

    class PathOpened(Event):
        """A path beside the first is validated and can carry data."""

        connection: int
        path: int
        remote: Address

    class PathLost(Event):
        connection: int
        path: int
        reason: PathLoss

    class PathStatus(Event):
        """The peer has given a path a status (see `set_path_status`)."""

        connection: int
        path: int
        backup: bool

    class AddressAdded(Event):
        """The server has named an address for NAT traversal."""

        connection: int
        address: Address

    class AddressRemoved(Event):
        connection: int
        address: Address

    class Drained(Event):
        connection: int

    class Packet(Event):
        """A datagram that is not QUIC. Through a relay it came from the peer, to the relay's host and port 0."""

        data: bytes
        source: Address
        destination: Address

    class RelayOutput(Event):
        """Bytes for the server of a relay with a stream: whole messages, in order."""

        host: str
        data: bytes

FiveTuple = tuple[Address, Address, bool]
"""A client's address, the server's that it is reached by, and whether it is over TCP."""

class Relay:
    """The data path of a TURN server: a thread that owns the sockets, and forwards what commands have allowed.

    Commands take effect in the order of their calls, soon after; what they refer to and is gone is ignored. Hosts
    that are no IP addresses raise `ValueError`.
    """

    def __init__(self, rate: float | None, allowed: list[tuple[str, int]]) -> None:
        """`rate`: bytes a second that all allocations of one owner may have carried, None for any number. `allowed`:
        networks, as address and prefix length, in which protected addresses may be reached all the same."""

    @property
    def news_fd(self) -> int:
        """Becomes readable when `take` has something."""

    def listen(self, host: str, port: int, tcp: bool) -> Address:
        """Serve clients on a local address. Raises OSError."""

    def protect(self, hosts: list[str], ports: list[int]) -> None:
        """Send nothing to these addresses but what is for a relayed address on them, or if they are allowed; and even
        then nothing to these ports."""

    def open(self, allocation: int, client: FiveTuple, owner: str) -> None: ...
    def relay(self, allocation: int, host: str, port: int, public: str) -> Address:
        """Bind a relayed address, whose host peers see as `public`; returns it as they see it. Raises OSError."""

    def unrelay(self, allocation: int, ipv6: bool) -> None: ...
    def delete(self, allocation: int) -> None: ...
    def permit(self, allocation: int, host: str) -> None: ...
    def forbid(self, allocation: int, host: str) -> None: ...
    def bind_channel(self, allocation: int, number: int, peer: Address) -> None: ...
    def unbind_channel(self, allocation: int, number: int) -> None: ...
    def send(self, data: Buffer, client: FiveTuple) -> None:
        """Answer a client. It may get lost."""

    def take(self) -> list[tuple[bytes | None, FiveTuple]]:
        """The requests that came since the last call; None for a connection that is gone with its allocation.

        A call tells that what the one before gave has been dealt with: what a client sends right behind a request waits
        for that.
        """

    def counts(self) -> tuple[tuple[int, int], tuple[int, int], dict[str, int]]:
        """Packets and bytes of data carried to peers, and to clients; packets dropped, by reason."""

    def close(self) -> None:
        """Free all ports."""
