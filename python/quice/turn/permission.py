"""Permissions: the IP addresses whose datagrams the server lets through (RFC 8656 §9)."""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from quice.wire import Address

REFRESH_INTERVAL = 240.0
"""Seconds after which a permission is renewed; it lasts 300 (RFC 8656 §9)."""
_MOST_IN_ONE = 16
"""Addresses in one request: more might not fit a datagram."""


class PermissionState(enum.Enum):
    """How far a permission is."""

    WAITING = "waiting"
    """Not asked for yet: the server can't be asked before it has given a nonce."""
    ASKED = "asked"
    GRANTED = "granted"


@dataclass
class Permission:
    """That of one IP address."""

    state: PermissionState = PermissionState.WAITING
    refresh_at: float | None = None


class Permissions:
    """The permissions of one allocation that were asked for by themselves; a channel brings its own."""

    def __init__(self) -> None:
        self._held: dict[str, Permission] = {}

    def __contains__(self, host: object) -> bool:
        return host in self._held

    def want(self, hosts: Iterable[str]) -> None:
        """Wait to be asked for, unless they have been."""
        for host in hosts:
            self._held.setdefault(host, Permission())

    def ask(self, hosts: Iterable[str]) -> None:
        """A request for these goes out."""
        for host in hosts:
            if (permission := self._held.get(host)) is not None:
                permission.state, permission.refresh_at = PermissionState.ASKED, None

    def grant(self, hosts: Iterable[str], now: float) -> None:
        """The server has given, or renewed, these."""
        for host in hosts:
            if (permission := self._held.get(host)) is not None:
                permission.state, permission.refresh_at = PermissionState.GRANTED, now + REFRESH_INTERVAL

    def postpone(self, hosts: Iterable[str] | None = None) -> None:
        """These, or all, have to be asked for again, later."""
        for host in list(self._held if hosts is None else hosts):
            if host in self._held:
                self._held[host] = Permission()

    def drop(self, hosts: Iterable[str]) -> None:
        """Do not keep these up any more."""
        for host in hosts:
            self._held.pop(host, None)

    def waiting(self) -> list[str]:
        """Those to be asked for."""
        return [host for host, permission in self._held.items() if permission.state is PermissionState.WAITING]

    def next_time(self) -> float | None:
        """When the next is to be renewed."""
        return min((p.refresh_at for p in self._held.values() if p.refresh_at is not None), default=None)

    def due(self, now: float) -> list[str]:
        """Those to be renewed now."""
        return [h for h, p in self._held.items() if p.refresh_at is not None and p.refresh_at <= now]


def batches(hosts: Iterable[str]) -> list[list[str]]:
    """The addresses in groups for one request each: what is refused to one is refused to its group.

    So those of a family that the allocation may lack, and private ones, into which few servers relay, keep to
    themselves.
    """
    alike: defaultdict[tuple[bool, bool], list[str]] = defaultdict(list)
    for host in hosts:
        alike[":" in host, Address(host, 0).is_private].append(host)
    return [
        group[start : start + _MOST_IN_ONE]
        for _, group in sorted(alike.items())
        for start in range(0, len(group), _MOST_IN_ONE)
    ]
