"""The usual story of two peers: a server, someone who sends, someone who receives; in a lab or on loopback."""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lab.link import IDEAL, Conditions
from lab.network import Lab
from lab.site import Host
from quice.sim.kinds import Nat

if TYPE_CHECKING:
    from typing_extensions import Self

QUICE = (sys.executable, "-c", "from quice.cli import main; main()")
Event = dict[str, Any]

_SILENCE = 30.0
"""Seconds without an event after which a command hangs: twice what connecting may take."""
_EXIT = 10.0
"""Seconds in which a command ends once it has said all or was asked to."""


class Machine(Protocol):
    """Where a program can be started: a lab's host, or this machine."""

    def popen(self, *command: str, **options: Any) -> subprocess.Popen[str]: ...


class ThisMachine:
    """All on loopback, where no lab can be."""

    def popen(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(command, text=True, **options)


class StoryError(RuntimeError):
    """A command did not do what the story needs; the text has its error."""


class Program:
    """A running program that prints its events, a JSON object a line; a context manager that ends it."""

    def __init__(self, machine: Machine, name: str, *command: str) -> None:
        self.name = name
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115 -- closed on exit, as the process is
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        pipe = subprocess.PIPE
        self._process = machine.popen(*command, stdin=pipe, stdout=pipe, stderr=self._stderr)
        # A thread reads, so that a program to which nobody listens just now does not wait for its pipe.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            self._process.send_signal(signal.SIGCONT)
        try:
            self._process.wait(_EXIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._stderr.close()

    def events(self) -> Iterator[Event]:
        """What it prints, until it ends. Raises `StoryError` when it hangs, or prints what is no event."""
        while True:
            try:
                line = self._lines.get(timeout=_SILENCE)
            except queue.Empty:
                raise StoryError(f"{self.name} hangs: no event for {_SILENCE:g} s{self._said()}") from None
            if line is None:
                return
            yield self._parsed(line)

    def heard(self) -> Iterator[Event]:
        """What it has printed by now. Raises `StoryError` once it has ended."""
        while True:
            try:
                line = self._lines.get_nowait()
            except queue.Empty:
                return
            if line is None:
                raise StoryError(f"{self.name} ended with status {self.status()}{self._said()}")
            yield self._parsed(line)

    def tell(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self._process.stdin is not None
        print(line, file=self._process.stdin, flush=True)

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it without a word to anybody."""
        self._process.kill()
        self._process.wait()

    def wait_for(self, name: str) -> Event:
        """The next event of this name. Raises `StoryError` for an error, or an end, that comes first."""
        for event in self.events():
            if event["event"] == name:
                return event
            if event["event"] == "error":
                raise StoryError(f"{self.name}: {event['kind']}: {event['message']}")
        raise StoryError(f"{self.name} ended with status {self.status()} before its event {name!r}{self._said()}")

    def status(self) -> int:
        """Its exit status, once it has said all. Raises `StoryError` when it does not end then."""
        try:
            return self._process.wait(_EXIT)
        except subprocess.TimeoutExpired:
            raise StoryError(f"{self.name} does not end{self._said()}") from None

    def expect_success(self) -> None:
        """Raises `StoryError` unless it ends with status 0."""
        if self.status() != 0:
            raise StoryError(f"{self.name} ended with status {self.status()}{self._said()}")

    def _parsed(self, line: str) -> Event:
        try:
            event: Event = json.loads(line)
        except json.JSONDecodeError:
            raise StoryError(f"{self.name} prints what is not JSON: {line.strip()}") from None
        return event

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _said(self) -> str:
        """The last line on standard error: of a traceback, the one that names the error."""
        self._stderr.seek(0)
        lines = self._stderr.read().strip().splitlines()
        return f": {lines[-1]}" if lines else ""


class Command(Program):
    """A running `quice` command."""

    def __init__(self, machine: Machine, *arguments: str) -> None:
        super().__init__(machine, f"quice {arguments[0]}", *QUICE, *arguments, "--json")


@dataclass
class Transfer:
    """How a transfer went, as the receiver tells it."""

    path: Event = field(default_factory=dict)
    reports: dict[str, Event] = field(default_factory=dict)
    """What each side tried: "sender" and "receiver"; empty for a connection that needed no search."""
    done: Event = field(default_factory=dict)
    error: Event | None = None


@contextmanager
def serving(machine: Machine, host: str, *, relay: bool = False) -> Iterator[str]:
    """A server, which relays only if asked to; yields its URL."""
    options = () if relay else ("--no-relay",)
    with Command(machine, "serve", "--host", host, "--port", "0", "--stun-port", "0", *options) as server:
        yield server.wait_for("ready")["url"]


@contextmanager
def three_hosts(
    first: Nat, second: Nat, *, ipv6: bool = False, conditions: Conditions = IDEAL
) -> Iterator[tuple[Host, Host, Host]]:
    """A lab with a host for a server and one at each of two sites.

    conditions: those of each site's link to the internet; the server's is ideal.
    """
    with Lab() as lab:
        server = lab.server()
        one, two = (lab.site(nat, ipv6=ipv6, conditions=conditions).host() for nat in (first, second))
        yield server, one, two


@contextmanager
def two_sites(
    first: Nat, second: Nat, *, ipv6: bool = False, conditions: Conditions = IDEAL, relay: bool = False
) -> Iterator[tuple[str, Host, Host]]:
    """The hosts of `three_hosts`, the first of them serving, and relaying if asked to; yields its URL and the
    others."""
    with (
        three_hosts(first, second, ipv6=ipv6, conditions=conditions) as (server, one, two),
        serving(server, server.address, relay=relay) as url,
    ):
        yield url, one, two


def transfer(
    sender: Machine,
    receiver: Machine,
    url: str,
    paths: Sequence[Path],
    out: Path,
    progress: Callable[[Event], None] = lambda event: None,
) -> Transfer:
    """Send `paths` from one machine to the other, and tell how it went. Raises `StoryError`."""
    result = Transfer()
    with Command(sender, "send", *map(str, paths), "--server", url) as send:
        ticket = send.wait_for("ticket")["ticket"]
        with Command(receiver, "receive", ticket, "--out", str(out)) as receive:
            for event in receive.events():
                match event["event"]:
                    case "path":
                        result.path = event
                    case "report":
                        result.reports["receiver"] = event
                    case "progress":
                        progress(event)
                    case "done":
                        result.done = event
                    case "error":
                        result.error = event
                        return result
            receive.expect_success()
        for event in send.events():
            if event["event"] == "report":
                result.reports["sender"] = event
        send.expect_success()
    if not (result.path and result.done):
        raise StoryError("quice receive ended well without telling of its path and of its end")
    return result


def exit_on_sigterm() -> None:
    """Let SIGTERM leave every `with` block, so that nothing stays of a lab."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
