"""The usual story of two peers: a server, someone who sends, someone who receives; in a lab or on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lab.nat import Nat
from lab.network import Host, Lab

QUICE = [sys.executable, "-c", "from quice.cli import main; main()"]
Event = dict[str, Any]


class Machine(Protocol):
    """Where a program can be started: a lab's host, or this machine."""

    def popen(self, *command: str, **options: Any) -> subprocess.Popen[str]: ...


class ThisMachine:
    """All on loopback, where no lab can be."""

    def popen(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(command, text=True, **options)


class StoryError(RuntimeError):
    """A command did not do what the story needs; the text has its error."""


class Command:
    """A running `quice` command with --json."""

    def __init__(self, machine: Machine, *arguments: str) -> None:
        self.name = arguments[0]
        pipe = subprocess.PIPE
        self.process = machine.popen(*QUICE, *arguments, "--json", stdout=pipe, stderr=subprocess.STDOUT)

    def events(self) -> Iterator[Event]:
        """What it prints, until it ends."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                raise StoryError(f"quice {self.name}: {line.strip()}") from None

    def wait_for(self, name: str) -> Event:
        """The next event of this name. Raises `StoryError` for an error, or an end, that comes first."""
        for event in self.events():
            if event["event"] == name:
                return event
            if event["event"] == "error":
                raise StoryError(f"quice {self.name}: {event['kind']}: {event['message']}")
        raise StoryError(f"quice {self.name} ended with {self.process.wait()} before {name!r}")

    def stop(self) -> None:
        """End it, if it has not ended."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.communicate()


@dataclass
class Transfer:
    """How a transfer went."""

    path: Event = field(default_factory=dict)
    reports: dict[str, Event] = field(default_factory=dict)
    done: Event = field(default_factory=dict)
    error: Event | None = None


@contextmanager
def serving(machine: Machine, host: str) -> Iterator[str]:
    """A server; yields its URL."""
    command = Command(machine, "serve", "--host", host, "--port", "0", "--stun-port", "0")
    try:
        yield command.wait_for("ready")["url"]
    finally:
        command.stop()


def transfer(
    sender: Machine,
    receiver: Machine,
    url: str,
    paths: Sequence[Path],
    out: Path,
    progress: Callable[[Event], None] = lambda event: None,
) -> Transfer:
    """Send `paths` from one machine to the other, and tell how it went."""
    result = Transfer()
    send = Command(sender, "send", *map(str, paths), "--server", url)
    receive: Command | None = None
    try:
        ticket = send.wait_for("ticket")["ticket"]
        receive = Command(receiver, "receive", ticket, "--out", str(out))
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
        if receive.process.wait() != 0:
            raise StoryError(f"quice receive ended with {receive.process.returncode}")
        result.reports["sender"] = send.wait_for("report")
        send.wait_for("done")
        if send.process.wait() != 0:
            raise StoryError(f"quice send ended with {send.process.returncode}")
        return result
    finally:
        for command in (send, receive):
            if command is not None:
                command.stop()


@contextmanager
def two_sites(first: Nat, second: Nat) -> Iterator[tuple[str, Host, Host]]:
    """A lab with a server and one host at each of two sites; yields the server's URL and the hosts."""
    with Lab() as lab:
        server = lab.server()
        one, two = lab.site(first).host(), lab.site(second).host()
        with serving(server, server.address) as url:
            yield url, one, two
