"""One meeting of two agents: start both, pass on what each tells the other, and have them speak over the pair."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from interop.lines import Line
from interop.programs import Program
from lab.link import IDEAL, Conditions
from lab.site import Host
from lab.story import Command, Machine, three_hosts
from quice.sim.kinds import Nat

PATIENCE = 20.0
"""Seconds within which both agents select a pair, far more than any of them needs."""
_EXIT = 5.0
_PASSED_ON = ("credentials", "candidate", "end-of-candidates")


class PlayError(RuntimeError):
    """The two did not meet; the text says who failed at what."""


@dataclass(frozen=True)
class Side:
    """Who takes part, where, and in which role it begins: "controlling" or "controlled"."""

    program: Program
    machine: Machine
    role: str

    def __str__(self) -> str:
        return f"{self.program.name} ({self.role})"


@dataclass(frozen=True)
class Said:
    """A line of one of the two, and when it came."""

    actor: int
    time: float
    line: Line


@dataclass(frozen=True)
class Meeting:
    """How two agents met; one value for each side, in the order of the sides."""

    seconds: tuple[float, float]
    """From the start of gathering to the selected pair."""
    selected: tuple[Line, Line]
    gathered: tuple[bool, bool]
    """Whether gathering was over by then."""
    received: tuple[Line, Line]


def meet(one: Side, two: Side, stun: str | None, *, trickle: bool = True) -> Meeting:
    """Have two agents meet and exchange a datagram each; parameters as of `staged`. Raises `PlayError`."""
    with staged(one, two, stun, trickle=trickle) as stage:
        started = time.monotonic()
        selected = stage.start()
        gathered = stage.said("end-of-candidates")
        received = stage.speak()
        return Meeting(
            seconds=(selected[0].time - started, selected[1].time - started),
            selected=(selected[0].line, selected[1].line),
            gathered=gathered,
            received=received,
        )


@contextmanager
def staged(one: Side, two: Side, stun: str | None, *, trickle: bool = True) -> Iterator[Stage]:
    """Start two programs, for a meeting in several acts.

    stun: the address of a STUN server. trickle: whether candidates are passed on as they come, or all at once.
    """
    inbox: queue.SimpleQueue[Said] = queue.SimpleQueue()
    with _Actor(0, one, stun, inbox) as first, _Actor(1, two, stun, inbox) as second:
        stage = Stage((first, second), inbox, trickle)
        stage.until("ready")
        yield stage


class _Actor:
    """A running program; a context manager that ends it."""

    def __init__(self, number: int, side: Side, stun: str | None, inbox: queue.SimpleQueue[Said]) -> None:
        self.side = side
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115 -- closed on exit, as the process is
        arguments = ("-role", side.role, *(("-stun", stun) if stun is not None else ()))
        pipe = subprocess.PIPE
        self._process = side.machine.popen(
            *side.program.command, *arguments, stdin=pipe, stdout=pipe, stderr=self._stderr
        )
        self._reader = threading.Thread(target=self._read, args=(number, inbox), daemon=True)
        self._reader.start()

    def __enter__(self) -> _Actor:
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_EXIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._process.stdout.close()
        self._stderr.close()

    def tell(self, line: Line) -> None:
        """Give the program a line. Raises `PlayError` when it has ended."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(line) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise PlayError(f"{self.side} ended{self.last_words()}") from None

    def last_words(self) -> str:
        """What it said last on standard error."""
        self._stderr.seek(0)
        lines = self._stderr.read().strip().splitlines()
        return f": {lines[-1]}" if lines else ""

    def _read(self, number: int, inbox: queue.SimpleQueue[Said]) -> None:
        assert self._process.stdout is not None
        for text in self._process.stdout:
            inbox.put(Said(number, time.monotonic(), json.loads(text)))
        inbox.put(Said(number, time.monotonic(), {"type": "end"}))


