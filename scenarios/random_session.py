"""A session drawn by its seed: where the peers are, what the weather is, what goes wrong, and whether it must work."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from quice.signal.messages import Establish
from quice.sim.kinds import CLASSIC, Nat, behaviour
from quice.sim.link import Bursts, Conditions
from quice.sim.nat import Hairpinning, NatBehaviour, PortAllocation
from quice.sim.simulation import Simulation
from quice.sim.site import Site
from quice.stun.discovery import Behaviour
from scenarios import story
from scenarios.faults import LoseFirst
from scenarios.story import BrokenError, Outcome, Wire

_NAMES = ("one", "two")
_BEHAVIOURS = tuple(Behaviour)
ESTABLISH = (Establish.HIGHEST_ADDRESS, Establish.SIMULTANEOUS)
"""The ways that differ from the usual one."""


@dataclass(frozen=True)
class Place:
    """Where a peer is. `nat` None: right on the internet."""

    nat: NatBehaviour | None
    carrier: NatBehaviour | None
    ipv6: bool
    uplink: Conditions
    downlink: Conditions | None = None
    """As `uplink` if None."""
    ipv4: bool = True

    @property
    def nats(self) -> list[NatBehaviour]:
        """Those on the way to the internet."""
        return [nat for nat in (self.nat, self.carrier) if nat is not None]

    @property
    def mapping(self) -> Behaviour:
        """Of all NATs on the way: the one that depends on most decides."""
        return max((nat.mapping for nat in self.nats), key=_BEHAVIOURS.index, default=Behaviour.ENDPOINT_INDEPENDENT)

    @property
    def filtering(self) -> Behaviour:
        """Likewise."""
        return max((nat.filtering for nat in self.nats), key=_BEHAVIOURS.index, default=Behaviour.ENDPOINT_INDEPENDENT)


@dataclass(frozen=True)
class Cut:
    """An uplink that is down for a while."""

    peer: int
    at: float
    seconds: float


@dataclass(frozen=True)
class Plan:
    """All that makes a session what it is, by its seed."""

    seed: int
    places: tuple[Place, Place]
    together: bool
    """Whether both are on one network."""
    pause: float
    question: int
    cut: Cut | None
    establish: Establish = Establish.INITIATOR
    """Who makes the connection."""
    higher: bool = False
    """Whether the peer that connects has the higher public address."""
    silenced: tuple[int, int] = (0, 0)
    """So many of each peer's first QUIC packets get lost on their way to the internet."""

    @property
    def must_work(self) -> bool:
        """Whether hole punching, or no punching at all, can serve these two."""
        return self.together or can_reach(*self.places)


def can_reach(one: Place, two: Place) -> bool:
    """Whether hole punching, or no punching at all, can serve two peers at these places."""
    # Where both map by address and port, each answer comes from another port than what it answers went to.
    astray = one.mapping is two.mapping is Behaviour.ADDRESS_AND_PORT_DEPENDENT
    punched = _opens(one, two) and _opens(two, one) and not astray
    return (one.ipv6 and two.ipv6) or (one.ipv4 and two.ipv4 and punched)


def _opens(here: Place, there: Place) -> bool:
    """Whether `there` can receive what `here` sends to an address that it knows or learns."""
    if here.mapping is Behaviour.ENDPOINT_INDEPENDENT or there.filtering is Behaviour.ENDPOINT_INDEPENDENT:
        # It comes from an address that `there` knows and has sent to, or it needs to come from none.
        return True
    # It comes from another port than `there` knows.
    return there.filtering is Behaviour.ADDRESS_DEPENDENT and there.mapping is Behaviour.ENDPOINT_INDEPENDENT


def draw(seed: int) -> Plan:
    """The session of this number."""
    dice = random.Random(seed)
    together = dice.random() < 0.1
    places = _place(dice), _place(dice)
    if together:
        places = places[0], replace(places[0], uplink=places[1].uplink)
    cut = None
    if dice.random() < 0.15:
        cut = Cut(dice.randrange(2), dice.uniform(0.0, 3.0), dice.uniform(0.05, 2.0))
    pause, question = dice.uniform(0.0, 2.0), int(10 ** dice.uniform(0, 4.5))
    establish = dice.choice(ESTABLISH) if dice.random() < 0.4 else Establish.INITIATOR
    higher = dice.random() < 0.5
    silenced = (dice.randrange(6), dice.randrange(6)) if dice.random() < 0.2 else (0, 0)
    if not together:
        places = _lopsided(places[0], dice), _lopsided(places[1], dice)
    return Plan(seed, places, together, pause, question, cut, establish, higher, silenced)


