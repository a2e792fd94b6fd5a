"""Every public exception of quice. Each says what happened and what to do next."""

from __future__ import annotations

import errno
import os
import socket


class Error(Exception):
    """The base of all errors that quice raises for reasons outside the calling program."""


class IdentityError(Error):
    """An identity could not be read, or not be saved."""

    def __init__(self, detail: str, advice: str = "Make a new one with Identity.generate()") -> None:
        super().__init__(f"cannot use this identity: {detail}. {advice}")


class InvalidPeerIdError(Error, ValueError):
    """A text or key is not a peer id."""

    def __init__(self, text: str) -> None:
        super().__init__(
            f"not a peer id: {text[:80]!r}. A peer id has 52 characters of base32; `quice id` prints yours"
        )


class PeerBookError(Error):
    """The file with the names of peers can't be used."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"the peers in {path} can't be read or stored: {reason}. Mend the file, or move it away")


class PeerNameError(Error, ValueError):
    """A text can't be the name of a peer."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"not a name for a peer: {name[:80]!r}. Take letters and digits, with dots and dashes between, 64 at most"
        )


class UnknownPeerError(Error):
    """No peer has this name."""

    def __init__(self, name: str, near: str | None = None) -> None:
        perhaps = f" (perhaps {near!r} is meant)" if near else ""
        super().__init__(
            f"no peer is called {name[:80]!r}{perhaps}. `quice peers` lists those that have names, and `quice pair` "
            "gives one to another"
        )


class EndpointClosedError(Error):
    """The endpoint was closed, by this program."""

    def __init__(self) -> None:
        super().__init__("this endpoint is closed. Do what needs it inside its `async with` block")


class BindError(Error):
    """The local address could not be bound."""

    def __init__(self, address: str, error: Exception) -> None:
        """`error`: an `OSError`, or a `ValueError` for what is no IP address."""
        is_none = isinstance(error, ValueError | socket.gaierror)
        code = error.errno if isinstance(error, OSError) and not is_none else None
        # Python's own text for the system's code has the address in it once more.
        reason = os.strerror(code) if code else getattr(error, "strerror", None) or str(error)
        if is_none or code == errno.EADDRNOTAVAIL:
            advice = "Name an address of this machine, or none for all of them"
        else:
            advice = "Choose another port, or 0 to let the system choose"
        super().__init__(f"cannot bind {address}: {reason}. {advice}")


class StoreUnreachableError(Error):
    """What the processes of a service share could not be reached as one of them began."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"cannot reach Redis: {reason.rstrip('.')}. Check that it runs, and the URL after --redis")


class CertificateError(Error):
    """A certificate or its key can't be used."""

    def __init__(self, files: str, reason: str) -> None:
        super().__init__(f"cannot use {files}: {reason}. It takes PEM files: the chain, and its key without a password")


class NoServerError(Error):
    """A peer was to be found, but nobody was named who could help."""

    def __init__(self) -> None:
        super().__init__(
            "this endpoint has no rendezvous server to find peers with. Give Endpoint.bind(server=...) one "
            "(`quice serve` runs it), or connect(address=...) the peer's address"
        )


class ConnectError(Error):
    """A connection could not be made. The base of the ways in which that fails."""


class ConnectTimeoutError(ConnectError, TimeoutError):
    """No connection came about in the time allowed."""

    def __init__(self, seconds: float, detail: str = "") -> None:
        about = f": {detail}" if detail else ""
        super().__init__(
            f"no connection within {seconds:g} s{about}. Check that the peer is running; "
            "a slow network may need a longer timeout"
        )


class HandshakeError(ConnectError):
    """The peer answered, but the TLS or QUIC handshake failed."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the handshake failed: {reason}. Check that the peer id is the one you mean and that both sides "
            "name the same alpn"
        )


class NoPathError(ConnectError):
    """No pair of candidates of the two peers can reach each other."""

    def __init__(self, reason: str, advice: str = "") -> None:
        """`advice`: what helps, where it is not another relay."""
        self.reason = reason
        other_relay = (
            "Without a relay, one of the two networks at least must let UDP in from an address it has sent to. "
            "`quice serve` relays unless it was told not to; Endpoint.bind(relays=...) and `--relay` name other relays"
        )
        super().__init__(f"no path to the peer: {reason}. {advice or other_relay}")


class ConnectionClosedError(Error):
    """The connection is over. The base of the ways in which it ends."""


class LocallyClosedError(ConnectionClosedError):
    """This program closed the connection."""

    def __init__(self) -> None:
        super().__init__("the connection was closed by this program. Make a new one to go on")


class PeerClosedError(ConnectionClosedError):
    """The peer's application closed the connection, with a code and a reason."""

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason
        why = f": {reason}" if reason else ""
        super().__init__(
            f"the peer closed the connection with code {code}{why}. What the code means is for the application"
        )


