"""What stands in for netem: a process that carries Ethernet frames between pairs of interfaces, late or never.

It reads commands from its standard input, a JSON object a line, and answers each with a line, "ok":

    {"ends": ["near0", "far0"], "delay": 0.025, "jitter": 0.002, "loss": 0.05}

It ends with its input. The interfaces are those of its own namespace, and have no use for the frames themselves.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import socket
import sys
import time
from collections import deque

_ETH_P_ALL = 3
_SOL_PACKET = 263
_PACKET_VNET_HDR = 15
_PACKET_IGNORE_OUTGOING = 23
_SO_RCVBUFFORCE = 33
_BUFFER = 8 << 20
# `struct virtio_net_hdr`: what hardware would do later, checksums and segments, travels before the frame.
_HEADER = 10
_LARGEST = _HEADER + 14 + 65536
_BATCH = 32
"""Frames read from one end before others have their turn."""

_ARP = b"\x08\x06"
_IPV6 = b"\x86\xdd"
_ICMPV6 = 58
_DISCOVERY = range(133, 138)


class Pipe:
    """One direction of a link: frames leave in the order they came, each no sooner than its time."""

    def __init__(self, source: socket.socket, destination: socket.socket) -> None:
        self.delay = self.jitter = self.loss = 0.0
        self.waiting: deque[tuple[float, bytes]] = deque()
        self._source = source
        self._destination = destination
        self._last = 0.0

    def receive(self) -> None:
        """Take what has come, a batch of it at most."""
        for _ in range(_BATCH):
            try:
                frame = self._source.recv(_LARGEST)
            except BlockingIOError:
                return
            except OSError:
                continue  # the interface went down or up
            if _finds_neighbours(frame):
                self._send(frame)
            elif not self.loss or random.random() >= self.loss:
                self._last = max(self._last, time.monotonic() + self.delay + random.random() * self.jitter)
                self.waiting.append((self._last, frame))

    def release(self, now: float) -> None:
        """Send what is due."""
        while self.waiting and self.waiting[0][0] <= now:
            self._send(self.waiting.popleft()[1])

    def _send(self, frame: bytes) -> None:
        # An end that is down, or whose queue is full, loses frames as a cable does.
        with contextlib.suppress(OSError):
            self._destination.send(frame)


def _finds_neighbours(frame: bytes) -> bool:
    """Whether it is ARP or neighbour discovery: delayed, the first packet to every address would count twice."""
    kind = frame[_HEADER + 12 : _HEADER + 14]
    if kind == _ARP:
        return True
    packet = frame[_HEADER + 14 :]
    return kind == _IPV6 and packet[6] == _ICMPV6 and len(packet) > 40 and packet[40] in _DISCOVERY


class Forwarder:
    """All links of a lab, in one process."""

    def __init__(self) -> None:
        self._links: dict[tuple[str, str], tuple[Pipe, Pipe]] = {}
        self._by_socket: dict[socket.socket, Pipe] = {}

    def run(self, commands: int) -> None:
        """Carry frames, and obey, until the commands end."""
        said = b""
        while True:
            due = min((pipe.waiting[0][0] for pipe in self._by_socket.values() if pipe.waiting), default=None)
            timeout = None if due is None else max(0.0, due - time.monotonic())
            sources: list[int | socket.socket] = [commands, *self._by_socket]
            ready, _, _ = select.select(sources, [], [], timeout)
            self._release()
            for source in ready:
                if isinstance(source, socket.socket):
                    self._by_socket[source].receive()
                    self._release()
                    continue
                if not (data := os.read(commands, 65536)):
                    return
                *lines, said = (said + data).split(b"\n")
                for line in lines:
                    self._obey(**json.loads(line))
                    print("ok", flush=True)

    def _release(self) -> None:
        now = time.monotonic()
        for pipe in self._by_socket.values():
            pipe.release(now)

    def _obey(self, ends: tuple[str, str], delay: float, jitter: float, loss: float) -> None:
        near, far = ends
        if (near, far) not in self._links:
            one, two = _open(near), _open(far)
            pipes = self._links[near, far] = (Pipe(one, two), Pipe(two, one))
            self._by_socket.update(zip((one, two), pipes, strict=True))
        for pipe in self._links[near, far]:
            pipe.delay, pipe.jitter, pipe.loss = delay, jitter, loss


def _open(interface: str) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    sock.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    except PermissionError:  # in a user namespace
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    sock.setblocking(False)
    sock.bind((interface, _ETH_P_ALL))
    return sock


def main() -> None:
    # Ctrl-C at the lab's terminal is for the lab, which ends this then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Being late is this process's only fault: where the system allows, it comes before all others.
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    Forwarder().run(sys.stdin.fileno())


if __name__ == "__main__":
    main()
