"""A process that floods UDP ports of this machine: `python -m tests.endpoint.noise COUNT SEED PORT...`.

It sends mutated STUN, QUIC and ChannelData, DTLS, noise, nothing at all and the most that a datagram holds. To be sure
that all of it is read and not dropped in the kernel, it waits while a port's queue is long. Each step of its way it
prints how many it has sent, and at its end how many to each port.
"""

from __future__ import annotations

import json
import random
import socket
import sys
import time
from pathlib import Path

from fuzz.initial import Keys, packet
from fuzz.mutation import mutate
from fuzz.targets.engine import _CLIENT_HELLO, _OTHERS

TABLE = Path("/proc/net/udp")
_BATCH = 16
_LONG = 64 << 10
"""Bytes in a receiver's queue after which it is waited for: well below the least that systems grant a socket."""
_STEPS = 20
_SOCKETS = 8
_MOST = 65_507


def queues() -> dict[int, tuple[int, int]]:
    """Of each UDP port of this machine on IPv4: bytes that wait in its queue, and datagrams that found it full."""
    found = {}
    for line in TABLE.read_text().splitlines()[1:]:
        fields = line.split()
        found[int(fields[1].partition(":")[2], 16)] = int(fields[4].partition(":")[2], 16), int(fields[-1])
    return found


def main(count: int, seed: int, ports: list[int]) -> None:
    """Send so many datagrams, in turns to the ports."""
    rng = random.Random(seed)
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(_SOCKETS)]
    sent = dict.fromkeys(ports, 0)
    total = shown = 0
    while total < count:
        # Anybody can make Initial packets that decrypt; what is in them is wrong a little later each time.
        identifier = rng.randbytes(8)
        keys = Keys.derive(identifier, client=True)
        hello = b"\6\0" + len(_CLIENT_HELLO).to_bytes(2, "big") + _CLIENT_HELLO
        samples = (*_OTHERS, packet(keys, identifier, rng.randbytes(8), hello))
        for port in ports:
            while queues()[port][0] > _LONG:
                time.sleep(0.0005)
            source = rng.choice(sockets)
            for _ in range(_BATCH):
                kind = rng.randrange(400)
                data = b"" if kind == 0 else rng.randbytes(_MOST) if kind == 1 else mutate(rng, samples)
                source.sendto(data, ("127.0.0.1", port))
                sent[port] += 1
                total += 1
        if total * _STEPS // count > shown:
            shown = total * _STEPS // count
            print(total, flush=True)
    for source in sockets:
        source.close()
    print(json.dumps(sent), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), [int(port) for port in sys.argv[3:]])
