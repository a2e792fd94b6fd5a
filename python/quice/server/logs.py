"""What the server logs, and what of it is shown: who its users are only if that was asked for."""

from __future__ import annotations

import enum
import json
import logging
from datetime import datetime, timezone
from typing import Any

from quice.identity import PeerId

_PRIVATE = ("peer", "address")


class Event(str, enum.Enum):
    """What is logged, by names that stay. `docs/server.md` says what each means."""

    REGISTERED = "registered"
    LEFT = "left"
    REFUSED = "refused"
    TURNED_AWAY = "turned-away"
    MAILBOXES_LOST = "mailboxes-lost"
    DRAINING = "draining"
    REDIS_LOST = "redis-lost"
    REDIS_BACK = "redis-back"
    STRANGE_PARCEL = "strange-parcel"
    CERTIFICATE_LOADED = "certificate-loaded"
    CERTIFICATE_UNUSABLE = "certificate-unusable"
    NO_RELAYED_ADDRESS = "no-relayed-address"


def about(event: Event, peer: bytes = b"", address: str = "") -> dict[str, Any]:
    """What has happened and to whom, for `extra`; to whom is shown only by a formatter that is told to."""
    return {"event": event.value, "peer": peer, "address": address}


class Lines(logging.Formatter):
    """A record as a line: JSON, or text for people."""

    def __init__(self, *, as_json: bool, addresses: bool) -> None:
        """`addresses`: whether to show addresses and PeerIds of users."""
        super().__init__()
        self._as_json = as_json
        self._addresses = addresses

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        when = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        fields = {"time": when, "level": record.levelname.lower(), "from": record.name, "text": record.getMessage()}
        if event := getattr(record, "event", None):
            fields["event"] = event
        fields |= self._about(record)
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        if self._as_json:
            return json.dumps(fields)
        about = "".join(f" {name}={fields[name]}" for name in _PRIVATE if name in fields)
        error = f"\n{fields['error']}" if "error" in fields else ""
        return f"{when} {record.levelname.lower()}: {fields['text']}{about}{error}"

    def _about(self, record: logging.LogRecord) -> dict[str, str]:
        if not self._addresses:
            return {}
        peer, address = (getattr(record, name, None) for name in _PRIVATE)
        about = {"peer": str(PeerId(peer))} if peer else {}
        return about | ({"address": address} if address else {})


def log_to(stream: Any, *, as_json: bool, visits: bool, addresses: bool) -> None:
    """Have what the server logs written to a stream, a line each. `visits`: also who comes, leaves and is refused;
    strangers can make that as much as they like.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Lines(as_json=as_json, addresses=addresses))
    logger = logging.getLogger("quice.server")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if visits else logging.INFO)
    logger.propagate = False
