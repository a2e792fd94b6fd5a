"""A socket on which the kernel says that something about the network has changed."""

from __future__ import annotations

import socket
import sys

_SIZE = 1 << 16

if sys.platform == "linux":
    # linux/rtnetlink.h: links, and addresses and routes of IPv4 and IPv6.
    _GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400

    def open_notices() -> socket.socket | None:
        """A socket that becomes readable with each notice; None where the system has none."""
        try:
            notices = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        except OSError:
            return None
        try:
            notices.setblocking(False)
            notices.bind((0, _GROUPS))
        except OSError:
            notices.close()
            return None
        return notices

    def _is_change(message: bytes) -> bool:
        return True

else:
    _PF_ROUTE = 17
    # net/route.h: RTM_GET, RTM_MISS, RTM_RESOLVE, by which nothing changes.
    _LOOKUPS = (0x4, 0x7, 0xB)

    def open_notices() -> socket.socket | None:
        """A socket that becomes readable with each notice; None where the system has none."""
        if sys.platform == "win32":
            return None
        try:
            notices = socket.socket(_PF_ROUTE, socket.SOCK_RAW, 0)
        except OSError:
            return None
        notices.setblocking(False)
        return notices

    def _is_change(message: bytes) -> bool:
        return len(message) > 3 and message[3] not in _LOOKUPS


def drain(notices: socket.socket) -> bool:
    """Read all that waits; returns whether a change was among it."""
    changed = False
    while True:
        try:
            message = notices.recv(_SIZE)
        except BlockingIOError:
            return changed
        except OSError:
            # ENOBUFS: there were more than the kernel keeps. Any of them may have been a change.
            return True
        changed = changed or _is_change(message)