def _lopsided(place: Place, dice: random.Random) -> Place:
    """Some places are faster to send from than to."""
    if dice.random() < 0.7:
        return place
    return replace(place, downlink=replace(place.uplink, delay=_delay(dice)))


def _delay(dice: random.Random) -> float:
    return 10 ** dice.uniform(-3.5, -0.9)


def _place(dice: random.Random) -> Place:
    kind = dice.random()
    if kind < 0.15:
        nat = None
    elif kind < 0.6:
        nat = behaviour(dice.choice([nat for nat in CLASSIC if nat is not Nat.PUBLIC]))
    else:
        nat = _nat(dice)
    carrier = _nat(dice) if nat is not None and dice.random() < 0.15 else None
    return Place(nat, carrier, dice.random() < 0.2, _weather(dice))


def _nat(dice: random.Random) -> NatBehaviour:
    return NatBehaviour(
        mapping=dice.choice(_BEHAVIOURS),
        filtering=dice.choice(_BEHAVIOURS),
        ports=dice.choice([PortAllocation.PRESERVED, PortAllocation.RANDOM, PortAllocation.SEQUENTIAL]),
        parity=dice.random() < 0.3,
        hairpinning=dice.choice(tuple(Hairpinning)),
        timeout=dice.choice([30.0, 120.0, 300.0]),
        refreshed_by_inbound=dice.random() < 0.5,
    )


def _weather(dice: random.Random) -> Conditions:
    def sometimes(probability: float, most: float) -> float:
        return dice.uniform(0, most) if dice.random() < probability else 0.0

    return Conditions(
        delay=_delay(dice),
        jitter=sometimes(0.3, 0.03),
        loss=sometimes(0.4, 0.1),
        bursts=Bursts(0.01, 0.3) if dice.random() < 0.1 else None,
        reordering=sometimes(0.2, 0.1),
        duplication=sometimes(0.2, 0.1),
        corruption=sometimes(0.1, 0.02),
        rate=dice.choice([None, None, None, 2e6]),
        mtu=dice.choice([1500, 1500, 1492, 1400]),
    )


def run(plan: Plan) -> Outcome:
    """Let the session happen, and check what must hold. Raises `BrokenError`."""
    wire = Wire()
    with Simulation(plan.seed) as simulation:
        world = simulation.world
        world.watch(wire)
        sites = _sites(simulation, plan)
        server = world.host("server", ipv6=1)
        peers = [site.host(name) for site, name in zip(sites, _NAMES, strict=True)]
        for site, count in zip(sites, plan.silenced, strict=True):
            site.router.boxes.append(LoseFirst(count))
        if plan.cut is not None:
            link = sites[plan.cut.peer].link
            world.at(plan.pause + plan.cut.at, link.cut)
            world.at(plan.pause + plan.cut.at + plan.cut.seconds, link.mend)

        def relax() -> None:
            for site in sites:
                site.link.change(Conditions(delay=site.link.outward.conditions.delay))

        question = bytes(range(256)) * (plan.question // 256 + 1)
        story_ = story.connect(
            server,
            peers[0],
            peers[1],
            pause=plan.pause,
            question=question[: plan.question],
            establish=plan.establish,
            agreed=lambda outcome: story.check_agreement(outcome, wire, _NAMES),
            relax=relax,
        )
        outcome = simulation.run(story_)
        story.check_agreement(outcome, wire, _NAMES)
        story.check_pacing(wire)
        if plan.must_work and outcome.connect_seconds is None:
            raise BrokenError(f"these two can reach each other, and did not: {outcome.reason}")
        del server, peers, story_
        story.check_left_overs(simulation, outcome)
    return outcome


def _sites(simulation: Simulation, plan: Plan) -> list[Site]:
    if plan.together:
        return [_site(simulation, "here", plan.places[0])] * 2
    named = list(zip(("here", "there"), plan.places, strict=True))
    # Addresses are given out in ascending order.
    order = named[::-1] if plan.higher else named
    sites = {name: _site(simulation, name, place) for name, place in order}
    return [sites[name] for name, _ in named]


def _site(simulation: Simulation, name: str, place: Place) -> Site:
    world = simulation.world
    carrier = None
    if place.carrier is not None:
        carrier = world.site(f"carrier of {name}", nat=place.carrier, ipv6=place.ipv6, carrier=True)
    nat = place.nat if place.nat is not None else Nat.PUBLIC
    return world.site(name, nat=nat, ipv6=place.ipv6, behind=carrier, uplink=place.uplink, downlink=place.downlink)
