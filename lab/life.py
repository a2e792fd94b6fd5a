"""What each thing that happens to a network costs a connection: `make life`.

Alice receives a long stream from Bob. Each has a NAT before them, and uplinks to change to; a rendezvous server and a
relay are on the internet. One thing happens after the other, and the digest must be right in the end.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.ground import LabError, available
from lab.link import Conditions
from lab.network import Lab
from lab.servers import SECRET, Server, coturn, rendezvous
from lab.story import Event, Machine, Program, StoryError, exit_on_sigterm
from lab.timeline import Timeline
from quice import PathKind
from quice.sim.kinds import Nat

NEAR = Conditions(delay=0.025)
FAR = Conditions(delay=0.045)
ELSEWHERE = 1.0
"""The longest pause, in seconds, where another path is there that has been validated."""
MOVED = 3.0
"""The same where the network is another one."""
# What the stream is paced to take, beside the time for which a host is stopped.
_DURATION = 70.0
_CONNECTED = 15.0
_SETTLED = 15.0
"""Seconds after which a path that has not come does not come."""
_FLOWING = 0.5
"""Seconds within which something came, where data flows."""
_LOOK = 0.05
_NAMED = "meeting.example"
_PORT = 4780
_STREAMING = (sys.executable, "-m", "lab.streaming")


class Stage:
    """Who is there, and what can happen to them."""

    def __init__(self, lab: Lab) -> None:
        self.server, self.relay_host = (lab.server(ipv6=True) for _ in range(2))
        self.wifi = lab.site(Nat.PORT_RESTRICTED, conditions=NEAR)
        self.lte = lab.site(Nat.PORT_RESTRICTED_RANDOM, conditions=FAR)
        self.modern = lab.site(Nat.PORT_RESTRICTED, ipv6=True, firewall=True, conditions=NEAR)
        self.home = lab.site(Nat.PORT_RESTRICTED, ipv6=True, firewall=True, conditions=NEAR)
        self.office = lab.site(Nat.PORT_RESTRICTED_RANDOM, conditions=NEAR)
        self.alice, self.bob = lab.roamer(self.wifi), lab.roamer(self.home)
        self.on_wifi, self.on_lte = self.alice.uplink, self.alice.add(self.lte)
        self.on_ipv6 = self.alice.add(self.modern, ipv4=False)
        self.at_home, self.at_office = self.bob.uplink, self.bob.add(self.office)


class Play:
    """A stage on which the two are connected."""

    def __init__(
        self, stage: Stage, rendezvous: Server, relay: Server, sender: Program, receiver: Program, stop: float
    ) -> None:
        self.stage = stage
        self.rendezvous = rendezvous
        self.relay = relay
        self.timeline = Timeline()
        self.on_event: Callable[[Event], None] = lambda event: None
        """Told of all that the receiver tells."""
        self._sender = sender
        self._receiver = receiver
        self._stop = stop
        self._done: Event | None = None

    def stop_alice(self) -> float:
        """Stop Alice's program for a while, and return when it went on."""
        self._receiver.send_signal(signal.SIGSTOP)
        time.sleep(self._stop)
        self._receiver.send_signal(signal.SIGCONT)
        return time.monotonic()

    def watch(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Follow what happens, until something is so, which is returned. Raises `StoryError` for whoever fails."""
        ends = time.monotonic() + seconds
        while not (so := until()) and time.monotonic() < ends:
            time.sleep(_LOOK)
            for event in self._heard():
                self.timeline.take(event)
                self.on_event(event)
                if event["event"] == "done":
                    self._done = event
        return so

    def finish(self, seconds: float) -> tuple[int, bool]:
        """Have the rest sent, and return how many bytes arrived in all, and whether the digests agree."""
        self._sender.tell("finish")
        if not self.watch(seconds, lambda: self._done is not None):
            raise StoryError(f"the rest did not arrive within {seconds:g} s")
        assert self._done is not None
        sent = self._sender.wait_for("done")
        return self._done["bytes"], sent["digest"] == self._done["digest"] and sent["bytes"] == self._done["bytes"]

    def _heard(self) -> Iterator[Event]:
        for program in (self._sender, self._receiver):
            if program is self._receiver or self._done is None:
                for event in program.heard():
                    if event["event"] == "error":
                        raise StoryError(f"{program.name}: {event['kind']}: {event['message']}")
                    if program is self._receiver:
                        yield event


@dataclass(frozen=True)
class Happening:
    """Something that happens. `act` may return from when on its pause counts, where that is later."""

    name: str
    act: Callable[[Play], float | None]
    limit: float
    after: PathKind = PathKind.DIRECT
    """What the data goes over, once it has settled."""
    needs_relay: bool = False
    """Whether there is a way through it only if the relay lives on without the rendezvous server."""
    renews_reserve: bool = False
    """Whether it is over only when there is another path through a relay in reserve than before."""


CHAPTERS: dict[str, tuple[Happening, ...]] = {
    "cut": (
        Happening("direct path cut", lambda play: _part(play.stage), ELSEWHERE, PathKind.RELAY),
        Happening("direct path restored", lambda play: _rejoin(play.stage), ELSEWHERE),
    ),
    "rebind": (
        Happening("Alice's NAT: new port", lambda play: play.stage.wifi.rebind(), MOVED),
        Happening("Alice's NAT: new address", lambda play: play.stage.wifi.rebind(new_address=True), MOVED),
        Happening("Bob's NAT: new port", lambda play: play.stage.home.rebind(), MOVED),
        Happening("Bob's NAT: new address", lambda play: play.stage.home.rebind(new_address=True), MOVED),
    ),
    "uplink": (
        Happening("Wi-Fi to LTE", lambda play: play.stage.alice.use(play.stage.on_lte), MOVED),
        Happening("LTE to Wi-Fi", lambda play: play.stage.alice.use(play.stage.on_wifi), MOVED),
    ),
    "ipv6": (
        Happening("IPv4 to IPv6", lambda play: play.stage.alice.use(play.stage.on_ipv6), MOVED),
        Happening("IPv6 to IPv4", lambda play: play.stage.alice.use(play.stage.on_wifi), MOVED),
    ),
    "relay": (
        Happening("relay killed", lambda play: play.relay.kill(), ELSEWHERE),
        Happening("relay started again", lambda play: play.relay.start(), ELSEWHERE, renews_reserve=True),
        Happening("direct path cut again", lambda play: _part(play.stage), ELSEWHERE, PathKind.RELAY),
        Happening("direct path restored", lambda play: _rejoin(play.stage), ELSEWHERE),
    ),
    "rendezvous": (
        Happening("rendezvous killed", lambda play: play.rendezvous.kill(), ELSEWHERE),
        Happening("meanwhile: new port", lambda play: play.stage.wifi.rebind(), MOVED, needs_relay=True),
        Happening("rendezvous started again", lambda play: play.rendezvous.start(), ELSEWHERE),
    ),
    "both": (
        Happening("both move at once", lambda play: _move(play.stage, away=True), MOVED),
        Happening("both move back", lambda play: _move(play.stage, away=False), MOVED),
    ),
    "stop": (Happening("Alice stopped", Play.stop_alice, MOVED),),
}
"""What can happen, in groups that leave everything as it was."""


def _part(stage: Stage) -> None:
    stage.wifi.part(stage.home)


def _rejoin(stage: Stage) -> None:
    stage.wifi.rejoin(stage.home)


def _move(stage: Stage, *, away: bool) -> None:
    stage.alice.use(stage.on_lte if away else stage.on_wifi)
    stage.bob.use(stage.at_office if away else stage.at_home)


@dataclass(frozen=True)
class Outcome:
    """What a happening did to the stream; times in seconds."""

    happening: Happening
    pause: float
    before: str
    after: str
    back: float | None
    """Until data came on a path of the sort that it is to come on; None where it was on one all the time."""
    reserve: float | None
    """Until there was another path in reserve, where that is waited for."""

    @property
    def good(self) -> bool:
        renewed = self.reserve is not None or not self.happening.renews_reserve
        return self.pause <= self.happening.limit and self.after == self.happening.after.value and renewed


def happen(play: Play, happening: Happening, rest: float) -> Outcome:
    """Let something happen, and wait until things have settled, and for `rest` seconds at least."""
    timeline, wanted = play.timeline, happening.after.value
    carrier = timeline.carrier_at(time.monotonic())
    began = time.monotonic()
    since = happening.act(play) or began

    def settled() -> bool:
        now = time.monotonic()
        carrier = timeline.carrier_at(now)
        if happening.renews_reserve and timeline.new_reserve(since) is None:
            return False
        return carrier is not None and carrier.kind == wanted and now - timeline.last < _FLOWING

    play.watch(rest)
    play.watch(_SETTLED, settled)
    now = time.monotonic()
    after = timeline.carrier_at(now)
    return Outcome(
        happening,
        timeline.longest_pause(since, now),
        carrier.kind if carrier else "none",
        after.kind if after and now - timeline.last < _FLOWING else "none",
        timeline.came_back(since, wanted),
        timeline.new_reserve(since) if happening.renews_reserve else None,
    )


@contextmanager
def playing(*, relay: str, size: int, rate: float, stop: float) -> Iterator[Play]:
    """The stage with both programs on it. relay: "quice" for the rendezvous server's own, or "coturn"."""
    with Lab() as lab, ExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="quice-lab-")))
        stage = Stage(lab)
        meeting, relaying = _servers(stage, relay, folder)
        exits.enter_context(meeting)
        if relaying is not meeting:
            exits.enter_context(relaying)
        # A host with IPv6 alone finds servers by name, as it would elsewhere.
        names = folder / "hosts"
        names.write_text("".join(f"{address} {_NAMED}\n" for address in (stage.server.address, stage.server.ipv6)))
        for host in (stage.alice, stage.bob):
            host.know(names)
        url = f"ws://{_NAMED}:{_PORT}"
        amounts = ("--size", str(size), "--rate", str(rate))
        sender = exits.enter_context(_streaming(stage.bob, "Bob", "accept", url, *amounts))
        peer = sender.wait_for("ready")["peer"]
        receiver = exits.enter_context(_streaming(stage.alice, "Alice", "connect", url, "--peer", peer))
        receiver.wait_for("connected")
        yield Play(stage, meeting, relaying, sender, receiver, stop)