class PeerInterruptedError(ConnectionClosedError):
    """The other side of `quice connect` was ended before everything had arrived."""

    def __init__(self) -> None:
        super().__init__(
            "the other side was interrupted, or failed, before everything had arrived. Begin again on both sides"
        )


class RemoteInterruptedError(ConnectionClosedError):
    """The other side of a transfer was ended, as by Ctrl-C, before everything had arrived."""

    def __init__(self) -> None:
        super().__init__(
            "the other side was interrupted. What has arrived is kept: once it sends again, receive by its new code or "
            "ticket into the same folder, which goes on where it was"
        )


class ConnectionLostError(ConnectionClosedError):
    """The connection broke. The base of the ways in which that happens."""


class IdleTimeoutError(ConnectionLostError):
    """Nothing was heard from the peer for the idle timeout."""

    def __init__(self) -> None:
        super().__init__(
            "nothing was heard from the peer for the idle timeout. It is gone or its network is; connect again"
        )


class PeerRestartedError(ConnectionLostError):
    """The peer does not know the connection any more."""

    def __init__(self) -> None:
        super().__init__("the peer does not know this connection any more: it was restarted. Connect again")


class ProtocolError(ConnectionLostError):
    """One side saw the other break QUIC."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"QUIC failed: {reason}. If both sides are up to date, please report it")


class StreamError(Error):
    """A stream is over in a way the program did not ask for."""


class StreamResetError(StreamError):
    """The peer abandoned its half of the stream."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(f"the peer reset the stream with code {code}. What was not read of it is lost")


class StreamStoppedError(StreamError):
    """The peer reads no more of the stream."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(f"the peer stopped reading with code {code}. Write no more to this stream")


class StreamClosedError(StreamError):
    """This half of the stream is over, by an earlier call, or never was."""

    def __init__(self) -> None:
        super().__init__(
            "this half of the stream is over: finished, reset or stopped before, or one-way. Open a new stream"
        )


class DatagramError(Error):
    """A datagram can't be sent on this connection."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}. Connection.max_datagram_size tells what fits; streams take anything")


class SignallingError(ConnectError):
    """Messages to the peer can't be exchanged. The base of the ways in which that fails."""

    @classmethod
    def not_understood(cls, error: ValueError) -> SignallingError:
        """What came was none of its messages."""
        return SignallingError(
            f"the peer's message was not understood: {error}. Check that what carries the messages leaves them as they "
            "are, and that both sides run versions of quice that understand each other"
        )


class SignallingClosedError(SignallingError):
    """The session was ended."""

    def __init__(self) -> None:
        super().__init__("the signalling session is over. Begin a new one by connecting again")


class SignallingViolationError(SignallingError):
    """The peer said something in a session that had no place there, or too much; the session was ended."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"the peer has broken the rules of the exchange, by its {what}. Check that what carries the messages keeps "
            "their order, and that both sides run versions of quice that understand each other"
        )


class ServerUnreachableError(SignallingError):
    """The rendezvous server can't be reached, or does not do its work."""

    def __init__(self, url: str, reason: str) -> None:
        self.url = url
        self.reason = reason
        super().__init__(
            f"the rendezvous server {url} can't be reached: {reason}. Check the URL (ws:// or wss://) and that "
            "`quice serve` runs there"
        )


class PeerUnreachableError(SignallingError):
    """The rendezvous server does not know the peer."""

    def __init__(self, peer: str) -> None:
        super().__init__(
            f"the peer {peer} is not registered with the rendezvous server. Check that it runs, and names the "
            "same server"
        )


class RefusedError(ConnectError):
    """The peer refused to connect. `reason`: a word for why."""

    def __init__(self, reason: str, text: str = "") -> None:
        self.reason = reason
        super().__init__(
            f"the peer refused ({reason}){': ' + text if text else ''}. Check that both sides run the same application"
        )


