"""Streams to servers: TCP, TLS, and through a proxy."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from interop.certificates import certify
from quice.errors import ConnectError, RelayUnreachableError
from quice.tunnel import Tunnel, connect_any, interleaved, open_tunnel
from quice.wire import Address
from tests.turn.http_proxy import serving
from tests.turn.streams import echo, listening

NAME = "relay.example"


class Heard:
    """What has come through a tunnel."""

    def __init__(self, tunnel: Tunnel) -> None:
        self.data = b""
        self.ended: list[Exception | None] = []
        self._changed = asyncio.Event()
        tunnel.on_data = self._take
        tunnel.on_closed = self._end

    def _take(self, data: bytes) -> None:
        self.data += data
        self._changed.set()

    def _end(self, error: Exception | None) -> None:
        self.ended.append(error)
        self._changed.set()

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait until something is so."""
        while not done():
            self._changed.clear()
            await self._changed.wait()


@pytest.fixture
def trust(tmp_path: Path) -> ssl.SSLContext:
    return certify(tmp_path, NAME, "127.0.0.1")


@pytest.fixture
def server_side(tmp_path: Path, trust: ssl.SSLContext) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    return context


async def converse(tunnel: Tunnel) -> None:
    """It carries data both ways."""
    heard = Heard(tunnel)
    for number in range(100):
        tunnel.send(b"%04d" % number)
    await heard.until(lambda: len(heard.data) == 400)
    assert heard.data == b"".join(b"%04d" % number for number in range(100))
    tunnel.abort()


async def test_a_stream_carries_data_both_ways() -> None:
    async with listening(echo) as port:
        tunnel = await open_tunnel("127.0.0.1", port, tls=False)
        assert tunnel.remote == Address("127.0.0.1", port)
        assert tunnel.local.host == "127.0.0.1"
        assert tunnel.local.port
        await converse(tunnel)


async def test_a_tls_stream_carries_data_both_ways(server_side: ssl.SSLContext, trust: ssl.SSLContext) -> None:
    async with listening(echo, server_side) as port:
        await converse(await open_tunnel("127.0.0.1", port, tls=True, ssl_context=trust))
        await converse(await open_tunnel("127.0.0.1", port, tls=True, ssl_context=trust, server_hostname=NAME))


async def test_a_certificate_of_nobody_that_is_trusted_is_refused_with_the_reason(server_side: ssl.SSLContext) -> None:
    async with listening(echo, server_side) as port:
        with pytest.raises(RelayUnreachableError, match=r"its certificate is not accepted: self.signed"):
            await open_tunnel("127.0.0.1", port, tls=True)


async def test_a_certificate_for_another_name_is_refused(server_side: ssl.SSLContext, trust: ssl.SSLContext) -> None:
    async with listening(echo, server_side) as port:
        with pytest.raises(RelayUnreachableError, match=r"certificate is not accepted.*other.example"):
            await open_tunnel("127.0.0.1", port, tls=True, ssl_context=trust, server_hostname="other.example")


async def test_a_server_that_speaks_no_tls_is_told() -> None:
    async with listening(echo) as port:
        with pytest.raises(RelayUnreachableError, match="no TLS"):
            await open_tunnel("127.0.0.1", port, tls=True)


async def test_where_nobody_listens_the_error_says_so_with_advice() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(RelayUnreachableError, match=r"(?i)refused.*port 443") as caught:
            await open_tunnel("127.0.0.1", port, tls=False)
    assert isinstance(caught.value, ConnectError)


async def test_a_name_that_is_none_is_an_error() -> None:
    with pytest.raises(RelayUnreachableError, match=r"nowhere\.invalid"):
        await open_tunnel("nowhere.invalid", 3478, tls=False)


async def test_a_server_that_never_answers_is_given_up_in_time(trust: ssl.SSLContext) -> None:
    gone = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        gone.set()
        writer.close()

    async with listening(silent) as port:
        with pytest.raises(RelayUnreachableError, match=r"no stream within 0\.2 s"):
            await open_tunnel("127.0.0.1", port, tls=True, ssl_context=trust, timeout=0.2)
        # Nothing of it stays open.
        await gone.wait()


