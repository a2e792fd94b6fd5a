"""Settings of an endpoint's connections."""

from __future__ import annotations

import os
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TransportConfig:
    """How connections behave. The defaults suit file transfer as well as small messages.

    idle_timeout: seconds of silence after which a connection is lost; the smaller of both sides' counts.
    keep_alive: seconds after which an idle connection sends a ping, which also keeps NAT bindings open
        (RFC 4787 §4.3 lets them expire after two minutes, many do after thirty seconds); a third of
        `idle_timeout`, and at most 15, by default.
    stream_window: bytes the peer may be ahead of what is read in one stream; bounds its rate at
        stream_window / round-trip time. Beyond 1 MiB it suits rate rather than fairness: a stream left unread
        then takes all of `connection_window`, and other streams wait until it is read, reset or stopped.
    connection_window: bytes that may wait unread in all streams of a connection together.
    send_window: bytes that may wait for acknowledgement before `write` waits.
    max_streams: streams of each kind that the peer may have open at once.
    datagram_buffer: bytes of datagrams kept in each direction; 0 refuses datagrams.
    path_idle_timeout: seconds for which nothing that is sent over one of several paths is answered, after which it is
        given up, as long as another works. Three times its round-trip time if that is more.
    path_keep_alive: seconds after which a path is pinged that is not in use, while there are several. It keeps NAT
        bindings open, and shows when the path has died.
    nat_traversal: whether the engine may look for more paths by frames of its own, with peers that do so too.
        `Endpoint.bind(checks="quic")` sets it, and makes use of it.
    qlog_dir: an existing folder in which each connection writes a qlog file.
    """

    idle_timeout: float = 30.0
    keep_alive: float | None = field(default=None)
    stream_window: int = 16 << 20
    connection_window: int = 32 << 20
    send_window: int = 16 << 20
    max_streams: int = 256
    datagram_buffer: int = 1 << 20
    path_idle_timeout: float = 0.5
    path_keep_alive: float = 15.0
    nat_traversal: bool = False
    qlog_dir: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.keep_alive is None:
            object.__setattr__(self, "keep_alive", min(self.idle_timeout / 3, 15.0))
