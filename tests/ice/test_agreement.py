"""Two agents whose paths break and mend at random, and who may restart: in the end they use one pair, or none."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from quice.ice import Role
from quice.ice.agent import PATIENCE
from quice.ice.checklist import CheckListState
from quice.ice.consent import LIFETIME
from quice.ice.controlling import NOMINATION_LIMIT
from tests.ice.network import Host, Network, Packet, assert_agreed

LATENCY = 0.02
HOSTS = (("192.0.2.1", "192.0.2.11", "2001:db8::1"), ("192.0.2.2", "2001:db8::2"))
ENDED = (CheckListState.COMPLETED, CheckListState.FAILED)

actions = st.one_of(
    st.tuples(st.just("cut"), st.sampled_from([*HOSTS[0], *HOSTS[1]]), st.booleans()),
    st.tuples(st.just("mend"), st.just(""), st.just(False)),
    st.tuples(st.just("lost"), st.sampled_from(["one", "two"]), st.just(False)),
    st.tuples(st.just("entrust"), st.sampled_from(["one", "two"]), st.just(False)),
    st.tuples(st.just("choose"), st.integers(0, 5).map(str), st.just(False)),
    st.tuples(st.just("restart"), st.sampled_from(["one", "two"]), st.just(False)),
)
steps = st.lists(st.tuples(actions, st.sampled_from([0.0, 0.01, 0.3, 2.5, 14.0, 33.0])), max_size=12)


class Play:
    """Two agents on a network whose paths are cut by the address that they lead over."""

    def __init__(self) -> None:
        self.network = Network(LATENCY, renomination=True)
        self.one = self.network.host(Role.CONTROLLING, HOSTS[0])
        self.two = self.network.host(Role.CONTROLLED, HOSTS[1])
        self.cuts: set[tuple[str, bool]] = set()
        self.entrusted = False
        self.network.weather = self._weather
        self.network.introduce(self.one, self.two)

    def _weather(self, packet: Packet) -> tuple[float, ...]:
        there, back = (packet.source.host, True), (packet.destination.host, False)
        return () if there in self.cuts or back in self.cuts else (0.0,)

    def host(self, name: str) -> Host:
        return self.one if name == "one" else self.two

    def act(self, what: str, name: str, outward: bool) -> None:
        now = self.network.now
        match what:
            case "cut":
                self.cuts.add((name, outward))
            case "mend":
                self.cuts.clear()
            case "lost" | "entrust":
                agent = self.host(name).agent
                self.entrusted |= what == "entrust"
                if agent.selected is not None:
                    (agent.pair_lost if what == "lost" else agent.entrust)(agent.selected, now)
            case "choose":
                pairs = [pair for pair in self.one.agent.pairs if pair.is_valid]
                if pairs:
                    self.one.agent.nominate(pairs[int(name) % len(pairs)], now)
            case _:
                early = self.host(name)
                late = self.two if early is self.one else self.one
                early.agent.restart(now)
                self.network.tell(late, early)
                self.network.tell(early, late)

    def settle(self) -> None:
        """Everything works from now on, and QUIC has noticed on both sides what did not."""
        self.cuts.clear()
        self.network.advance(2 * LIFETIME + 4 * PATIENCE + 4 * NOMINATION_LIMIT)


@settings(deadline=None, max_examples=60)
@given(steps)
def test_whatever_breaks_both_end_on_one_pair_or_without_any(steps: list[tuple[tuple[str, str, bool], float]]) -> None:
    play = Play()
    for action, seconds in steps:
        play.act(*action)
        play.network.advance(seconds)
    play.settle()
    states = [host.agent.report.state for host in (play.one, play.two)]
    assert all(state in ENDED for state in states)
    # Who has left it to QUIC to notice that the peer is gone, and has no QUIC, does not.
    assert states[0] is states[1] or play.entrusted
    if states == [CheckListState.COMPLETED] * 2:
        assert_agreed(play.one, play.two)
