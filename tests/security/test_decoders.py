"""Whatever bytes come, each decoder returns a message of its protocol or raises its one error, and takes no more memory
than what came."""

from __future__ import annotations

import contextlib
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.targets import codes as code_samples
from fuzz.targets import messages as samples
from fuzz.targets import seal, texts
from quice.cli import codes
from quice.cli.runner import UsageError
from quice.errors import (
    DescriptionError,
    PeerBookError,
    SignallingError,
    TicketError,
    TransferProtocolError,
    WrongCodeError,
)
from quice.peers import KnownPeer, PeerBook
from quice.signal import inband, manual, protocol
from quice.signal import messages as signal
from quice.signal.manual import WrittenAnswer, WrittenOffer
from quice.signal.sequence import MessageSequence
from quice.stun import StunDecodeError
from quice.stun.message import Message
from quice.ticket import Ticket
from quice.transfer import messages as transfer


class Decoder(NamedTuple):
    """A function that reads a stranger's bytes, and how it refuses."""

    decode: Callable[[bytes], object]
    refusal: type[Exception]
    samples: tuple[bytes, ...]


def stream(data: bytes) -> list[object]:
    """A control channel's."""
    return list(inband.Sessions(is_client=False).receive(data, 0.0))


def envelope(data: bytes) -> list[bytes]:
    """What is in a session's body, which never raises."""
    return list(MessageSequence().receive(data, 0.0))


def ticket(data: bytes) -> Ticket:
    """A ticket is a text."""
    return Ticket.parse(data.decode("latin-1"))


def sealed(data: bytes) -> bytes | None:
    """What a peer has sealed, which never raises."""
    return seal._AT_BOB.open(data)


def offer(data: bytes) -> WrittenOffer:
    """What is in an offer that people carry, its checksum being right."""
    return WrittenOffer.parse(manual.spelt(manual.OFFER, data))


def answer(data: bytes) -> WrittenAnswer:
    """The same of an answer."""
    return WrittenAnswer.parse(manual.spelt(manual.ANSWER, data))


def payload(data: bytes) -> object:
    """What one side of a code says to the other."""
    return codes._expect(data, codes._Payload)


def book(data: bytes) -> list[KnownPeer]:
    """The file of those whose names are known."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "peers.json"
        path.write_bytes(data)
        return list(PeerBook(path))


DECODERS = {
    "signalling": Decoder(signal.decode, signal.SignalDecodeError, samples.SIGNAL),
    "to a peer": Decoder(protocol.decode_to_peer, protocol.ProtocolDecodeError, samples.TO_PEER),
    "to a server": Decoder(protocol.decode_to_server, protocol.ProtocolDecodeError, samples._TO_SERVER),
    "control frame": Decoder(inband.decode, signal.SignalDecodeError, tuple(each[2:] for each in samples._INBAND)),
    "control channel": Decoder(stream, signal.SignalDecodeError, samples._INBAND),
    "session envelope": Decoder(envelope, SignallingError, samples.ENVELOPES),
    "sealed body": Decoder(sealed, SignallingError, seal._SEALED),
    "offer by hand": Decoder(offer, DescriptionError, (manual.content(manual.OFFER, str(texts._OFFERED)),)),
    "answer by hand": Decoder(answer, DescriptionError, (manual.content(manual.ANSWER, str(texts._ANSWERED)),)),
    "greeting of a code": Decoder(code_samples._claim, WrongCodeError, (code_samples._OPENER.greeting,)),
    "answer to a code": Decoder(code_samples._settle, WrongCodeError, (code_samples._CLAIMANT.answer,)),
    "reply to a code": Decoder(code_samples._CLAIMANT.finish, WrongCodeError, (code_samples._REPLY,)),
    "payload of a code": Decoder(payload, UsageError, code_samples._PAYLOADS),
    "peer book": Decoder(book, PeerBookError, (texts._BOOK.encode(),)),
    "transfer": Decoder(transfer.parse, TransferProtocolError, samples._TRANSFER),
    "STUN": Decoder(Message.decode, StunDecodeError, (b"\0\1\0\0\x21\x12\xa4\x42" + bytes(12),)),
    "ticket": Decoder(ticket, TicketError, (b"quice:a",)),
}
NAMES = ["type", "version", "offer", "candidates", "ufrag", "body", "session", "relays", "urls", "entries", "say", "to"]
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(NAMES) | st.text(), inner, max_size=5),
    max_leaves=20,
)
# MessagePack §"formats": headers of arrays, maps, texts, bytes and extensions that claim four thousand million.
HEADERS = [bytes((kind,)) + b"\xff\xff\xff\xff" for kind in (0xDD, 0xDF, 0xDB, 0xC6, 0xC9)]
DEEP = [b"\x91" * 16_000, b"\x81\xa1x" * 5_000, b"\x92\x91" * 8_000]


@pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS.keys())
@given(data=st.binary(max_size=2000))
@settings(deadline=None)
def test_any_bytes_are_a_message_or_one_error(decoder: Decoder, data: bytes) -> None:
    read(decoder, data)


@pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS.keys())
@given(value=VALUES)
@settings(deadline=None)
def test_any_message_pack_is_a_message_or_one_error(decoder: Decoder, value: object) -> None:
    read(decoder, msgspec.msgpack.encode(value))


@pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS.keys())
@given(data=st.data())
@settings(deadline=None)
def test_a_message_with_something_else_in_it_is_a_message_or_one_error(decoder: Decoder, data: st.DataObject) -> None:
    sample = data.draw(st.sampled_from(decoder.samples))
    start = data.draw(st.integers(0, len(sample)))
    end = data.draw(st.integers(start, min(len(sample), start + 8)))
    read(decoder, sample[:start] + data.draw(st.binary(max_size=8)) + sample[end:])


@pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS.keys())
def test_what_claims_to_be_large_or_is_deep_takes_no_memory(decoder: Decoder) -> None:
    tracemalloc.start()
    try:
        for sample in decoder.samples:
            for bomb in HEADERS + DEEP:
                for at in {0, 1, len(sample) // 2, len(sample) - 1, len(sample)}:
                    read(decoder, sample[:at] + bomb)
                    read(decoder, sample[:at] + bomb + sample[at:])
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


def read(decoder: Decoder, data: bytes) -> None:
    """Decode, and take a refusal for an answer."""
    with contextlib.suppress(decoder.refusal):
        decoder.decode(data)
