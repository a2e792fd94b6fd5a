"""What a receiver of `lab.streaming` has told: when data came, when not, and over which path."""

from __future__ import annotations

from dataclasses import dataclass, field

from lab.story import Event
from lab.streaming import PROGRESS


@dataclass(frozen=True)
class Carrier:
    """The path that most of the data comes on, from a time on."""

    at: float
    kind: str
    local: str
    remote: str


@dataclass(frozen=True)
class Reserve:
    """The paths through relays, by their ids, to which data could go, from a time on."""

    at: float
    ids: frozenset[int]


@dataclass
class Timeline:
    """All pauses and paths so far."""

    pauses: list[tuple[float, float]] = field(default_factory=list)
    carriers: list[Carrier] = field(default_factory=list)
    reserves: list[Reserve] = field(default_factory=list)
    bytes: int = 0
    last: float = 0.0
    """When something came."""

    def take(self, event: Event) -> None:
        """Note an event."""
        match event["event"]:
            case "pause":
                self.pauses.append((event["since"], event["until"]))
                self.last = event["until"]
            case "progress":
                self.bytes, self.last = event["bytes"], event["last"]
            case "path":
                self.carriers.append(Carrier(event["at"], event["kind"], event["local"], event["remote"]))
            case "reserve":
                self.reserves.append(Reserve(event["at"], frozenset(event["ids"])))

    def longest_pause(self, since: float, now: float) -> float:
        """The longest time after `since` in which nothing came; one that has not ended counts as far as it has come."""
        lasting = (self.last, now) if now - self.last > 2 * PROGRESS else (now, now)
        pauses = [*self.pauses, lasting]
        return max([until - max(begun, since) for begun, until in pauses if until > since], default=0.0)

    def carrier_at(self, time: float) -> Carrier | None:
        """What the data came on at this time."""
        return next((carrier for carrier in reversed(self.carriers) if carrier.at <= time), None)

    def came_back(self, since: float, kind: str) -> float | None:
        """Seconds until data came on a path of this kind that was not in use before; None where none took over."""
        return next((each.at - since for each in self.carriers if each.at > since and each.kind == kind), None)

    def new_reserve(self, since: float) -> float | None:
        """Seconds until there was a path in reserve that was not there before; None if there is none."""
        before = next((each.ids for each in reversed(self.reserves) if each.at <= since), frozenset())
        return next((each.at - since for each in self.reserves if each.at > since and each.ids - before), None)
