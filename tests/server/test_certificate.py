"""The rendezvous over TLS, with a certificate that is renewed while it runs."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from interop.certificates import certify
from quice.errors import CertificateError
from quice.server import Server, certificate
from quice.server.entrance import Access
from tests.server.peers import raw_peer, until


def write_certificate(directory: Path, name: str) -> tuple[str, str]:
    """A self-signed certificate for 127.0.0.1 and its key; `name` tells it from others."""
    certify(directory, "127.0.0.1", subject=name)
    chain, secret = directory / "cert.pem", directory / "key.pem"
    return str(chain), str(secret)


async def shown_by(server: Server) -> str:
    """The name in the certificate that the server shows."""
    return await name_shown_at(int(server.url.rpartition(":")[2]))


async def name_shown_at(port: int) -> str:
    """The name in the certificate that is shown at a port of this machine."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    (name,) = x509.load_der_x509_certificate(shown).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(name.value)


async def test_peers_register_over_tls_and_trust_the_certificate(tmp_path: Path) -> None:
    files = write_certificate(tmp_path, "one")
    context = ssl.create_default_context(cafile=files[0])
    async with Server("127.0.0.1", 0, 0, access=Access(certificate=files)) as server:
        assert server.url.startswith("wss://127.0.0.1:")
        async with raw_peer(server, ssl=context) as one, raw_peer(server, ssl=context) as other:
            await one.registered()
            await other.registered()
            await one.deliver(other.peer, b"hello")
            assert await other.body() == b"hello"


async def test_a_renewed_certificate_is_shown_to_those_who_come_and_ends_no_connection(tmp_path: Path) -> None:
    files = write_certificate(tmp_path, "before")
    context = ssl.create_default_context(cafile=files[0])
    async with (
        Server("127.0.0.1", 0, 0, access=Access(certificate=files)) as server,
        raw_peer(server, ssl=context) as peer,
    ):
        await peer.registered()
        assert await shown_by(server) == "before"
        write_certificate(tmp_path, "after")
        server.reload()
        assert await shown_by(server) == "after"
        await peer.deliver(peer.peer, b"still here")
        assert await peer.body() == b"still here"


async def test_files_that_change_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate, "_LOOK", 0.05)
    files = write_certificate(tmp_path, "before")
    os.utime(files[0], (1, 1))
    async with Server("127.0.0.1", 0, 0, access=Access(certificate=files)) as server:
        write_certificate(tmp_path, "after")
        shown = ""
        while shown != "after":
            shown = await shown_by(server)


async def test_files_that_are_no_certificate_change_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    files = write_certificate(tmp_path, "good")
    async with Server("127.0.0.1", 0, 0, access=Access(certificate=files)) as server:
        for broken in ("", "nonsense"):
            Path(files[0]).write_text(broken)
            server.reload()
            assert await shown_by(server) == "good"
        Path(files[1]).unlink()
        server.reload()
        assert await shown_by(server) == "good"
    assert len(caplog.get_records("call")) == 3
    assert "used on" in caplog.text


async def test_a_server_without_a_usable_certificate_does_not_begin(tmp_path: Path) -> None:
    chain, key = write_certificate(tmp_path, "one")
    for files in ((str(tmp_path / "missing.pem"), key), (key, chain)):
        with pytest.raises(CertificateError, match=r"PEM"):
            await Server("127.0.0.1", 0, 0, access=Access(certificate=files)).__aenter__()


async def test_who_does_not_go_on_with_its_handshake_is_sent_away_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quice.server.websocket.OPEN_TIMEOUT", 0.3)
    files = write_certificate(tmp_path, "one")
    async with Server("127.0.0.1", 0, 0, access=Access(certificate=files)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
        # A record of TLS that goes on for ever.
        writer.write(b"\x16\3\1\x20\0")
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_who_speaks_no_tls_to_it_leaves_nothing_behind(tmp_path: Path) -> None:
    files = write_certificate(tmp_path, "one")
    async with Server("127.0.0.1", 0, 0, access=Access(certificate=files)) as server:
        port = int(server.url.rpartition(":")[2])
        for noise in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\3\1\0\5nonsense", b""):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(noise)
            writer.write_eof()
            await reader.read()
            writer.close()
        await until(lambda: server.connections == 0)
