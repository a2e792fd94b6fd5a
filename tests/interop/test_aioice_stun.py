"""Our STUN codec and aioice's read each other."""

from aioice import stun as theirs

from quice.stun.attributes import IceControlling, Priority, UseCandidate, Username, XorMappedAddress
from quice.stun.message import Kind, Message, Method
from quice.wire import Address


def test_aioice_reads_our_connectivity_check() -> None:
    attributes = (Username("a:b"), Priority(7), IceControlling(2**63), UseCandidate())
    data = Message(Method.BINDING, Kind.REQUEST, b"123456789012", attributes).encode(b"password")
    message = theirs.parse_message(data)
    assert message.check_message_integrity(b"password") is not False
    assert message.message_method == theirs.Method.BINDING
    assert message.attributes["USERNAME"] == "a:b"
    assert message.attributes["PRIORITY"] == 7
    assert message.attributes["ICE-CONTROLLING"] == 2**63
    assert "USE-CANDIDATE" in message.attributes


def test_we_read_aioices_response() -> None:
    for host in ("192.0.2.1", "2001:db8::1"):
        message = theirs.Message(
            message_method=theirs.Method.BINDING,
            message_class=theirs.Class.RESPONSE,
            transaction_id=b"123456789012",
        )
        message.attributes["XOR-MAPPED-ADDRESS"] = (host, 1234)
        message.add_message_integrity(b"password")
        decoded = Message.decode(bytes(message))
        assert decoded.kind is Kind.SUCCESS
        assert decoded.has_fingerprint
        assert decoded.verify(b"password")
        assert decoded.get(XorMappedAddress) == XorMappedAddress(Address(host, 1234))
