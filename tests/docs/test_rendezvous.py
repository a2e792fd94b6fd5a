"""What docs/rendezvous.md says of the protocol is so: keys, limits, and bytes."""

from __future__ import annotations

import re

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from quice.ice import Candidate
from quice.identity import Identity
from quice.server import mailboxes
from quice.signal import hpke, messages, pairing, protocol, registration, sealed, sequence
from quice.signal.seal import Seal
from tests.docs.test_readme import ROOT
from tests.test_identity import clamped

PAGE = (ROOT / "docs/rendezvous.md").read_text()
SENDER, RECEIVER = Identity(b"\1" * 32), Identity(b"\2" * 32)
EPHEMERAL = X25519PrivateKey.from_private_bytes(b"\3" * 32)


class Octets:
    """Randomness that is one octet all over."""

    def __init__(self, octet: int) -> None:
        self._octet = octet

    def getrandbits(self, k: int, /) -> int:
        return int.from_bytes(bytes([self._octet]) * (k // 8), "big")


def table(introduction: str) -> dict[str, str]:
    """The first two columns of the first table after these words."""
    _, _, rest = PAGE.partition(introduction)
    rows = re.match(r"[^|]*\n\|[^\n]*\n\| ---[^\n]*\n((?:\|[^\n]*\n)+)", rest)
    assert rows is not None, introduction
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:3]] for row in rows[1].splitlines()]
    return {re.sub(r"^.*`([^`]+)`$", r"\1", name): value for name, value in cells}


VECTOR = {name: bytes.fromhex(value.strip("`")) for name, value in table("### Test vector").items()}


def test_the_test_vector_is_what_is_sealed_here() -> None:
    seal = Seal(SENDER, RECEIVER.peer, VECTOR["session"], Octets(3))
    agreement = RECEIVER.peer.agreement_key()
    assert VECTOR["sender"] == SENDER.peer.key
    assert VECTOR["receiver"] == RECEIVER.peer.key
    assert VECTOR["receiver's X25519 public key"] == agreement.public_bytes_raw()
    assert VECTOR["receiver's X25519 secret key, clamped"] == clamped(RECEIVER.agreement_key)
    envelope = sequence.Envelope(1, 0, messages.encode(messages.Bye()))
    assert VECTOR["text"] == msgspec.msgpack.encode(envelope)
    assert VECTOR["signature"] == SENDER.sign(VECTOR["context"] + VECTOR["text"])
    assert VECTOR["encapsulated key"] == EPHEMERAL.public_key().public_bytes_raw()
    assert (VECTOR["HPKE's key"], VECTOR["HPKE's nonce"]) == hpke.schedule(
        VECTOR["HPKE's shared secret"], VECTOR["context"]
    )
    assert VECTOR["body"] == seal.seal(VECTOR["text"])
    assert Seal(RECEIVER, SENDER.peer, VECTOR["session"], Octets(3)).open(VECTOR["body"]) == VECTOR["text"]


def test_the_context_is_what_the_page_says() -> None:
    name = re.search(r'context = "([^"]+)"', PAGE)
    assert name is not None
    context = name[1].replace("\\0", "\0").encode() + SENDER.peer.key + RECEIVER.peer.key + VECTOR["session"]
    assert VECTOR["context"] == context
    assert f"{len(context)} bytes" in PAGE


def test_a_registration_signs_what_the_page_says() -> None:
    name = re.search(r'over `"([^"]+)" ‖ nonce ‖ peer` \((\d+) bytes\)', PAGE)
    assert name is not None
    nonce = bytes(range(32))
    signed = name[1].replace("\\0", "\0").encode() + nonce + SENDER.peer.key
    assert signed == protocol.signed_text(nonce, SENDER.peer)
    assert len(signed) == int(name[2])
    assert table("for the nonce 00 01 02") == {"registration": f"`{SENDER.sign(signed).hex()}`"}


@pytest.mark.parametrize(
    ("introduction", "struct"),
    [
        ("`challenge`, from the server:", protocol.Challenge),
        ("`register`, from the peer:", protocol.Register),
        ("`registered`, from the server:", protocol.Registered),
        ("`deliver`, from a peer", protocol.Deliver),
        ("`delivered`, from the server", protocol.Delivered),
        ("`undeliverable`, from the server", protocol.Undeliverable),
        ("`leaving`, from the server", protocol.Leaving),
        ("`relays`, from the server", protocol.Relays),
        ("answers with `refused`", protocol.Refused),
        ("`open_mailbox`, from a peer", protocol.OpenMailbox),
        ("`mailbox_opened`, from the server", protocol.MailboxOpened),
        ("`attend_mailbox`, from its opener", protocol.AttendMailbox),
        ("`claim_mailbox`, from a peer", protocol.ClaimMailbox),
        ("`close_mailbox`, from either", protocol.CloseMailbox),
        ("`mailbox_taken`, from the server", protocol.MailboxTaken),
        ("`put_mailbox`, from either", protocol.PutMailbox),
        ("`mailbox_body`, from the server", protocol.MailboxBody),
        ("`mailbox_closed`, from the server:", protocol.MailboxClosed),
        ("A relay is a map", protocol.RelayServer),
        ("A **description** is", messages.Description),
        ("A **candidate** (", Candidate),
        ("is an **envelope**", sequence.Envelope),
    ],
)
def test_a_message_has_the_keys_that_are_listed_and_the_same_of_them_may_be_left_out(
    introduction: str, struct: type[msgspec.Struct]
) -> None:
    rows = table(introduction)
    assert {name: "default" in kind for name, kind in rows.items()} == {
        field.encode_name: not field.required for field in msgspec.structs.fields(struct)
    }


