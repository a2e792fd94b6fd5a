"""How two quice endpoints recognise each other: by an ALPN beside the application's own (RFC 7301).

A client offers the application's protocol twice, marked and as it is, and a server answers to both, preferring the
marked. If that is agreed on, the connection has a control channel (`quice.control`). A peer of plain QUIC knows nothing
of the mark, and agrees on what it knows. The application sees its own name for the protocol, in both cases.
"""

from __future__ import annotations

from collections.abc import Sequence

_MARK = b"quice/1+"
"""Its number changes when the control channel does so that older ones don't understand it."""
_MAX_LENGTH = 255


def check(alpn: str) -> None:
    """Raise `ValueError` for what can't be the name of an application's protocol."""
    if alpn.encode().startswith(_MARK):
        raise ValueError(f"{alpn!r} is reserved: an application's ALPN does not begin with {_MARK.decode()!r}")


def offered(alpn: str) -> list[bytes]:
    """What a client offers for the application's protocol, the preferred first."""
    plain = alpn.encode()
    marked = _MARK + plain
    # RFC 7301 §3.1: a protocol's name has a length of one byte. One that leaves no room for the mark goes without.
    return [marked, plain] if len(marked) <= _MAX_LENGTH else [plain]


def answered(alpns: Sequence[str]) -> list[bytes]:
    """What a server answers to, the preferred first."""
    return [each for alpn in alpns for each in offered(alpn)]


def agreed(protocol: bytes) -> tuple[str, bool]:
    """The application's protocol, and whether the mark was agreed on with it."""
    plain = protocol.removeprefix(_MARK)
    return plain.decode(errors="replace"), plain != protocol
