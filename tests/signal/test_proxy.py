"""A rendezvous server that is reached through the proxy which the environment names."""

from __future__ import annotations

import pytest

from quice.errors import ServerUnreachableError
from quice.identity import Identity
from quice.server import Server
from quice.signal.rendezvous import RendezvousClient
from tests.turn.http_proxy import serving


async def test_where_a_proxy_is_named_the_server_is_asked_for_through_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        Server("127.0.0.1", 0, 0) as server,
        serving({"rendezvous.example:4780": ("127.0.0.1", port_of(server))}) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        client = RendezvousClient("ws://rendezvous.example:4780", Identity.generate(), lambda session: None)
        await client.start()
        assert client.is_registered
        assert proxy.asked == ["CONNECT rendezvous.example:4780 HTTP/1.1"]
        await client.close()


async def test_a_proxy_that_does_not_pass_it_on_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving({}) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        client = RendezvousClient("ws://rendezvous.example:4780", Identity.generate(), lambda session: None)
        with pytest.raises(ServerUnreachableError, match="proxy"):
            await client.start()


def port_of(server: Server) -> int:
    return int(server.url.rpartition(":")[2])
