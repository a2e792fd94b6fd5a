"""What sender and receiver of files say to each other, on one bidirectional stream.

The receiver opens the stream with `Fetch`; the sender answers with `Manifest`. The receiver sends `Wants`; for
each file wanted, in that order, the sender sends `FileHeader`, the bytes from its offset to the end, and the
BLAKE3 digest of the whole file. The receiver closes with `Done`, or either side ends it with `Abort`.
A message is four bytes of length, big-endian, and a MessagePack struct.
"""

from __future__ import annotations

import enum
from typing import TypeVar

import msgspec

from quice.errors import RemoteFileError, TransferProtocolError
from quice.stream import Stream

ALPN = "quice-transfer/1"
DIGEST_LENGTH = 32
MAX_MESSAGE = 64 << 20
"""Bytes of a manifest, the largest of messages: some 500,000 files."""
BLOCK = 1 << 20
"""Bytes read, hashed and sent at a time."""


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
    version: int = 1


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


class Abort(_Message, frozen=True, tag="abort", kw_only=True):
    """It can't go on; `text` is for the other side's user."""

    text: str


Message = Fetch | Manifest | Wants | FileHeader | Done | Abort
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
    """Read the next message, which must be of this kind.

    Raises `TransferProtocolError`, `RemoteFileError` when it is `Abort`, and as `Stream.readexactly`.
    """
    length = int.from_bytes(await stream.readexactly(4), "big")
    if length > MAX_MESSAGE:
        raise TransferProtocolError(f"a message of {length} bytes")
    message = parse(await stream.readexactly(length))
    if isinstance(message, Abort):
        raise RemoteFileError(message.text[:300])
    if not isinstance(message, kind):
        raise TransferProtocolError(f"{type(message).__name__} instead of {kind.__name__}")
    return message
