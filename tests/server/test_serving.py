"""`quice serve` as operators run it: a process with TLS, behind a proxy, watched, and told to end."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from quice.signal.protocol import Leaving
from tests.server.peers import raw_peer
from tests.server.processes import serving
from tests.server.test_certificate import name_shown_at, write_certificate
from tests.server.test_entrance import get


async def test_a_process_with_tls_is_watched_reloads_its_certificate_and_drains(tmp_path: Path) -> None:
    chain, key = write_certificate(tmp_path, "before")
    context = ssl.create_default_context(cafile=chain)
    options = ("--tls-cert", chain, "--tls-key", key, "--metrics", "127.0.0.1:0", "--log", "json", "--log-visits")
    async with serving(*options, "--no-relay", "--drain", "20") as process:
        port, (host, _, watched) = int(process.url.rpartition(":")[2]), process.ready["metrics"].rpartition(":")
        assert process.url == f"wss://127.0.0.1:{port}"
        assert await name_shown_at(port) == "before"
        async with raw_peer(process, ssl=context) as peer:  # type: ignore[arg-type]
            await peer.registered()
            await peer.deliver(peer.peer, b"to itself")
            assert await peer.body() == b"to itself"
            metrics = (await get(host, int(watched), "/metrics"))[2].decode()
            assert "\nquice_peers 1.0\n" in metrics
            assert '\nquice_messages_total{outcome="delivered"} 1.0\n' in metrics
            assert (await get(host, int(watched), "/healthz"))[0] == 200

            write_certificate(tmp_path, "after")
            process.send_signal(signal.SIGHUP)
            while await name_shown_at(port) != "after":
                await asyncio.sleep(0.01)

            process.send_signal(signal.SIGTERM)
            assert isinstance(await peer.receive(), Leaving)
            status, _, body = await get(host, int(watched), "/healthz")
            assert (status, json.loads(body)["status"]) == (503, "draining")
            await peer.deliver(peer.peer, b"still served")
            assert await peer.body() == b"still served"
        assert (await process.event())["event"] == "draining"
        status, errors = await asyncio.wait_for(process.ended(), 10)
    assert status == 0
    assert [json.loads(line)["event"] for line in errors.splitlines()] == [
        "registered",
        "certificate-loaded",
        "draining",
        "left",
    ]
    assert str(peer.peer) not in errors
    assert "127.0.0.1" not in errors


async def test_a_process_behind_a_proxy_goes_by_the_addresses_before_it() -> None:
    options = ("--behind-proxy", "127.0.0.0/8", "--max-per-address", "1", "--no-relay")
    watching = ("--log", "json", "--log-visits", "--log-addresses")
    async with serving(*options, *watching) as process:
        one, other = ({"X-Forwarded-For": f"203.0.113.9, 198.51.100.{number}"} for number in (1, 2))
        async with (
            raw_peer(process, additional_headers=one) as first,  # type: ignore[arg-type]
            raw_peer(process, additional_headers=other) as second,  # type: ignore[arg-type]
        ):
            await first.registered()
            await second.registered()
            with pytest.raises(InvalidStatus, match="429"):
                async with raw_peer(process, additional_headers=one):  # type: ignore[arg-type]
                    pass
            port = int(process.url.rpartition(":")[2])
            assert (await get("127.0.0.1", port, "/healthz"))[0] == 200
        process.send_signal(signal.SIGTERM)
        _, errors = await process.ended()
    found = [json.loads(line) for line in errors.splitlines()]
    assert [(line["event"], line["address"]) for line in found][:3] == [
        ("registered", "198.51.100.1"),
        ("registered", "198.51.100.2"),
        ("turned-away", "198.51.100.1"),
    ]
    assert found[0]["peer"] == str(first.peer)


async def test_visits_are_logged_as_text_unless_json_is_asked_for() -> None:
    async with serving("--log-visits", "--no-relay") as process:
        async with raw_peer(process) as peer:  # type: ignore[arg-type]
            await peer.registered()
        process.send_signal(signal.SIGTERM)
        _, errors = await process.ended()
    assert [line.partition(" ")[2] for line in errors.splitlines()][:1] == ["debug: registered"]