class DescriptionError(Error, ValueError):
    """A text is no offer or answer of a session, or not the one that belongs here."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"this text is not what belongs here: {reason}. Copy all that the other side shows, from its first word on"
        )


class RelayError(ConnectError):
    """A relay can't be used. The base of the ways in which that fails."""


class RelayUnreachableError(RelayError):
    """No byte stream to the relay can be opened."""

    def __init__(self, server: str, reason: str) -> None:
        super().__init__(
            f"the relay {server} can't be reached: {reason}. Check its name and port, and whether this network lets "
            "it through; relays on port 443 with TLS pass most firewalls"
        )


class ServerUriError(Error, ValueError):
    """A text is not the URI of a STUN or TURN server."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(
            f"not the URI of a STUN or TURN server: {text[:80]!r} ({reason}). Write turn:HOST, turn:HOST:PORT, "
            "turn:HOST?transport=tcp, turns:HOST or stun:HOST"
        )


class TicketError(Error, ValueError):
    """A text is not a ticket."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"not a valid ticket: {reason}. Copy it again, whole, as it was printed on the other machine")


class CodeError(Error):
    """A code did not bring two peers together. The base of the ways in which that fails."""


class InvalidCodeError(CodeError, ValueError):
    """A text is not a code."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(
            f"not a code: {text[:80]!r} ({reason}). A code is a number and two words, such as 7-crossover-clockwork"
        )


class WrongCodeError(CodeError):
    """The two sides do not know the same code, or somebody between them has taken the place of one. It is burnt."""

    def __init__(self) -> None:
        super().__init__(
            "the code is wrong, or somebody else has tried to guess it. It is of no use any more: ask for a new one"
        )


class GuessedCodesError(CodeError):
    """One wrong code after the other was tried."""

    def __init__(self, count: int) -> None:
        super().__init__(
            f"{count} wrong codes were tried, one after the other: perhaps somebody guesses. Find out who tries, and "
            "run the command again"
        )


class CodeGoneError(CodeError):
    """The server has no such code for this peer (any more)."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"{reason}. A code is good for one try, and as long as the other side waits: ask for a new one, and check "
            "that both sides name the same server"
        )


class CodeLimitError(CodeError):
    """The server lets this peer, or its network, have or try no more codes for now."""

    def __init__(self) -> None:
        super().__init__(
            "the server takes no more codes from this network for now, for there were too many. Wait a minute, and try "
            "again"
        )


class TransferError(Error):
    """Files could not be transferred. The base of the ways in which that fails."""

    @property
    def for_peer(self) -> str:
        """What the other side is told of it."""
        return str(self)


class UnsafePathError(TransferError):
    """The other side named a file that would not stay in the target folder."""

    def __init__(self, path: str, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"the sender names a file that is not safe to write: {path[:200]!r} ({reason}). Nothing of it was "
            "written; ask the sender to rename it"
        )


class TransferProtocolError(TransferError):
    """The other side does not keep to the transfer protocol."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the other side breaks the transfer protocol: {reason}. Use the same version on both sides")


class DigestError(TransferError):
    """A file arrived differently than it was sent."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} arrived damaged, or changed while it was sent. It was not stored; receive it again")


class LocalFileError(TransferError):
    """A file of this side can't be read or written."""

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{path}: {reason}. Mend that and run the same command again: it goes on where it was")

    @property
    def for_peer(self) -> str:
        """What the other side is told of it: the name, not where on this machine it lies."""
        return f"{os.path.basename(self.path)}: {self.reason}"


class RemoteFileError(TransferError):
    """The other side gave up, most often because it can't read or write a file."""

    def __init__(self, text: str) -> None:
        super().__init__(
            f"the other side gave up: {text.rstrip('.')}. Once that is mended there, receive again: it goes on "
            "where it was"
        )


class WrongTicketError(TransferError):
    """A receiver came with a ticket that does not hold this offer's secret."""

    def __init__(self) -> None:
        super().__init__(
            "a receiver came without the right ticket. Copy the ticket again, whole, as `quice send` printed it"
        )


class NotPairedError(TransferError):
    """The receiver takes nothing from this peer."""

    def __init__(self) -> None:
        super().__init__(
            "the other side takes nothing from this machine: it does not know it, or waits for others alone. Pair "
            "again (`quice pair`), or look at the --from of its `quice receive`"
        )


class PingError(Error):
    """The peer answers, but not to pings."""

    def __init__(self) -> None:
        super().__init__("the peer ended a ping without an answer. Check that `quice ping` runs there, in this version")
