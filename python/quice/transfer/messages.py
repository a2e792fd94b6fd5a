"""What sender and receiver of files say to each other, on one bidirectional stream.

The receiver opens the stream with `Fetch`, whichever of the two has made the connection; the sender answers with
`Manifest`. The receiver sends `Wants`; for each file wanted, in that order, the sender sends `FileHeader`, the bytes
from its offset to the end, and the BLAKE3 digest of the whole file. The receiver closes with `Done`, or either side
ends it with `Abort`. A message is four bytes of length, big-endian, and a MessagePack struct.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import Iterator
from typing import TypeVar

import msgspec

from quice.errors import (
    PeerClosedError,
    RemoteFileError,
    RemoteInterruptedError,
    TransferError,
    TransferProtocolError,
)
from quice.stream import Stream

ALPN = "quice-transfer/1"
"""For connections that receivers make."""
PUSH_ALPN = "quice-push/1"
"""For those that senders make, with peers who know them."""
VERSION = 1
DIGEST_LENGTH = 32
MAX_MESSAGE = 64 << 20
"""Bytes of a manifest, the largest of messages: some 500,000 files."""
BLOCK = 1 << 20
"""Bytes read, hashed and sent at a time."""
ABORTED = 1
"""The code with which a connection is closed by the side that can't go on."""
NOT_PAIRED = 2
"""The code with which a receiver closes the connection of a sender that it does not know."""
INTERRUPTED = 3
"""The code with which a connection is closed by the side that is ended by its user."""
_MAX_REASON = 300


class EntryKind(str, enum.Enum):
    FILE = "file"
    FOLDER = "folder"


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """A file or folder: its path below the target, parts joined by `/`, and for files size and executable bit."""

    kind: EntryKind
    path: str
    size: int = 0
    executable: bool = False


class _Message(msgspec.Struct, frozen=True, tag_field="type", kw_only=True):
    pass


class Fetch(_Message, frozen=True, tag="fetch", kw_only=True):
    """Tell me what you have. The secret is the ticket's: knowing the sender's peer id is not enough."""

    version: int = VERSION
    secret: bytes = b""


class Manifest(_Message, frozen=True, tag="manifest", kw_only=True):
    entries: list[Entry]


class Want(msgspec.Struct, frozen=True, array_like=True):
    """Send this entry, from `offset` on if the bytes before it have this BLAKE3 digest."""

    index: int
    offset: int = 0
    digest: bytes = b""


class Wants(_Message, frozen=True, tag="wants", kw_only=True):
    wants: list[Want]


class FileHeader(_Message, frozen=True, tag="file", kw_only=True):
    """The bytes of this entry follow, from this offset on."""

    index: int
    offset: int


class Done(_Message, frozen=True, tag="done", kw_only=True):
    """Everything has arrived and is stored."""


Message = Fetch | Manifest | Wants | FileHeader | Done
MessageT = TypeVar("MessageT", bound=Message)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)


def frame(message: Message) -> bytes:
    """A message as it goes on the stream."""
    data = _encoder.encode(message)
    return len(data).to_bytes(4, "big") + data


def parse(data: bytes) -> Message:
    """A message without its length. Raises `TransferProtocolError`."""
    try:
        message: Message = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise TransferProtocolError(str(error)) from error
    return message


async def expect(stream: Stream, kind: type[MessageT]) -> MessageT:
    """Read the next message, which must be of this kind. Raises `TransferProtocolError`, and as
    `Stream.readexactly`."""
    length = int.from_bytes(await stream.readexactly(4), "big")
    if length > MAX_MESSAGE:
        raise TransferProtocolError(f"a message of {length} bytes")
    message = parse(await stream.readexactly(length))
    if not isinstance(message, kind):
        raise TransferProtocolError(f"{type(message).__name__} instead of {kind.__name__}")
    return message


@contextlib.contextmanager
def telling(stream: Stream) -> Iterator[None]:
    """Around one side's work: tell the other side why this one gives up, and raise why the other did.

    Raises `RemoteFileError` or `RemoteInterruptedError` for that, and `TransferProtocolError` when the stream ends
    where it must not.
    """
    try:
        yield
    except TransferError as error:
        _abort(stream, error)
        raise
    except asyncio.CancelledError:
        stream.connection.close(INTERRUPTED)
        raise
    except asyncio.IncompleteReadError:
        ended = TransferProtocolError("the stream ended in the middle")
        _abort(stream, ended)
        raise ended from None
    except PeerClosedError as closed:
        if closed.code == INTERRUPTED:
            raise RemoteInterruptedError from None
        if closed.code != ABORTED:
            raise
        raise RemoteFileError(closed.reason[:_MAX_REASON]) from None


def _abort(stream: Stream, error: TransferError) -> None:
    stream.connection.close(ABORTED, error.for_peer[:_MAX_REASON])
