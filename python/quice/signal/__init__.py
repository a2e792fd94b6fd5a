"""How peers exchange candidates: the interface, its messages, and what carries them."""

from quice.signal.interface import Signalling
from quice.signal.messages import Message, decode, encode
from quice.signal.queues import signalling_pair

__all__ = ["Message", "Signalling", "decode", "encode", "signalling_pair"]
