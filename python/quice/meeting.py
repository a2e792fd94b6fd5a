"""How a session's two sides come to their one connection: which of them makes it, and what each does meanwhile.

The session's offer names the rule (`Establish`), and both sides apply it to the same things, the offer, the answer and
their keys, so that they agree without another word:

- the initiating agent makes the connection, or
- the peer whose highest candidate address is the lower one: "highest numbered IP address becomes the server"
  (draft-perkins-quic-p2p-mux §3.4), or
- both send Initials, and the connection whose client has the greater `PeerId` survives.

ICE's roles are another matter: the initiating agent controls, whoever makes the connection.

Every handshake names the session it belongs to (`Session.tag`), so that of all that a peer does at once nothing is
taken for something else. What belongs to a session and is not its connection is closed before anybody sees it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from quice.connection import Connection
from quice.errors import ConnectionClosedError, ConnectTimeoutError, HandshakeError
from quice.ice import CandidatePair
from quice.identity import PeerId
from quice.race import Attempt, Race
from quice.signal.messages import Answer, Establish, Offer, Opening
from quice.wire import Address

_SURPLUS = 0x72


def refuse(connection: Connection) -> None:
    """Close a connection that a session does not take for its own."""
    connection.close(_SURPLUS, "another connection is the one of this session")


@dataclass(frozen=True)
class Introduction:
    """What both peers know before either sends a packet to the other."""

    offer: Offer
    answer: Answer
    initiates: bool
    us: PeerId
    peer: PeerId


class Part(Protocol):
    """What one side does for the connection."""

    def on_pairs(self, pairs: Iterable[CandidatePair]) -> None:
        """There may be new pairs; these are all, the best first."""

    def on_heard(self, remote: Address) -> None:
        """Something has come from this address of the peer's."""

    def on_valid(self, pair: CandidatePair) -> None:
        """A check of the pair was answered."""

    def on_handshake(self, connection: Connection) -> None:
        """The peer has made a connection that belongs to this session."""

    def close(self, chosen: Connection | None) -> None:
        """It is decided: end what else was begun."""