async def test_cancelled_nothing_stays_open(trust: ssl.SSLContext) -> None:
    come, gone = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        come.set()
        await reader.read()
        gone.set()
        writer.close()

    async with listening(silent) as port:
        opening = asyncio.ensure_future(open_tunnel("127.0.0.1", port, tls=True, ssl_context=trust))
        await come.wait()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await gone.wait()


@pytest.fixture
def mute() -> Iterator[int]:
    """A port of 127.0.0.2 where nobody answers: its queue is full, so that the kernel drops who else comes."""
    with socket.socket() as full, socket.socket() as one, socket.socket() as two:
        full.bind(("127.0.0.2", 0))
        full.listen(0)
        port: int = full.getsockname()[1]
        for each in (one, two):
            each.setblocking(False)
            each.connect_ex(("127.0.0.2", port))
        yield port


async def test_rfc8305_an_address_that_does_not_answer_does_not_hold_up_the_next(mute: int) -> None:
    async with listening(echo, port=mute):
        tunnel = await connect_any(["127.0.0.2", "127.0.0.1"], mute)
        assert tunnel.remote == Address("127.0.0.1", mute)
        await converse(tunnel)


async def test_rfc8305_an_address_that_refuses_is_followed_at_once_by_the_next() -> None:
    async with listening(echo) as port:
        begun = asyncio.get_running_loop().time()
        tunnel = await connect_any(["127.0.0.3", "127.0.0.1"], port)
        assert asyncio.get_running_loop().time() - begun < 0.2
        await converse(tunnel)


def test_rfc8305_4_families_take_turns() -> None:
    hosts = ["2001:db8::1", "2001:db8::2", "192.0.2.1", "2001:db8::1", "192.0.2.2", "192.0.2.3"]
    assert interleaved(hosts) == [
        "2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "192.0.2.3",
    ]  # fmt: skip
    assert interleaved([]) == []


async def test_the_end_is_told_once_with_its_error() -> None:
    async def end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"last words")
        writer.close()

    async with listening(end) as port:
        tunnel = await open_tunnel("127.0.0.1", port, tls=False)
        heard = Heard(tunnel)
        await heard.until(lambda: bool(heard.ended))
        assert heard.data == b"last words"
        assert heard.ended == [None]
        assert tunnel.is_closed
        tunnel.send(b"into nothing")


async def test_what_comes_before_anybody_listens_is_kept() -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"early")
        writer.close()

    async with listening(speak) as port:
        tunnel = await open_tunnel("127.0.0.1", port, tls=False)
        while not tunnel.is_closed:
            await asyncio.sleep(0.01)
        heard = Heard(tunnel)
        assert heard.data == b"early"
        await heard.until(lambda: bool(heard.ended))


@pytest.mark.parametrize("tls", [False, True])
async def test_what_the_other_side_does_not_take_is_counted(
    tls: bool, server_side: ssl.SSLContext, trust: ssl.SSLContext
) -> None:
    done = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()
        await done.wait()
        writer.transport.abort()

    async with listening(deaf, server_side if tls else None) as port:
        tunnel = await open_tunnel("127.0.0.1", port, tls=tls, ssl_context=trust)
        assert tunnel.buffered == 0
        sent = 0
        while tunnel.buffered < 1 << 20 and sent < 64 << 20:
            tunnel.send(bytes(1 << 14))
            sent += 1 << 14
            await asyncio.sleep(0)
        assert tunnel.buffered >= 1 << 20
        # The kernels' buffers hold the rest: all is accounted for, but for what TLS adds.
        assert sent - (16 << 20) < tunnel.buffered < sent * 1.02
        tunnel.abort()
        done.set()


