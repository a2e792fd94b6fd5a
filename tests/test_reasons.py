"""What went wrong on a stream has words, whatever the system gives."""

from __future__ import annotations

import asyncio
import errno
import ssl

import pytest

from quice.reasons import reason_of


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 1)"), "Connection refused"),
        (OSError("its name has no address"), "its name has no address"),
        (asyncio.TimeoutError(), "it does not answer"),
        (ConnectionResetError(), "it ended the connection as TLS began; perhaps it has none"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), "no TLS: "),
        (EOFError(), "EOFError"),
    ],
)
def test_a_reason_has_words(error: Exception, said: str) -> None:
    assert reason_of(error).startswith(said)
