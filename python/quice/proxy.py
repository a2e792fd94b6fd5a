"""HTTP proxies that pass byte streams on (RFC 9110 §9.3.6): which one is named, and what is said to it."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

_MAX_ANSWER = 16 << 10
_DEFAULT_PORT = 80
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})(?: ([^\r\n]*))?\r?\n")
_END = re.compile(rb"\r?\n\r?\n")
_LOOPBACK = re.compile(r"localhost|.*\.localhost|127\..*|::1")


class ProxyError(Exception):
    """The proxy does not pass the stream on."""


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy. `authorization`: what it is shown, if it wants to know who asks."""

    host: str
    port: int
    authorization: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> Proxy:
        """Read a proxy's URL, `http://user:password@host:port`. Raises `ProxyError`."""
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            port = parts.port or _DEFAULT_PORT
        except ValueError as error:
            raise ProxyError(f"the proxy's URL is none: {error}") from None
        if parts.scheme != "http" or not parts.hostname:
            raise ProxyError(f"a proxy is named as http://host:port; {parts.scheme}: is not supported")
        authorization = None
        if parts.username is not None:
            user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = f"Basic {base64.b64encode(user.encode()).decode()}"
        return cls(parts.hostname, port, authorization)

    def request(self, host: str, port: int) -> bytes:
        """What asks it for a stream to a host. Raises `ProxyError` for what is no host."""
        if not host.isascii() or not host.isprintable() or " " in host:
            raise ProxyError(f"{host[:80]!r} is no host")
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
        if self.authorization is not None:
            lines.append(f"Proxy-Authorization: {self.authorization}")
        return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def named(host: str, port: int) -> Proxy | None:
    """The proxy for streams to a host: the one of HTTPS_PROXY, on macOS and Windows else that of the system's settings.

    None where NO_PROXY excludes the host, or it is this machine. Raises `ProxyError`.
    """
    url = named_url(host, port)
    return Proxy.parse(url) if url is not None else None


def named_url(host: str, port: int) -> str | None:
    """The same, as it is written."""
    url = getproxies().get("https")
    if not url or _LOOPBACK.fullmatch(host.lower()) or proxy_bypass(f"{host}:{port}"):
        return None
    return url


class Answer:
    """A proxy's answer, as it comes."""

    def __init__(self) -> None:
        self._read = b""

    def feed(self, data: bytes) -> bytes | None:
        """Take in what has come; returns what follows the answer once it is whole. Raises `ProxyError`."""
        self._read += data
        end = _END.search(self._read)
        if end is None:
            if len(self._read) > _MAX_ANSWER:
                raise ProxyError("the proxy's answer has no end")
            return None
        status = _STATUS.match(self._read)
        if status is None:
            raise ProxyError("what answers is no HTTP proxy")
        code = int(status[1])
        if not 200 <= code < 300:
            said = "".join(c for c in (status[2] or b"")[:80].decode("latin-1") if c.isprintable())
            advice = "; give user name and password in the proxy's URL" if code == 407 else ""
            raise ProxyError(f"the proxy answers {code} {said}".rstrip() + advice)
        return self._read[end.end() :]