class Meeting:
    """One session's way to its connection: it observes the session's pairs and gets the peer's handshakes."""

    def __init__(
        self,
        us: PeerId,
        peer: PeerId | None,
        initiates: bool,
        attempt: Attempt,
        learn: Callable[[Address], None],
        patience: float,
    ) -> None:
        """`attempt` begins a handshake on a pair, `learn` takes in an address of the peer's that a handshake came from.
        peer: set it later if the answer is to say who it is.
        patience: seconds that the handshake may take once the agents have chosen a pair."""
        self.us = us
        self.peer = peer
        self.attempt = attempt
        self.learn = learn
        self._initiates = initiates
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self.began = self._loop.time()
        """On the loop's clock."""
        self.connected: asyncio.Future[Connection] = self._loop.create_future()
        self.pair: CandidatePair | None = None
        """What the connection was made on, if this side made it."""
        self._part: Part | None = None
        self._early: list[Connection] = []
        self._deadline: asyncio.TimerHandle | None = None

    def begin(self, opening: Opening, answer: Answer) -> None:
        """Both sides have described themselves."""
        assert isinstance(opening, Offer)
        assert self.peer is not None
        introduction = Introduction(opening, answer, self._initiates, self.us, self.peer)
        self._part = PARTS[opening.establish](introduction)(self)
        early, self._early = self._early, []
        for connection in early:
            self.on_handshake(connection)

    def on_pairs(self, pairs: Iterable[CandidatePair]) -> None:
        """See `quice.session.Observer`."""
        if self._part is not None and not self.connected.done():
            self._part.on_pairs(pairs)

    def on_heard(self, source: Address) -> None:
        """See `quice.session.Introduced`."""
        if self._part is not None and not self.connected.done():
            self._part.on_heard(source)

    def on_hung_up(self) -> None:
        """See `quice.session.Introduced`: what was said may do."""

    def on_valid(self, pair: CandidatePair) -> None:
        """See `quice.session.Observer`."""
        if self._part is not None and not self.connected.done():
            self._part.on_valid(pair)

    def on_selected(self, pair: CandidatePair) -> None:
        """The agents have chosen: the handshake follows at once, or never."""
        if self._deadline is None and not self.connected.done():
            error = ConnectTimeoutError(self._patience, "no handshake followed")
            self._deadline = self._loop.call_later(self._patience, self.on_failed, error)

    def on_failed(self, error: Exception) -> None:
        """There will be no connection."""
        if self.connected.done():
            return
        if isinstance(error, ConnectionClosedError):
            # It was none yet.
            handshake = HandshakeError(str(error))
            handshake.__cause__ = error
            error = handshake
        self.connected.set_exception(error)

    def on_handshake(self, connection: Connection) -> None:
        """A connection was made to us that names this session."""
        if self.connected.done() or connection._peer != self.peer:
            refuse(connection)
        elif self._part is None:
            # It has overtaken the answer.
            self._early.append(connection)
        else:
            self._part.on_handshake(connection)

    def take(self, connection: Connection, pair: CandidatePair | None = None) -> None:
        """This is the session's connection. `pair`: what this side made it on."""
        if self.connected.done():
            refuse(connection)
            return
        self.pair = pair
        self.connected.set_result(connection)
        self._conclude(connection)

    def close(self) -> None:
        """It is over: nobody waits for a connection any more, and one that is there is for nobody."""
        if not self.connected.done():
            self.connected.cancel()
        elif not self.connected.cancelled() and self.connected.exception() is None:
            self.connected.result().close()
        self._conclude(None)

    def _conclude(self, chosen: Connection | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if self._part is not None:
            self._part.close(chosen)
        for connection in self._early:
            refuse(connection)


class Client:
    """Makes the connection, and takes none of the peer's."""

    def __init__(self, meeting: Meeting) -> None:
        self._meeting = meeting
        self._race = Race(meeting.attempt, meeting.take, meeting.on_failed)
        self.on_pairs = self._race.on_pairs
        self.on_heard = self._race.on_heard
        self.on_valid = self._race.on_valid
        self.close = self._race.close

    def on_handshake(self, connection: Connection) -> None:
        """The peer's does not count, but shows where it can be reached."""
        remotes = [path.remote for path in connection.paths[:1]]
        refuse(connection)
        for remote in remotes:
            self._meeting.learn(remote)
            self._race.on_heard(remote)


class Server:
    """Waits for the connection that the peer makes."""

    def __init__(self, meeting: Meeting) -> None:
        self._meeting = meeting

    def on_pairs(self, pairs: Iterable[CandidatePair]) -> None:
        """The peer makes the connection: there is nothing to try here."""

    def on_heard(self, remote: Address) -> None:
        """Likewise."""

    def on_valid(self, pair: CandidatePair) -> None:
        """Likewise."""

    def on_handshake(self, connection: Connection) -> None:
        """This is it."""
        self._meeting.take(connection)

    def close(self, chosen: Connection | None) -> None:
        """Nothing else was begun."""


class Opener(Server):
    """Waits for the peer's connection, and sends Initials of its own, which open NATs and show where it is: whatever
    becomes of them does not count."""

    def __init__(self, meeting: Meeting) -> None:
        super().__init__(meeting)
        self._race = Race(meeting.attempt, lambda connection, pair: None, lambda error: None)

    def on_pairs(self, pairs: Iterable[CandidatePair]) -> None:
        self._race.on_pairs(pairs)

    def on_heard(self, remote: Address) -> None:
        self._race.on_heard(remote)

    def on_valid(self, pair: CandidatePair) -> None:
        self._race.on_valid(pair)

    def close(self, chosen: Connection | None) -> None:
        self._race.close()


NewPart = Callable[[Meeting], Part]


def by_initiation(introduction: Introduction) -> NewPart:
    """The initiating agent is the client."""
    return Client if introduction.initiates else Server


def by_address(introduction: Introduction) -> NewPart:
    """The peer with the highest address in its offer or answer is the server; if they are equal, the responding one.

    Those of the selected pair would do as well, if both sides knew at every moment which pair that is: while packets
    get lost they do not, and both, or none, would make the connection. The offer and the answer both know.
    """
    initiating_is_server = _highest(introduction.offer) > _highest(introduction.answer)
    return Server if introduction.initiates is initiating_is_server else Client


def by_key(introduction: Introduction) -> NewPart:
    """Both open; the connection of the greater PeerId counts."""
    return Client if introduction.us.key > introduction.peer.key else Opener


PARTS: dict[Establish, Callable[[Introduction], NewPart]] = {
    Establish.INITIATOR: by_initiation,
    Establish.HIGHEST_ADDRESS: by_address,
    Establish.SIMULTANEOUS: by_key,
}


def _highest(description: Offer | Answer) -> tuple[int, int, int]:
    addresses = [candidate.address for candidate in description.candidates]
    return max(((each.ip.version, int(each.ip), each.port) for each in addresses), default=(0, 0, 0))
