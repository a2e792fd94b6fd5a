"""Messages between peers, and between peers and the rendezvous server."""

from __future__ import annotations

import random
from collections import deque

import msgspec

from fuzz.target import Target, parser, require
from quice.errors import TransferProtocolError
from quice.ice import Agent, Candidate, CandidateKind, Role
from quice.signal import inband, protocol
from quice.signal import messages as signal
from quice.signal.sequence import Envelope, MessageSequence
from quice.signal.session import MAX_CANDIDATES, MAX_MESSAGES, Exchange, Side, Verdict
from quice.transfer import messages as transfer
from quice.wire import Address

_KEY = bytes(range(32))
_SESSION = bytes(16)
_CANDIDATES = (
    Candidate(kind=CandidateKind.HOST, address=Address("10.0.0.1", 5000), priority=2130706431, foundation="abc"),
    Candidate(
        kind=CandidateKind.SERVER_REFLEXIVE,
        address=Address("198.51.100.1", 40000),
        priority=1694498815,
        foundation="def",
        related_address=Address("10.0.0.1", 5000),
    ),
    Candidate(kind=CandidateKind.HOST, address=Address("fe80::1", 5000), priority=2130706175, foundation="ghi"),
)
_PWD = "0123456789abcdef012345"

_RELAY = protocol.RelayServer(
    urls=("turn::3478?transport=udp", "turns:relay.example.org"), username="1:me", password="secret", lifetime=3600.0
)

SIGNAL = tuple(
    signal.encode(message)
    for message in (
        signal.Offer(version=1, ufrag="abcd", pwd=_PWD, alpn="test/1", candidates=_CANDIDATES),
        signal.Restart(
            version=1, ufrag="abcd", pwd=_PWD, continues=bytes(8), heard=("efgh", "ijkl"), candidates=_CANDIDATES
        ),
        signal.Answer(ufrag="efgh", pwd=_PWD, candidates=_CANDIDATES[:1]),
        signal.CandidateFound(candidate=_CANDIDATES[1]),
        signal.EndOfCandidates(),
        signal.Refuse(reason=signal.RefuseReason.ALPN, text="no"),
        signal.Bye(),
    )
)
WORDS = (*(signal.decode(data) for data in SIGNAL), signal.Answer(ufrag="other", pwd=_PWD))
TO_PEER = tuple(
    protocol.encode(message)
    for message in (
        protocol.Challenge(version=1, nonce=_KEY),
        protocol.Registered(stun_port=3478),
        protocol.Registered(stun_port=3478, relays=(_RELAY,)),
        protocol.Relays(relays=(_RELAY, _RELAY)),
        protocol.Delivered(sender=_KEY, session=_SESSION, body=SIGNAL[0]),
        protocol.Undeliverable(to=_KEY, session=_SESSION),
        protocol.MailboxOpened(number=7, lifetime=600.0, longest=3600.0),
        protocol.MailboxTaken(number=7, peer=_KEY),
        protocol.MailboxBody(number=7, peer=_KEY, body=_KEY),
        protocol.MailboxClosed(number=7, reason=protocol.MailboxEnd.GONE),
        protocol.Refused(text="no"),
        protocol.Leaving(within=10.0),
    )
)
_TO_SERVER = tuple(
    protocol.encode(message)
    for message in (
        protocol.Register(version=1, peer=_KEY, signature=bytes(64)),
        protocol.Deliver(to=_KEY, session=_SESSION, body=SIGNAL[1]),
        protocol.OpenMailbox(body=_KEY),
        protocol.AttendMailbox(number=7),
        protocol.ClaimMailbox(number=999_999),
        protocol.PutMailbox(number=7, body=_KEY),
        protocol.CloseMailbox(number=7),
    )
)
_INBAND = (
    b"".join(
        inband.encode(frame)
        for frame in (
            inband.Hello(version=1),
            inband.Say(session=0, body=SIGNAL[0]),
            inband.Say(session=0, body=SIGNAL[2]),
            inband.Say(session=2, body=SIGNAL[0]),
            inband.End(session=0),
        )
    ),
)
_TRANSFER = tuple(
    transfer.frame(message)[4:]
    for message in (
        transfer.Fetch(),
        transfer.Manifest(
            entries=[
                transfer.Entry(transfer.EntryKind.FOLDER, "folder"),
                transfer.Entry(transfer.EntryKind.FILE, "folder/file", 1 << 40, True),
            ]
        ),
        transfer.Wants(wants=[transfer.Want(0), transfer.Want(1, 1 << 20, bytes(32))]),
        transfer.FileHeader(index=1, offset=1 << 20),
        transfer.Done(),
    )
)


