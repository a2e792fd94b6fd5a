"""Links of a lab: cables that can be long, bad, cut and restored."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.ground import LabError
from lab.namespace import Namespace

_FORWARDER = Path(__file__).with_name("forwarder.py")
_SEPARATE = "gso_max_segs 1"
"""For `ip link`: the kernel makes packets of what programs send as a batch, so that each is lost on its own."""

# Where two ends have the same index, each in its namespace, the kernel takes them for one interface with no other
# below it, and tells a bridge up to a second later that its port has a carrier.
_FIRST_INDEX = 10_000


@dataclass(frozen=True)
class Conditions:
    """What a link does to packets, in each direction. Times are in seconds, loss is a probability."""

    delay: float = 0.0
    jitter: float = 0.0
    """Up to how much longer a packet takes, evenly distributed. It changes no order: it is that of a queue."""
    loss: float = 0.0


IDEAL = Conditions()


class Link:
    """A cable from a namespace's interface to a switch, whose end of it is `port`."""

    def __init__(self, switch: Namespace, number: int) -> None:
        self._switch = switch
        self._number = number
        self._port = f"port{number}"

    def cut(self) -> None:
        """Lose everything from now on, in silence: both ends go on believing in it."""
        self._state("disabled")

    def restore(self) -> None:
        """Undo a cut."""
        self._state("forwarding")

    def block_udp(self) -> None:
        """Lose all UDP from now on."""
        self._switch.nft(_BLOCK.format(port=self._port))

    def confine(self, address: str) -> None:
        """Lose all IPv4 from now on but TCP to and from this address."""
        self._switch.nft(_CONFINE.format(port=self._port, address=address))

    def part(self, other: Link) -> None:
        """Lose all IP between this link and another of the same network, in silence; each still carries all else."""
        one, two = sorted((self._number, other._number))
        self._switch.nft(_PART.format(one=one, two=two, mark_one=one + 1, mark_two=two + 1))

    def rejoin(self, other: Link) -> None:
        """Undo a parting."""
        one, two = sorted((self._number, other._number))
        self._switch.nft(f"delete table netdev parted_{one}_{two}")

    def _state(self, name: str) -> None:
        self._switch.run("bridge", "link", "set", "dev", self._port, "state", name)


_BLOCK = """
table netdev {port} {{
    chain inward {{
        type filter hook ingress device "{port}" priority filter;
        meta l4proto udp drop
    }}
    chain outward {{
        type filter hook egress device "{port}" priority filter;
        meta l4proto udp drop
    }}
}}
"""

_CONFINE = """
table netdev {port} {{
    chain inward {{
        type filter hook ingress device "{port}" priority filter;
        meta protocol ip ip daddr {address} meta l4proto tcp accept
        meta protocol ip drop
    }}
    chain outward {{
        type filter hook egress device "{port}" priority filter;
        meta protocol ip ip saddr {address} meta l4proto tcp accept
        meta protocol ip drop
    }}
}}
"""

# A mark says which port a packet came in by, also when the network's router has forwarded it. Neighbours are still
# found, for who is not found is told of by ICMP.
_PART = """
table netdev parted_{one}_{two} {{
    chain from_one {{
        type filter hook ingress device "port{one}" priority filter;
        meta mark set {mark_one}
    }}
    chain from_two {{
        type filter hook ingress device "port{two}" priority filter;
        meta mark set {mark_two}
    }}
    chain to_one {{
        type filter hook egress device "port{one}" priority filter;
        meta protocol {{ ip, ip6 }} meta mark {mark_two} drop
    }}
    chain to_two {{
        type filter hook egress device "port{two}" priority filter;
        meta protocol {{ ip, ip6 }} meta mark {mark_one} drop
    }}
}}
"""


class Cables:
    """Where a lab's links are made. Those that are not ideal lead through a process in a namespace of its own."""

    def __init__(self, new_namespace: Callable[[str], Namespace]) -> None:
        self._new_namespace = new_namespace
        self._halfway: Namespace | None = None
        self._numbers = itertools.count()
        self._forwarder: subprocess.Popen[str] | None = None

    def lay(self, namespace: Namespace, interface: str, switch: Namespace, bridge: str, conditions: Conditions) -> Link:
        """Give a namespace an interface that is plugged into a bridge."""
        number = next(self._numbers)
        port = f"port{number}"
        if conditions == IDEAL:
            namespace.ip(f"link add {interface} type veth peer name {port} netns {switch.name}")
        else:
            near, far = f"near{number}", f"far{number}"
            halfway = self._started()
            index = _FIRST_INDEX + 2 * number
            kind = f"{_SEPARATE} type veth peer netns {halfway.name}"
            namespace.ip(f"link add {interface} index {index} {kind} name {near}")
            switch.ip(f"link add {port} index {index + 1} {kind} name {far}")
            halfway.ip(f"link set {near} up", f"link set {far} up")
            self._tell({"ends": (near, far), **asdict(conditions)})
        namespace.ip(f"link set {interface} up")
        switch.ip(f"link set {port} master {bridge} up")
        return Link(switch, number)

    def close(self) -> None:
        """End the process that delays."""
        if self._forwarder is not None:
            self._forwarder.communicate()
            self._forwarder = None

    def _started(self) -> Namespace:
        if self._halfway is None:
            self._halfway = self._new_namespace("halfway")
            program = (sys.executable, "-I", "-S", str(_FORWARDER))
            self._forwarder = self._halfway.popen(*program, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self._halfway

    def _tell(self, command: dict[str, object]) -> None:
        assert self._forwarder is not None
        assert self._forwarder.stdin is not None
        assert self._forwarder.stdout is not None
        print(json.dumps(command), file=self._forwarder.stdin, flush=True)
        if self._forwarder.stdout.readline() != "ok\n":
            raise LabError(f"the process that delays packets ended with {self._forwarder.wait()}")