def _servers(stage: Stage, relay: str, folder: Path) -> tuple[Server, Server]:
    ports = ("--port", str(_PORT))
    if relay == "quice":
        # Its limit for each peer is below what the stream may have.
        serving = rendezvous(stage.server, *ports, "--relay-rate", "0")
        return serving, serving
    turn = ("--turn", f"turn:{stage.relay_host.address}", "--turn-secret", SECRET)
    return rendezvous(stage.server, *ports, *turn), coturn(stage.relay_host, folder, "--no-tls", "--no-dtls")


def _streaming(machine: Machine, name: str, *arguments: str) -> Program:
    return Program(machine, name, *_STREAMING, *arguments)


def tell(chapters: Sequence[str], play: Play, rest: float, show: Callable[[Outcome], None]) -> list[Outcome]:
    """Let these things happen, one after the other."""
    found = Happening("connected", lambda play: None, ELSEWHERE)
    outcomes = []
    for happening in (found, *(each for chapter in chapters for each in CHAPTERS[chapter])):
        if happening.needs_relay and play.relay is play.rendezvous:
            continue
        outcomes.append(happen(play, happening, rest))
        show(outcomes[-1])
    return outcomes


_HEADINGS = ("", "pause", "limit", "before", "after", "there after", "reserve")
_LINE = "{:26} {:>9} {:>6}  {:7} {:7} {:>11} {:>8}"


