"""Our STUN codec and aioice's read each other."""

import ipaddress

import pytest
from aioice import stun as theirs
from hypothesis import given
from hypothesis import strategies as st

from quice.stun.attributes import (
    Attribute,
    ChannelNumber,
    ErrorCode,
    IceControlled,
    IceControlling,
    Lifetime,
    Nonce,
    Priority,
    Realm,
    RequestedTransport,
    Software,
    UseCandidate,
    Username,
    XorMappedAddress,
    XorPeerAddress,
    XorRelayedAddress,
)
from quice.stun.message import Kind, Message, Method
from quice.wire import Address

KEY = b"password"
# Ours, and the name and value by which aioice knows the same.
SAME: list[tuple[Attribute, str, object]] = [
    (Username("a:b"), "USERNAME", "a:b"),
    (Priority(7), "PRIORITY", 7),
    (IceControlling(2**63), "ICE-CONTROLLING", 2**63),
    (IceControlled(1), "ICE-CONTROLLED", 1),
    (UseCandidate(), "USE-CANDIDATE", None),
    (XorMappedAddress(Address("192.0.2.1", 1234)), "XOR-MAPPED-ADDRESS", ("192.0.2.1", 1234)),
    (XorMappedAddress(Address("2001:db8::1", 65535)), "XOR-MAPPED-ADDRESS", ("2001:db8::1", 65535)),
    (XorPeerAddress(Address("198.51.100.255", 1)), "XOR-PEER-ADDRESS", ("198.51.100.255", 1)),
    (XorRelayedAddress(Address("203.0.113.0", 9)), "XOR-RELAYED-ADDRESS", ("203.0.113.0", 9)),
    (ErrorCode(487, "Role Conflict"), "ERROR-CODE", (487, "Role Conflict")),
    (Realm("example.org"), "REALM", "example.org"),
    (Nonce(b"once"), "NONCE", b"once"),
    (Software("quice"), "SOFTWARE", "quice"),
    (ChannelNumber(0x4001), "CHANNEL-NUMBER", 0x4001),
    (Lifetime(600), "LIFETIME", 600),
    (RequestedTransport(17), "REQUESTED-TRANSPORT", 0x11000000),
]
IDS = [f"{name}-{index}" for index, (_, name, _) in enumerate(SAME)]


@pytest.mark.parametrize(("ours", "name", "value"), SAME, ids=IDS)
def test_aioice_reads_what_we_write(ours: Attribute, name: str, value: object) -> None:
    data = Message(Method.BINDING, Kind.REQUEST, b"123456789012", (ours,)).encode(KEY)
    message = theirs.parse_message(data)
    assert message.check_message_integrity(KEY) is True
    assert message.message_method == theirs.Method.BINDING
    assert message.transaction_id == b"123456789012"
    assert message.attributes[name] == value


@pytest.mark.parametrize(("ours", "name", "value"), SAME, ids=IDS)
def test_we_read_what_aioice_writes(ours: Attribute, name: str, value: object) -> None:
    message = theirs.Message(theirs.Method.BINDING, theirs.Class.RESPONSE, b"123456789012", {name: value})
    message.add_message_integrity(KEY)
    decoded = Message.decode(bytes(message))
    assert decoded.kind is Kind.SUCCESS
    assert decoded.attributes == (ours,)
    assert decoded.has_fingerprint
    assert decoded.verify(KEY)


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30),
    st.ip_addresses(),
    st.integers(0, 65535),
    st.binary(min_size=12, max_size=12),
    st.binary(min_size=1, max_size=40),
)
def test_both_write_the_same_bytes(
    username: str, ip: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int, identifier: bytes, key: bytes
) -> None:
    host = str(ipaddress.ip_address(ip.packed))
    attributes = (Username(username), XorMappedAddress(Address(host, port)), UseCandidate())
    message = theirs.Message(
        theirs.Method.BINDING,
        theirs.Class.REQUEST,
        identifier,
        {"USERNAME": username, "XOR-MAPPED-ADDRESS": (host, port), "USE-CANDIDATE": None},
    )
    message.add_message_integrity(key)
    assert Message(Method.BINDING, Kind.REQUEST, identifier, attributes).encode(key) == bytes(message)


def test_neither_takes_the_other_s_message_under_another_key() -> None:
    data = Message(Method.BINDING, Kind.REQUEST, b"123456789012").encode(KEY)
    assert theirs.parse_message(data).check_message_integrity(b"another") is False
    message = theirs.Message(theirs.Method.BINDING, theirs.Class.REQUEST, b"123456789012")
    message.add_message_integrity(KEY)
    assert not Message.decode(bytes(message)).verify(b"another")
