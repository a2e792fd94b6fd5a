"""How peers exchange candidates: the interface, its messages, and what carries them.

`Signalling` is what an application writes for a channel of its own; `Exchange` says which message may come when.
`encode` and `decode` turn messages into bytes and back.
"""

from quice.signal.interface import Signalling
from quice.signal.messages import (
    Answer,
    Bye,
    CandidateFound,
    Description,
    EndOfCandidates,
    Establish,
    Message,
    Offer,
    Opening,
    Refuse,
    RefuseReason,
    Restart,
    SignalDecodeError,
    decode,
    encode,
)
from quice.signal.queues import signalling_pair
from quice.signal.session import Exchange, Side, State, Verdict

__all__ = [
    "Answer",
    "Bye",
    "CandidateFound",
    "Description",
    "EndOfCandidates",
    "Establish",
    "Exchange",
    "Message",
    "Offer",
    "Opening",
    "Refuse",
    "RefuseReason",
    "Restart",
    "Side",
    "SignalDecodeError",
    "Signalling",
    "State",
    "Verdict",
    "decode",
    "encode",
    "signalling_pair",
]
