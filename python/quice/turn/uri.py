"""The URIs of STUN and TURN servers (RFC 7064, RFC 7065)."""

from __future__ import annotations

import enum
import ipaddress
import re
from dataclasses import dataclass

from quice.errors import ServerUriError

_PORT = 3478
_TLS_PORT = 5349
_MAX_NAME = 253
# RFC 3986 §3.2.2, without percent-encoding, which no host name needs: a name outside ASCII has its form of RFC 5891.
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_URI = re.compile(r"(?P<host>\[[^]]*]|[^:?\[\]]*)(?::(?P<port>[^?]*))?(?:\?(?P<query>.*))?", re.DOTALL)


class Service(str, enum.Enum):
    """What a server is asked for."""

    STUN = "stun"
    TURN = "turn"


class Transport(str, enum.Enum):
    """How a server is spoken to."""

    UDP = "udp"
    TCP = "tcp"
    TLS = "tls"


@dataclass(frozen=True)
class ServerUri:
    """A server: what for, where, and how. `host` is a name or an IP address, without brackets."""

    service: Service
    host: str
    port: int
    transport: Transport

    @classmethod
    def parse(cls, text: str) -> ServerUri:
        """Read a URI. Raises `ServerUriError`, which says what is wrong with it."""
        scheme, colon, rest = text.partition(":")
        service, secure = scheme.lower().removesuffix("s"), scheme.lower().endswith("s")
        if not colon or service not in Service.__members__.values():
            raise ServerUriError(text, "it does not begin with stun:, stuns:, turn: or turns:")
        if rest.startswith("/"):
            raise ServerUriError(text, "there are no slashes behind the colon")
        if "@" in rest:
            raise ServerUriError(text, "user name and password are given beside it, not in it")
        match = _URI.fullmatch(rest)
        if match is None:
            raise ServerUriError(text, "an IPv6 address stands in brackets")
        host = _host(text, match["host"])
        port = _port(text, match["port"], _TLS_PORT if secure else _PORT)
        return cls(Service(service), host, port, _transport(text, Service(service), secure, match["query"]))

    def __str__(self) -> str:
        secure = self.transport is Transport.TLS
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == (_TLS_PORT if secure else _PORT) else f":{self.port}"
        query = "?transport=tcp" if self.transport is Transport.TCP else ""
        return f"{self.service.value}{'s' if secure else ''}:{host}{port}{query}"


def _host(text: str, host: str) -> str:
    if host.startswith("["):
        try:
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            raise ServerUriError(text, "there is no IPv6 address in the brackets") from None
    if not _NAME.fullmatch(host) or len(host) > _MAX_NAME:
        raise ServerUriError(text, "it names no host" if not host else "its host is no name or address")
    return host.lower()


def _port(text: str, port: str | None, default: int) -> int:
    if port is None:
        return default
    if not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 1 << 16:
        raise ServerUriError(text, "a port is a number from 1 to 65535")
    return int(port)


def _transport(text: str, service: Service, secure: bool, query: str | None) -> Transport:
    """RFC 7065 §3.2 and RFC 5928: `turns` is TLS over TCP unless it says otherwise. RFC 7064: `stun` says nothing."""
    if query is None:
        return Transport.TLS if secure else Transport.UDP
    key, _, value = query.lower().partition("=")
    if service is Service.STUN or key != "transport":
        raise ServerUriError(text, "nothing but ?transport=... may follow, and only with turn: and turns:")
    if secure and value == "udp":
        raise ServerUriError(text, "DTLS is not supported; without ?transport=udp it is TLS")
    if value not in ("udp", "tcp"):
        raise ServerUriError(text, "the transport is udp or tcp")
    return Transport.TLS if secure else Transport(value)
