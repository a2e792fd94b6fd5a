"""STUN: the codec and client transactions of RFC 8489, without sockets or clock."""

from quice.stun.attributes import Attribute, StunDecodeError
from quice.stun.message import Kind, Message, Method, is_stun
from quice.stun.transaction import ClientTransaction, Incomprehensible, Redirected, Refused, Succeeded, TimedOut

__all__ = [
    "Attribute",
    "ClientTransaction",
    "Incomprehensible",
    "Kind",
    "Message",
    "Method",
    "Redirected",
    "Refused",
    "StunDecodeError",
    "Succeeded",
    "TimedOut",
    "is_stun",
]
