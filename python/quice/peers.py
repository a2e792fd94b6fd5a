"""The peers that a user knows by name: a file beside the identity."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from quice.errors import InvalidPeerIdError, PeerBookError, PeerNameError, UnknownPeerError
from quice.identity import PeerId

MAX_NAME = 64
_NAME = re.compile(rf"\w[\w.-]{{0,{MAX_NAME - 1}}}")


class KnownPeer(NamedTuple):
    """A name, whose it is, and the rendezvous servers at which that peer is to be found."""

    name: str
    peer: PeerId
    servers: tuple[str, ...]


class _Entry(msgspec.Struct, frozen=True):
    peer: str
    servers: tuple[str, ...] = ()


_decoder = msgspec.json.Decoder(dict[str, _Entry])


class PeerBook:
    """Names of peers, in a file that only its user can read. It is read anew by each call, and written whole or not
    at all. Every call raises `PeerBookError` for a file that can't be read or written, or holds something else.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)

    def __iter__(self) -> Iterator[KnownPeer]:
        """All of them, in the order of their names."""
        return iter(sorted(self._read().values()))

    def find(self, name: str) -> KnownPeer:
        """The peer of this name, in whatever case. Raises `UnknownPeerError`."""
        known = self._read()
        try:
            return known[name.strip().lower()]
        except KeyError:
            near = difflib.get_close_matches(name.strip().lower(), known, 1)
            raise UnknownPeerError(name, near[0] if near else None) from None

    def name_of(self, peer: PeerId) -> str | None:
        """What this peer is called, if it has a name."""
        return next((known.name for known in self if known.peer == peer), None)

    def add(self, name: str, peer: PeerId, servers: tuple[str, ...]) -> KnownPeer:
        """Call a peer by this name, and by no other; whoever had the name before loses it. Raises `PeerNameError`."""
        added = KnownPeer(checked_name(name), peer, servers)
        known = {name: each for name, each in self._read().items() if each.peer != peer}
        self._write(known | {added.name: added})
        return added

    def free_name(self, wanted: str) -> str:
        """A name that nobody has: this one, as far as it can be one, or with a number."""
        known = self._read()
        name = re.sub(r"[^\w.-]+", "-", wanted.strip().lower()).lstrip(".-")[: MAX_NAME - 4] or "peer"
        numbered = (f"{name}-{number}" for number in range(2, len(known) + 3))
        return name if name not in known else next(each for each in numbered if each not in known)

    def remove(self, name: str) -> KnownPeer:
        """Forget the peer of this name. Raises `UnknownPeerError`."""
        removed = self.find(name)
        known = self._read()
        del known[removed.name]
        self._write(known)
        return removed

    def _read(self) -> dict[str, KnownPeer]:
        try:
            entries = _decoder.decode(self._path.read_bytes())
            return {name: KnownPeer(name, PeerId.parse(entry.peer), entry.servers) for name, entry in entries.items()}
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise PeerBookError(str(self._path), error.strerror or str(error)) from error
        except (msgspec.MsgspecError, UnicodeDecodeError, InvalidPeerIdError) as error:
            raise PeerBookError(str(self._path), str(error)) from error

    def _write(self, known: dict[str, KnownPeer]) -> None:
        entries = {each.name: _Entry(str(each.peer), each.servers) for each in sorted(known.values())}
        content = msgspec.json.format(msgspec.json.encode(entries)) + b"\n"
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # It is of mode 0600 from its beginning.
            descriptor, written = tempfile.mkstemp(prefix=f".{self._path.name}-", dir=self._path.parent)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(written, self._path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(written)
                raise
        except OSError as error:
            raise PeerBookError(str(self._path), error.strerror or str(error)) from error


def checked_name(name: str) -> str:
    """The name as it is kept. Raises `PeerNameError`."""
    kept = name.strip().lower()
    if not _NAME.fullmatch(kept):
        raise PeerNameError(name)
    return kept