def test_the_messages_of_a_session_have_the_keys_that_are_listed() -> None:
    described = {field.name for field in msgspec.structs.fields(messages.Description)}
    found = {}
    for name, text in table("The messages, by their `type`.").items():
        keys = set(re.findall(r"(?:^|; )`(\w+)` \(", text))
        found[name] = keys | described if text.startswith("a description") else keys
    kinds = messages.Message.__args__
    assert found == {
        str(kind.__struct_config__.tag): {field.name for field in msgspec.structs.fields(kind)} for kind in kinds
    }


def test_the_bodies_of_a_code_are_those_that_are_made_here() -> None:
    found = {name: bytes.fromhex(value.strip("`")) for name, value in table("and a claimant of 02 likewise").items()}
    password, number = b"crossover-clockwork", 7
    opener = pairing.Opener(password, SENDER.peer, b"of the opener", Octets(1))
    claimant = pairing.Claimant(
        password, number, RECEIVER.peer, SENDER.peer, opener.greeting, b"of the claimant", Octets(2)
    )
    assert (found["greeting"], found["answer"]) == (opener.greeting, claimant.answer)
    assert found["reply"] == opener.settle(number, RECEIVER.peer, claimant.answer).reply
    for key, body, text in (
        (found["first"], found["answer"][33:], b"of the claimant"),
        (found["second"], found["reply"], b"of the opener"),
    ):
        assert ChaCha20Poly1305(key).decrypt(bytes(12), body, None) == text


def test_the_limits_of_mailboxes_are_those_of_the_code() -> None:
    source, peer = mailboxes.CLAIMS_BY_SOURCE, mailboxes.CLAIMS_BY_PEER
    for text in (
        f"at most {protocol.MAX_MAILBOX_BODY} bytes",
        f"1 to {protocol.MAX_MAILBOX} |",
        f"at most {pairing.MAX_PAYLOAD} bytes of its own",
        f"a lifetime of {mailboxes.LIFETIME:.0f} s and a longest of {mailboxes.LONGEST:.0f} s",
        f"{source.burst} claims, then one each {source.interval:.0f} s, from an address",
        f"{peer.burst}, then one each {peer.interval:.0f} s, of a peer",
        f"{mailboxes.MAX_BY_PEER} mailboxes of a peer, {mailboxes.MAX_BY_SOURCE} of an address",
    ):
        assert text in PAGE
    assert (mailboxes.EXCHANGE, mailboxes.REST) == (60, 600)
    assert set(re.findall(r"`(\w+)`: ", PAGE[PAGE.index("| `reason` |") :].splitlines()[0])) == {
        end.value for end in protocol.MailboxEnd
    }


def test_the_limits_and_times_are_those_of_the_code() -> None:
    for value in (protocol.MAX_FRAME, protocol.MAX_BODY, messages.MAX_MESSAGE):
        assert f"{value:,} bytes" in PAGE
    assert f"{protocol.REPLACED} | server" in PAGE
    assert f"{protocol.REFUSED} | server" in PAGE
    first, last = sequence._REPEAT
    assert f"for {first:.0f} s, then after {2 * first:.0f} s, and then every {last:.0f} s" in PAGE
    assert f"there is none within {sequence._SOON} s" in PAGE
    assert f"acknowledged for {sequence._GIVE_UP:.0f} s, or when {sequence.MAX_UNACKNOWLEDGED} messages" in PAGE
    assert f"up to {sequence._AHEAD} beyond" in PAGE
    assert f"remembers the last {sealed._REMEMBERED}," in PAGE
    assert f"repeating for {sealed._LINGER:.0f} s after" in PAGE
    assert f"waits, too, for {registration._GATHERING:.0f} s after" in PAGE
    assert f"| {sealed._MAX_SESSIONS} at once" in PAGE
    assert f"| {sealed._MAX_WAITING} in each session" in PAGE
    first, last = registration._BACKOFF
    assert f"between nothing and {first} s" in PAGE
    assert f"at most {last:.0f} s" in PAGE
