"""The certificate of a server with TLS, which is renewed while it runs."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl

from quice.errors import CertificateError
from quice.server.logs import Event, about

logger = logging.getLogger(__name__)

_LOOK = 60.0
"""Seconds between two looks whether the files are others."""


class Certificate:
    """A certificate with its key, in files. Raises `CertificateError` if these are not usable."""

    def __init__(self, certificate: str, key: str) -> None:
        """`certificate`: with the chain, PEM. `key`: its secret key, PEM, without a password."""
        self._files = (certificate, key)
        self.context = _context(self._files)
        self._seen = self._changed()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """Look from time to time whether the files are others, and load them then."""
        if (changed := self._changed()) != self._seen:
            self._seen = changed
            self.reload()
        self._timer = asyncio.get_running_loop().call_later(_LOOK, self.watch)

    def reload(self) -> None:
        """Load the files for the connections to come. What can't be used is logged, and changes nothing."""
        try:
            # Tried first: a context that has got a certificate without its key would be of no use.
            _context(self._files)
            self.context.load_cert_chain(*self._files)
        except CertificateError as error:
            logger.warning("%s; the one until now is used on", error, extra=about(Event.CERTIFICATE_UNUSABLE))
        else:
            logger.info("the certificate is loaded anew", extra=about(Event.CERTIFICATE_LOADED))

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _changed(self) -> list[float]:
        try:
            return [os.stat(name).st_mtime for name in self._files]
        except OSError:
            # In the middle of being replaced.
            return self._seen if hasattr(self, "_seen") else []


def _context(files: tuple[str, str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(*files, password=lambda: "")
    except (OSError, ssl.SSLError, ValueError) as error:
        raise CertificateError(", ".join(files), str(error)) from error
    return context
