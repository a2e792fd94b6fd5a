"""What the server logs, and what of it is shown: who its users are only if that was asked for."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from typing import Any

from quice.identity import PeerId

_PRIVATE = ("peer", "address")


def private(peer: bytes, address: str) -> dict[str, Any]:
    """Who a record is about, for `extra`: shown only by a formatter that is told to."""
    return {"peer": peer, "address": address}


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
