"""TURN servers that others have written, as programs on loopback: coturn and pion/turn."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from interop.programs import relay_of_pion
from quice.wire import Address

REALM = "quice.example"
USERNAME = "alice"
PASSWORD = "wonderland"
SECRET = "shared with nobody"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def coturn_unavailable() -> str | None:
    """None when coturn is installed, else what would help."""
    return None if shutil.which("turnserver", path=_PATH) else "coturn: install the package coturn"


@dataclass
class Relay:
    """A running TURN server."""

    port: int
    process: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)
    """What it has written to its log so far."""
    changed: threading.Condition = field(default_factory=threading.Condition)

    def at(self, host: str = "127.0.0.1") -> Address:
        """Its address on that of loopback."""
        return Address(host, self.port)

    def wait_for(self, text: str, count: int = 1, timeout: float = 15.0) -> None:
        """Wait until its log has that many lines with this text. Raises `TimeoutError`."""
        with self.changed:
            if not self.changed.wait_for(lambda: sum(text in line for line in self.said) >= count, timeout):
                raise TimeoutError(f"the relay never said {text!r} {count} times, but: {''.join(self.said)[-3000:]}")

    def listen(self) -> None:
        """Read its log until it ends."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self.changed:
                self.said.append(line)
                self.changed.notify_all()


def free_port() -> int:
    """A port that is free for UDP and TCP on loopback, of both families."""
    while True:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as tcp:
            tcp.bind(("::", 0))
            port: int = tcp.getsockname()[1]
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp:
                try:
                    udp.bind(("::", port))
                except OSError:
                    continue
                return port


@contextmanager
def running(command: list[str], port: int, ready: str) -> Iterator[Relay]:
    """A server that runs as long as the block; it is ready when it says so."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    relay = Relay(port, process)
    reader = threading.Thread(target=relay.listen, daemon=True)
    reader.start()
    try:
        relay.wait_for(ready)
        yield relay
    finally:
        process.kill()
        process.wait()
        reader.join()
        assert process.stdout is not None
        process.stdout.close()


@contextmanager
def coturn(
    folder: Path, *options: str, relays: tuple[str, ...] = ("127.0.0.1", "::1"), tls: bool = False, port: int = 0
) -> Iterator[Relay]:
    """coturn for UDP and TCP (with `tls`, for TLS) on both addresses of loopback, where peers may be too.

    Without options it knows one user by name and password. `folder` is for its files; with `tls` it holds
    `cert.pem` and `key.pem`.
    """
    port = port or free_port()
    command = ["turnserver", "-n", "--log-file", "stdout", "--verbose", "--no-cli", "--no-dtls", "--fingerprint"]
    command += [
        "--realm",
        REALM,
        "--allow-loopback-peers",
        "--cli-password",
        "unused",
        "--no-multicast-peers",
        "--no-rfc5780",
    ]
    command += ["--userdb", str(folder / "users"), "--pidfile", str(folder / "pid")]
    for address in ("127.0.0.1", "::1"):
        command += ["--listening-ip", address]
    for address in relays:
        command += ["--relay-ip", address]
    if tls:
        command += ["--tls-listening-port", str(port), "--listening-port", str(free_port())]
        command += ["--cert", str(folder / "cert.pem"), "--pkey", str(folder / "key.pem")]
    else:
        command += ["--listening-port", str(port), "--no-tls"]
    if not any(option.startswith(("--use-auth-secret", "--no-auth")) for option in options):
        command += ["--lt-cred-mech", "--user", f"{USERNAME}:{PASSWORD}"]
    with running([*command, *options], port, "Total General servers") as relay:
        yield relay


@contextmanager
def pion_relay(*options: str, port: int = 0) -> Iterator[Relay]:
    """pion/turn for UDP and TCP on both addresses of loopback. Without `-secret` it knows one user."""
    port = port or free_port()
    command = [str(relay_of_pion()), "-port", str(port), "-realm", REALM]
    if "-secret" not in options:
        command += ["-user", USERNAME, "-password", PASSWORD]
    with running([*command, *options], port, "ready") as relay:
        yield relay
