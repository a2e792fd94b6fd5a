"""A STUN server: it tells who asks which address they come from (RFC 8489 §6.3.1, §12)."""

from __future__ import annotations

from quice import _native
from quice.config import TransportConfig
from quice.errors import BindError
from quice.machine import NO_SUCH_FAMILY, this_machine
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
from quice.wire import Address, Transmit, random_bytes

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


class StunServer:
    """Answers on a UDP port of every interface, each time from the address that was asked.

    The engine's sockets know which address that was, on a host with several; that is why they are used here.
    """

    def __init__(self) -> None:
        machine = this_machine()
        credentials = _native.Credentials.raw_key(random_bytes(machine.random, 32))
        self._pump = machine.pump(credentials, (), TransportConfig(), self._on_event)
        self.port = 0

    def bind(self, hosts: list[str], port: int) -> None:
        """Serve on these local IP addresses, all on one port. Raises `BindError`.

        An address after the first is left out where the system does not have its family.
        """
        for host in hosts:
            try:
                port = self.port = self._pump.bind(host, port).port
            except OSError as error:
                if self.port and error.errno in NO_SUCH_FAMILY:
                    continue
                raise BindError(f"UDP port {port} of {host} for STUN", error.strerror or str(error)) from error

    def close(self) -> None:
        """Free the port."""
        self._pump.close()

    def _on_event(self, event: _native.Event) -> None:
        if isinstance(event, _native.Event.Packet):
            source = Address(*event.source)
            response = answer(event.data, source)
            if response is not None and source.port:
                self._pump.send(Transmit(response, Address(*event.destination), source))
