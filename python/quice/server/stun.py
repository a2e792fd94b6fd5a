"""A STUN server: it tells who asks which address they come from (RFC 8489 §6.3.1, §12)."""

from __future__ import annotations

from quice.stun import responses
from quice.stun.attributes import (
    Attribute,
    ChangeRequest,
    Padding,
    ResponsePort,
    StunDecodeError,
    UnknownAttributes,
    XorMappedAddress,
)
from quice.stun.message import Kind, Message, Method
from quice.wire import Address

# RFC 5780 §7 needs a second address. To answer from the only one as if nothing had been asked would say something
# untrue of the client's NAT.
_NOT_SERVED: tuple[type[Attribute], ...] = (ChangeRequest, ResponsePort, Padding)


def answer(data: bytes, source: Address) -> bytes | None:
    """The response to a datagram from `source`, or None when it gets none.

    A response is at most 52 bytes longer than its request: no lever for attacks on a forged source.
    """
    try:
        request = Message.decode(data)
    except StunDecodeError:
        return None
    if request.method is not Method.BINDING or request.kind is not Kind.REQUEST:
        return None
    unsupported = request.unknown_required + tuple(kind.TYPE for kind in _NOT_SERVED if request.get(kind) is not None)
    if unsupported:
        return responses.error(request, responses.UNKNOWN_ATTRIBUTE, UnknownAttributes(unsupported[:4]))
    return responses.success(request, XorMappedAddress(source))
