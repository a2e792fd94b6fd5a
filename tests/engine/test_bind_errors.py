"""What the system refuses, Python is told with the system's own number: by it callers tell the reasons apart."""

from __future__ import annotations

import errno

import pytest

from quice import _native
from quice.config import TransportConfig


def test_a_port_that_is_taken_and_an_address_that_is_not_here_have_their_numbers() -> None:
    engine = _native.Engine(_native.Credentials.raw_key(bytes(32)), [], TransportConfig(), sockets=True)
    _, (host, port) = engine.bind("127.0.0.1", 0)
    for local, number in (((host, port), errno.EADDRINUSE), (("192.0.2.77", 0), errno.EADDRNOTAVAIL)):
        with pytest.raises(OSError, match=r"\[Errno \d+\] [^(]+$") as refused:
            engine.bind(*local)
        assert refused.value.errno == number
    engine.close()