@pytest.mark.parametrize("tls", [False, True])
async def test_what_was_sent_before_the_close_arrives(
    tls: bool, server_side: ssl.SSLContext, trust: ssl.SSLContext
) -> None:
    got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.set_result(await reader.read(-1))
        writer.close()

    async with listening(read, server_side if tls else None) as port:
        tunnel = await open_tunnel("127.0.0.1", port, tls=tls, ssl_context=trust)
        heard = Heard(tunnel)
        tunnel.send(bytes(1 << 20))
        tunnel.close()
        tunnel.close()
        assert tunnel.is_closed
        assert len(await got) == 1 << 20
        assert not heard.ended


# Proxies.


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("user", [None, "alice:won der@land"])
async def test_a_proxy_of_the_environment_passes_the_stream_on(
    tls: bool, user: str | None, server_side: ssl.SSLContext, trust: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = "" if user is None else "alice:won%20der%40land@"
    async with (
        listening(echo, server_side if tls else None) as port,
        serving({f"{NAME}:443": ("127.0.0.1", port)}, user) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", f"http://{shown}127.0.0.1:{proxy.port}")
        tunnel = await open_tunnel(NAME, 443, tls=tls, ssl_context=trust)
        assert tunnel.remote == Address("127.0.0.1", proxy.port)
        await converse(tunnel)
        # The name is the proxy's to look up.
        assert proxy.asked == [f"CONNECT {NAME}:443 HTTP/1.1"]


async def test_a_proxy_that_wants_to_know_who_asks_says_so_in_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving({}, "alice:wonderland") as proxy:
        monkeypatch.setenv("https_proxy", f"127.0.0.1:{proxy.port}")
        with pytest.raises(RelayUnreachableError, match=r"407 .*give user name and password in the proxy's URL"):
            await open_tunnel(NAME, 443, tls=False)


async def test_a_proxy_that_refuses_is_an_error_with_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving({}) as proxy:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}/")
        with pytest.raises(RelayUnreachableError, match="the proxy answers 502 Bad Gateway"):
            await open_tunnel("2001:db8::1", 443, tls=False)
        assert proxy.asked == ["CONNECT [2001:db8::1]:443 HTTP/1.1"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(b"SSH-2.0-x\r\n\r\n", "no HTTP proxy"), (b"HTTP/1.1 200", "closed the stream"), (b"x" * 20000, "has no end")],
)
async def test_what_is_no_proxy_is_told(answer: bytes, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving({}) as proxy:
        proxy.answer = answer
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(RelayUnreachableError, match=reason):
            await open_tunnel(NAME, 443, tls=False)


async def test_what_a_proxy_says_before_tls_does_not_pass_for_the_servers_words(
    trust: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving({}) as proxy:
        proxy.answer = b"HTTP/1.1 200 OK\r\n\r\n\x40\x00\x00\x04evil"
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(RelayUnreachableError, match="before TLS began"):
            await open_tunnel(NAME, 443, tls=True, ssl_context=trust)


async def test_no_proxy_is_asked_for_hosts_that_no_proxy_names_and_for_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    async with listening(echo) as port:
        (await open_tunnel("127.0.0.1", port, tls=False)).close()
        (await open_tunnel("localhost", port, tls=False)).close()
        monkeypatch.setenv("NO_PROXY", "other.example, 0.0.0.0")
        # On Linux, the way to every address of this machine.
        (await open_tunnel("0.0.0.0", port, tls=False)).close()
        with pytest.raises(RelayUnreachableError, match="refused"):
            await open_tunnel(NAME, port, tls=False)


@pytest.mark.parametrize("url", ["https://proxy.example:3128", "socks5://proxy.example", "http://", "http://x:port"])
async def test_a_proxy_of_another_kind_is_told(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", url)
    with pytest.raises(RelayUnreachableError, match=r"a proxy is named as http://host:port|the proxy's URL is none"):
        await open_tunnel(NAME, 443, tls=False)


@pytest.mark.parametrize("host", ["a b", "a\r\nX-Header: b", "gr\u00fc\u00df.example"])
async def test_a_host_can_not_say_more_to_a_proxy_than_its_name(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving({}) as proxy:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(RelayUnreachableError, match="is no host"):
            await open_tunnel(host, 443, tls=False)
        assert not proxy.asked
