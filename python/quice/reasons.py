"""What went wrong on a stream, in words."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl


def reason_of(error: BaseException) -> str:
    """Why a stream could not be opened, or has ended; never empty, and without advice."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        # Those that are not OpenSSL's have no reason.
        return f"no TLS: {getattr(error, 'reason', None) or error}"
    if isinstance(error, OSError) and error.errno and not isinstance(error, socket.gaierror):
        # The event loop has words of its own, which leave the system's out.
        return os.strerror(error.errno)
    if not str(error):
        return _WORDS.get(type(error), type(error).__name__)
    return str(error)


_WORDS: dict[type[BaseException], str] = {
    ConnectionResetError: "it ended the connection as TLS began; perhaps it has none",
    TimeoutError: "it does not answer",
    asyncio.TimeoutError: "it does not answer",
}