def _check_signal(message: signal.Message, data: bytes) -> None:
    """What was read means the same after another passage, and is safe to hand to an agent."""
    require(signal.decode(signal.encode(message)) == message, "a message changed on its way through the codec")
    agent = Agent(Role.CONTROLLED, random.Random(1), 0.0)
    agent.add_local_candidate(_CANDIDATES[0], 0.0)
    match message:
        case signal.Description():
            agent.set_remote_credentials(message.ufrag, message.pwd, 0.0)
            for candidate in message.candidates:
                agent.add_remote_candidate(candidate, 0.0)
        case signal.CandidateFound():
            agent.set_remote_credentials("abcd", _PWD, 0.0)
            agent.add_remote_candidate(message.candidate, 0.0)
        case _:
            pass
    agent.handle_timeout(0.0)
    list(agent.transmits())


def _hear(data: bytes) -> list[inband.Event]:
    """What one side of a control channel is told, in two pieces."""
    sessions, half = inband.Sessions(is_client=False), len(data) // 2
    return [event for piece in (data[:half], data[half:]) for event in sessions.receive(piece, 0.0)]


def _check_inband(events: list[inband.Event], data: bytes) -> None:
    """Only what has begun goes on, and only once; messages are safe to hand to an agent."""
    opened: set[int] = set()
    for event in events:
        match event:
            case inband.Begun(session):
                require(session % 2 == 0 and session not in opened, "a session that can't be")
                opened.add(session)
            case inband.Said(session, message):
                require(session in opened, "a message in a session that is not open")
                _check_signal(message, data)
            case inband.Ended(session):
                require(session in opened, "an end of nothing")
                opened.remove(session)
    require(len(opened) <= inband.MAX_SESSIONS, "too many sessions")


def _check_to_peer(message: protocol.ToPeer, data: bytes) -> None:
    require(protocol.decode_to_peer(protocol.encode(message)) == message, "a message changed in the codec")


def _check_to_server(message: protocol.ToServer, data: bytes) -> None:
    require(protocol.decode_to_server(protocol.encode(message)) == message, "a message changed in the codec")


def _check_transfer(message: transfer.Message, data: bytes) -> None:
    require(transfer.parse(transfer.frame(message)[4:]) == message, "a message changed in the codec")


ENVELOPES = tuple(
    msgspec.msgpack.encode(envelope)
    for envelope in (
        Envelope(0, 0),
        Envelope(1, 0, SIGNAL[0]),
        Envelope(2, 1, SIGNAL[1]),
        Envelope(300, 70_000, b"x"),
        (1, 0, SIGNAL[6], "of a later version", []),
    )
)


def _receive(data: bytes) -> MessageSequence:
    sequence = MessageSequence()
    for message in (b"one", b"two"):
        sequence.send(message, 0.0)
    sequence.receive(data, 0.0)
    return sequence


def _check_received(sequence: MessageSequence, data: bytes) -> None:
    now = 0.0
    while (when := sequence.timeout()) is not None:
        require(when >= now, "a timeout before the last one")
        now = when
        sequence.handle_timeout(now)
        require(len(list(sequence.transmits())) <= 2, "more sent than there is")
    require(now < 60, "a session that is repeated without an end")


def _play_exchange(rng: random.Random) -> None:
    """Two sides that go by the rules, and a third, in whose place anybody speaks."""
    ends = {side: Exchange(side) for side in Side}
    on_the_way: dict[Side, deque[signal.Message]] = {side: deque() for side in Side}
    victim, verdicts = Exchange(rng.choice(list(Side))), []
    candidates = 0
    for _ in range(rng.choice((5, 10, 20, 40, 600))):
        message = rng.choice(WORDS)
        side = rng.choice(list(Side))
        if rng.random() < 0.5:
            if ends[side].may_send(message):
                ends[side].send(message)
                on_the_way[side].append(message)
        elif on_the_way[side]:
            judged = ends[side.other].receive(on_the_way[side].popleft())
            require(judged is not Verdict.END, "a side that goes by the rules has offended the other")
        if victim.may_send(message) and rng.random() < 0.3:
            require(Verdict.END not in verdicts or message == signal.Bye(), "it went on after a violation")
            victim.send(message)
        verdicts.append(victim.receive(message))
        if verdicts[-1] is Verdict.TAKE:
            candidates += len(getattr(message, "candidates", ())) + isinstance(message, signal.CandidateFound)
    require(verdicts.count(Verdict.TAKE) <= MAX_MESSAGES and candidates <= MAX_CANDIDATES, "the budget was overrun")
    require(verdicts.count(Verdict.END) <= 1, "a session has ended twice")


TARGETS = (
    Target("signalling-session", _play_exchange),
    parser("signal-message", SIGNAL, signal.decode, signal.SignalDecodeError, _check_signal),
    parser("control-channel", _INBAND, _hear, signal.SignalDecodeError, _check_inband),
    parser("session-envelope", ENVELOPES, _receive, (), _check_received),
    parser("rendezvous-to-peer", TO_PEER, protocol.decode_to_peer, protocol.ProtocolDecodeError, _check_to_peer),
    parser(
        "rendezvous-to-server", _TO_SERVER, protocol.decode_to_server, protocol.ProtocolDecodeError, _check_to_server
    ),
    parser("transfer-message", _TRANSFER, transfer.parse, TransferProtocolError, _check_transfer),
)
