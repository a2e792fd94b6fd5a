"""The life of a signalling session: which message each side may send when, and what follows, sans-I/O.

Theory of operation. The two sides of a session have a state each, which says what that side may send next; the other
side goes by the same state for what it may receive. `SENDS` has, for each side and state, the messages that are
allowed and the state that follows for their sender; `MOVES` has those that also change the state of their receiver.
Both sides speak at once, so that each has its own view of the other, as old as the last message.

What the tables do not allow is the sender's fault, with three exceptions. What comes from a side that is `GONE` was
sent before it went or has come out of order, and is ignored. What repeats a side's own description word for word is
ignored too: carriers repeat. So is what comes after this side itself has gone. Everything else is a violation, and so
is more than the budget, in which what is ignored counts: the session is over, and the side that has noticed says `Bye`.

Candidates may follow the end of candidates, and then another end: that a side's network changes while it negotiates is
no fault. Whether they count is the agent's business (RFC 8838 §14: only if the peer has said `renomination`).
"""

from __future__ import annotations

import enum

from quice.ice.generation import MAX_REMOTE_CANDIDATES
from quice.signal.messages import (
    Answer,
    Bye,
    CandidateFound,
    Description,
    EndOfCandidates,
    Message,
    Offer,
    Refuse,
    Restart,
)

MAX_CANDIDATES = 2 * MAX_REMOTE_CANDIDATES
"""Candidates that one side may name in a session's life, each as often as it is named: twice as many as an agent takes
at once, for a side whose network changes meanwhile."""
MAX_MESSAGES = 2 * MAX_CANDIDATES + 3
"""Messages of one side in a session's life: its description, each candidate alone with an end of candidates after it,
one more end and its last word. Who keeps to the candidates and repeats nothing never reaches it."""


class Side(enum.Enum):
    """Who a message is from."""

    INITIATING = "initiating"
    RESPONDING = "responding"

    @property
    def other(self) -> Side:
        """The peer's."""
        return Side.RESPONDING if self is Side.INITIATING else Side.INITIATING


class State(enum.Enum):
    """What one side has said so far."""

    IDLE = "idle"
    """Nothing."""
    ASKED = "asked"
    """Nothing, and its answer is due."""
    TELLING = "telling"
    """Who it is; more candidates may follow."""
    TOLD = "told"
    """That these were all its candidates."""
    GONE = "gone"
    """That the session is over for it."""


SENDS: dict[Side, dict[State, dict[type[Message], State]]] = {
    Side.INITIATING: {
        State.IDLE: {Offer: State.TELLING, Restart: State.TELLING},
        State.TELLING: {CandidateFound: State.TELLING, EndOfCandidates: State.TOLD, Bye: State.GONE},
        State.TOLD: {CandidateFound: State.TELLING, EndOfCandidates: State.TOLD, Bye: State.GONE},
        State.GONE: {},
    },
    Side.RESPONDING: {
        State.IDLE: {},
        State.ASKED: {Answer: State.TELLING, Refuse: State.GONE, Bye: State.GONE},
        State.TELLING: {CandidateFound: State.TELLING, EndOfCandidates: State.TOLD, Bye: State.GONE},
        State.TOLD: {CandidateFound: State.TELLING, EndOfCandidates: State.TOLD, Bye: State.GONE},
        State.GONE: {},
    },
}
"""What each side may send in each of its states, and the state that follows for it."""

MOVES: dict[type[Message], State] = {Offer: State.ASKED, Restart: State.ASKED, Refuse: State.GONE}
"""The state that follows for the receiver of a message, where one does."""


class Verdict(enum.Enum):
    """What is to be done with a message that has come."""

    TAKE = "take"
    IGNORE = "ignore"
    END = "end"
    """It is a violation: say `Bye`, the session is over."""


class Exchange:
    """One side's view of a session: it is told of every message that is sent and received, in that order."""

    __slots__ = ("_candidates", "_descriptions", "_is_violated", "_messages", "_side", "_states")

    def __init__(self, side: Side) -> None:
        self._side = side
        self._states = {Side.INITIATING: State.IDLE, Side.RESPONDING: State.IDLE}
        self._messages = {Side.INITIATING: 0, Side.RESPONDING: 0}
        self._candidates = {Side.INITIATING: 0, Side.RESPONDING: 0}
        self._descriptions: dict[Side, Message] = {}
        self._is_violated = False

    @property
    def state(self) -> State:
        """Of this side."""
        return self._states[self._side]

    @property
    def state_of_peer(self) -> State:
        """As far as it has come."""
        return self._states[self._side.other]

    def may_send(self, message: Message) -> bool:
        """Whether this message has its place now, and is within the budget."""
        is_over = self._is_violated and not isinstance(message, Bye)
        return not is_over and self._is_allowed(self._side, message)

    def send(self, message: Message) -> None:
        """Note that this message is sent. Raises `ValueError` when it may not be."""
        if not self.may_send(message):
            raise ValueError(f"{_name(message)} has no place where the {self._side.value} side is {self.state.value}")
        self._advance(self._side, message)

    def receive(self, message: Message) -> Verdict:
        """Note that this message of the peer's has come, and judge it."""
        peer = self._side.other
        if self._is_violated:
            return Verdict.IGNORE
        is_within = self._messages[peer] < MAX_MESSAGES
        is_late = State.GONE in (self._states[peer], self.state)
        if is_within and (is_late or self._descriptions.get(peer) == message):
            self._messages[peer] += 1
            return Verdict.IGNORE
        if not self._is_allowed(peer, message):
            self._is_violated = True
            return Verdict.END
        self._advance(peer, message)
        return Verdict.TAKE

    def _is_allowed(self, side: Side, message: Message) -> bool:
        return (
            type(message) in SENDS[side][self._states[side]]
            and self._messages[side] < MAX_MESSAGES
            and self._candidates[side] + _candidates_in(message) <= MAX_CANDIDATES
        )

    def _advance(self, side: Side, message: Message) -> None:
        self._states[side] = SENDS[side][self._states[side]][type(message)]
        if (moved := MOVES.get(type(message))) is not None:
            self._states[side.other] = moved
        self._messages[side] += 1
        self._candidates[side] += _candidates_in(message)
        if isinstance(message, Description):
            self._descriptions[side] = message


def _candidates_in(message: Message) -> int:
    match message:
        case Description(candidates=candidates):
            return len(candidates)
        case CandidateFound():
            return 1
        case _:
            return 0


def _name(message: Message) -> str:
    return type(message).__name__