def show(outcome: Outcome) -> None:
    """Print a line of the table."""
    limit = f"{outcome.happening.limit:g} s"
    pause, back, reserve = (_milliseconds(time) for time in (outcome.pause, outcome.back, outcome.reserve))
    line = _LINE.format(outcome.happening.name, pause, limit, outcome.before, outcome.after, back, reserve)
    print(line.rstrip() + ("" if outcome.good else "  FAILED"), flush=True)


def _milliseconds(seconds: float | None) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds is not None else ""


def _show_event(event: Event) -> None:
    match event["event"]:
        case "pause":
            print(
                f"  {event['until']:.3f} after a pause of {1000 * (event['until'] - event['since']):.0f} ms", flush=True
            )
        case "path":
            print(f"  {event['at']:.3f} {event['kind']}: {event['local']} from {event['remote']}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m lab.life", description=__doc__)
    parser.add_argument("--size", type=int, default=1 << 30, metavar="BYTES", help="how much to send at least (1 GiB)")
    parser.add_argument("--only", nargs="+", choices=CHAPTERS, default=list(CHAPTERS), help="what is to happen")
    parser.add_argument("--relay", choices=("quice", "coturn"), default="quice", help="whose relay (quice)")
    parser.add_argument("--stop", type=float, default=60.0, metavar="S", help="for how long a host is stopped (60)")
    parser.add_argument("--rest", type=float, default=2.0, metavar="S", help="seconds between two events, at least (2)")
    parser.add_argument("--events", action="store_true", help="every pause of more than 50 ms, and every path")
    options = parser.parse_args()
    if (why_not := available()) is not None:
        print(why_not, file=sys.stderr)
        return 1
    try:
        started = time.monotonic()
        with playing(relay=options.relay, size=options.size, rate=options.size / _DURATION, stop=options.stop) as play:
            print(_LINE.format(*_HEADINGS).rstrip(), flush=True)
            if options.events:
                play.on_event = _show_event
            outcomes = tell(options.only, play, options.rest, show)
            received, same = play.finish(_DURATION)
    except (LabError, StoryError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    digests = "the digests agree" if same else "THE DIGESTS DIFFER"
    print(f"{received:,} bytes in {time.monotonic() - started:.0f} s; {digests}")
    return 0 if same and all(outcome.good for outcome in outcomes) else 1


if __name__ == "__main__":
    exit_on_sigterm()
    sys.exit(main())