class Stage:
    """The two, and what they have said. Each method passes on candidates meanwhile, and raises `PlayError`."""

    def __init__(self, actors: tuple[_Actor, _Actor], inbox: queue.SimpleQueue[Said], trickle: bool) -> None:
        self._actors = actors
        self._inbox = inbox
        self._trickle = trickle
        self._heard: tuple[dict[str, Said], dict[str, Said]] = ({}, {})
        self._held: tuple[list[Line], list[Line]] = ([], [])
        self._spoken = 0

    def start(self) -> tuple[Said, Said]:
        """Let both gather and check; returns what they say of the pair they select."""
        for actor in self._actors:
            actor.tell({"type": "start"})
        return self.until("selected")

    def restart(self, number: int) -> tuple[Said, Said]:
        """Let this one of the two restart ICE; returns what they say of the next pair they select."""
        self._forget("selected")
        self._actors[number].tell({"type": "restart"})
        return self.until("selected")

    def speak(self) -> tuple[Line, Line]:
        """Have each send a datagram, and return what each says of the one that arrives."""
        self._forget("received")
        self._spoken += 1
        words = [f"{self._spoken} from {actor.side}" for actor in self._actors]
        for actor, word in zip(self._actors, words, strict=True):
            actor.tell({"type": "send", "data": word})
        received = self.until("received")
        for said, word in zip(received, reversed(words), strict=True):
            if said.line["data"] != word:
                raise PlayError(f"what arrived is not {word!r}, but {said.line['data']!r}")
        return received[0].line, received[1].line

    def listen(self, seconds: float) -> None:
        """Let time pass."""
        deadline = time.monotonic() + seconds
        while self._hear_next(deadline):
            pass

    def until(self, kind: str) -> tuple[Said, Said]:
        """Wait until both have said a line of this kind, and return these."""
        deadline = time.monotonic() + PATIENCE
        while not all(self.said(kind)):
            if not self._hear_next(deadline):
                silent = [
                    str(actor.side) for actor, said in zip(self._actors, self.said(kind), strict=True) if not said
                ]
                raise PlayError(f"no {kind!r} from {' and '.join(silent)} within {PATIENCE:g} s")
        return self._heard[0][kind], self._heard[1][kind]

    def said(self, kind: str) -> tuple[bool, bool]:
        """Who of the two has said a line of this kind so far."""
        return kind in self._heard[0], kind in self._heard[1]

    def _forget(self, kind: str) -> None:
        for heard in self._heard:
            heard.pop(kind, None)

    def _hear_next(self, deadline: float) -> bool:
        """Take in one line of either, unless none comes until then."""
        try:
            said = self._inbox.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return False
        actor, heard, line = self._actors[said.actor], self._heard[said.actor], said.line
        match line["type"]:
            case "end":
                raise PlayError(f"{actor.side} ended{actor.last_words()}")
            case "failed":
                raise PlayError(f"{actor.side} failed: {line['reason']}")
            case "credentials":
                # Who has new ones has begun anew: the pair selected before is not the next.
                heard.pop("selected", None)
        heard.setdefault(line["type"], said)
        if line["type"] in _PASSED_ON:
            self._pass_on(said.actor, line)
        return True

    def _pass_on(self, sender: int, line: Line) -> None:
        held = self._held[sender]
        held.append(line)
        if self._trickle or line["type"] == "end-of-candidates":
            for each in held:
                self._actors[1 - sender].tell(each)
            held.clear()


@contextmanager
def ground(
    first: Nat, second: Nat, *, ipv6: bool = False, conditions: Conditions = IDEAL
) -> Iterator[tuple[str, Host, Host]]:
    """The hosts of `lab.story.three_hosts`, the first of them serving STUN; yields its address and the others."""
    with (
        three_hosts(first, second, ipv6=ipv6, conditions=conditions) as (server, one, two),
        Command(server, "serve", "--host", server.address, "--port", "0") as serve,
    ):
        yield serve.wait_for("ready")["stun"], one, two
