"""Flows: bytes on shared links, whose ends change as others come and go."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halos.sim.clock import Clock, Deadlock
from halos.sim.transit.flows import Flow, Flows
from halos.world.fair import Link
from halos.world.phases import Capacity, Phase

BYTE = 8.0  # bits


def steady(**bits: float) -> Capacity:
    return lambda link, time: (bits[str(link)], math.inf)


class Bench:
    """A clock, flows that begin at given moments, and when each of them was over."""

    def __init__(self, capacity: Capacity) -> None:
        self.clock = Clock()
        self.flows = Flows(self.clock, capacity)
        self.over: dict[str, float] = {}
        self.under_way: dict[str, Optional[Flow]] = {}

    def begin(self, name: str, at: float, *links: str, nbytes: float, **loads: float) -> None:
        def add() -> None:
            phase = Phase({**dict.fromkeys(links, nbytes), **loads})
            self.under_way[name] = self.flows.add(phase, lambda: self.over.update({name: self.clock.now}))

        self.at(at, add)

    def at(self, moment: float, act: Callable[[], Any]) -> None:
        self.clock.at(moment, act)

    def run(self, until: float = 1e9) -> dict[str, float]:
        async def wait() -> None:
            await self.clock.at(until)

        self.clock.spawn(wait())
        self.clock.run()
        return self.over


def test_a_lone_flow_takes_its_bits_over_the_narrowest_link() -> None:
    bench = Bench(steady(a=10.0 * BYTE, b=4.0 * BYTE))
    bench.begin("x", 3.0, "a", "b", nbytes=20.0)
    assert bench.run() == {"x": 8.0}


def test_two_equal_flows_take_twice_as_long() -> None:
    bench = Bench(steady(a=10.0 * BYTE))
    for name in "xy":
        bench.begin(name, 1.0, "a", nbytes=20.0)
    assert bench.run() == {"x": 5.0, "y": 5.0}


def test_a_flow_that_comes_half_way_shares_from_then_on() -> None:
    bench = Bench(steady(a=10.0 * BYTE))
    bench.begin("x", 0.0, "a", nbytes=40.0)  # 20 bytes by 2 s, the other 20 at half the rate by 6 s
    bench.begin("y", 2.0, "a", nbytes=40.0)  # 20 bytes by 6 s, the other 20 alone by 8 s
    assert bench.run() == {"x": 6.0, "y": 8.0}


def test_three_flows_on_two_links() -> None:
    bench = Bench(steady(a=10.0 * BYTE, b=4.0 * BYTE))
    bench.begin("x", 0.0, "a", nbytes=80.0)  # 8 bytes/s
    bench.begin("y", 0.0, "a", "b", nbytes=24.0)  # 2 bytes/s: 20 bytes by 10 s
    bench.begin("z", 0.0, "b", nbytes=20.0)  # 2 bytes/s
    # At 10 s x and z are over; y has b to itself, 4 bytes/s, for the last 4 bytes.
    assert bench.run() == {"x": 10.0, "z": 10.0, "y": 11.0}


def test_what_one_leaves_goes_to_the_others_as_soon_as_it_is_given_up() -> None:
    bench = Bench(steady(a=10.0 * BYTE))
    for name in "xy":
        bench.begin(name, 0.0, "a", nbytes=40.0)  # 20 bytes each by 4 s; x has the other 20 by 6 s
    bench.at(4.0, lambda: bench.flows.give_up(bench.under_way["y"]))  # type: ignore[arg-type]
    assert bench.run() == {"x": 6.0}
    assert bench.flows.carried() == {"a": 60.0}


def test_one_that_is_given_up_as_it_would_be_over_is_not_over_and_keeps_nobody() -> None:
    bench = Bench(steady(a=10.0 * BYTE))
    for name in "xy":
        bench.begin(name, 0.0, "a", nbytes=20.0)
    bench.at(4.0, lambda: bench.flows.give_up(bench.under_way["x"]))  # type: ignore[arg-type]
    assert bench.run() == {"y": 4.0}


def test_a_collective_and_a_transfer() -> None:
    # Of each byte on a, the collective moves half of one on b. 5 bytes/s each, until the transfer is over at 4 s.
    bench = Bench(steady(a=10.0 * BYTE, b=100.0 * BYTE))
    bench.begin("collective", 0.0, nbytes=0.0, a=60.0, b=30.0)  # 20 bytes of a by 4 s, the other 40 by 8 s
    bench.begin("transfer", 0.0, "a", nbytes=20.0)
    assert bench.run() == {"transfer": 4.0, "collective": 8.0}
    assert bench.flows.carried() == {"a": 80.0, "b": 30.0}


def test_two_collectives_at_once_on_one_link_take_what_both_take_one_after_the_other() -> None:
    bench = Bench(steady(a=10.0 * BYTE, b=10.0 * BYTE))
    bench.begin("x", 0.0, nbytes=0.0, a=30.0, b=10.0)
    bench.begin("y", 0.0, nbytes=0.0, a=30.0, b=10.0)
    assert bench.run() == {"x": 6.0, "y": 6.0}


def test_capacity_that_changes_under_way() -> None:
    pieces = ((10.0, 2.0), (0.0, 5.0), (40.0, 6.0), (1.0, math.inf))  # bytes per second, until
    bench = Bench(lambda link, time: next((rate * BYTE, until) for rate, until in pieces if time < until))
    bench.begin("x", 0.0, "a", nbytes=40.0)  # 20 by 2 s, nothing until 5 s, 20 more by 5.5 s
    bench.begin("y", 1.0, "b", nbytes=51.0)  # 10 by 2 s, 40 by 6 s, the last at 1 byte/s by 7 s
    assert bench.run() == {"x": 5.5, "y": 7.0}


def test_nothing_to_carry_and_nothing_in_the_way_take_no_time() -> None:
    bench = Bench(steady(a=10.0 * BYTE, endless=math.inf))
    bench.begin("empty", 2.0, "a", nbytes=0.0)
    bench.begin("nowhere", 2.0, nbytes=7.0)
    bench.begin("endless", 2.0, "endless", nbytes=1e12)
    assert bench.run() == {"empty": 2.0, "nowhere": 2.0, "endless": 2.0}


def test_a_link_that_never_carries_anything_is_named_and_keeps_nobody_else() -> None:
    bench = Bench(steady(a=10.0 * BYTE, dead=0.0))
    bench.begin("stuck", 0.0, "a", "dead", nbytes=1.0)
    bench.begin("x", 0.0, "a", nbytes=20.0)
    assert bench.run() == {"x": 2.0}
    assert bench.flows.standing() == ["dead"]


def test_who_waits_for_what_never_ends_is_told_so() -> None:
    bench = Bench(steady(dead=0.0))

    async def wait() -> None:
        await bench.clock.at(math.inf)

    bench.clock.spawn(wait())
    bench.begin("stuck", 0.0, "dead", nbytes=1.0)
    with pytest.raises(Deadlock):
        bench.clock.run()


def test_what_shares_no_link_with_a_change_is_left_alone() -> None:
    asked: list[Link] = []

    def capacity(link: Link, time: float) -> tuple[float, float]:
        asked.append(link)
        return 10.0 * BYTE, math.inf

    bench = Bench(capacity)
    bench.begin("x", 0.0, "a", nbytes=100.0)
    bench.begin("y", 1.0, "b", "c", nbytes=10.0)
    bench.at(0.5, asked.clear)
    bench.at(1.5, lambda: asked.append("later"))
    bench.run(1.75)
    assert asked == ["b", "c", "later"]


MOMENTS, LINKS = st.integers(0, 8).map(float), st.sampled_from("abcd")
GIVEN_UP = st.one_of(st.none(), MOMENTS.map(lambda moment: moment + 0.31415926))  # not as one is over
BEGUN = st.tuples(MOMENTS, st.dictionaries(LINKS, st.floats(0.5, 20.0), min_size=1), GIVEN_UP)
PIECES = st.lists(st.floats(0.0, 10.0), min_size=0, max_size=4)


@settings(deadline=None)
@given(st.lists(BEGUN, min_size=1, max_size=12), st.fixed_dictionaries(dict.fromkeys("abcd", PIECES)))
def test_ends_are_those_of_a_slow_and_simple_simulation(
    begun: list[tuple[float, dict[str, float], Optional[float]]], pieces: dict[str, list[float]]
) -> None:
    """Flows begin, and some are given up; each link has other capacities for some seconds, and then 5 bytes/s."""

    def bytes_per_second(link: str, time: float) -> float:
        return [*pieces[link], 5.0][min(int(time), len(pieces[link]))]

    def capacity(link: Link, time: float) -> tuple[float, float]:
        changes = len(pieces[str(link)])
        return bytes_per_second(str(link), time) * BYTE, math.floor(time) + 1.0 if time < changes else math.inf

    bench = Bench(capacity)
    for number, (start, loads, given_up) in enumerate(begun):
        bench.begin(str(number), start, nbytes=0.0, **loads)
        if given_up is not None and given_up > start:
            bench.at(given_up, lambda name=str(number): bench.flows.give_up(bench.under_way[name]))
    over = bench.run()

    expected, moved = simulated(begun, bytes_per_second)
    assert over == pytest.approx(expected, rel=1e-6)
    carried = bench.flows.carried()
    assert carried == pytest.approx({link: moved[link] for link in carried}, rel=1e-6, abs=1e-6)
    assert all(moved[link] == 0.0 for link in moved.keys() - carried.keys())


def simulated(
    begun: list[tuple[float, dict[str, float], Optional[float]]], capacity: Callable[[str, float], float]
) -> tuple[dict[str, float], dict[str, float]]:
    """Return when which flow is over, and the bytes moved over each link: one event after the other, all flows anew."""
    left = {str(number): 1.0 for number in range(len(begun))}  # the share of its bytes
    given_up = {
        str(number): math.inf if end is None or end <= start else end for number, (start, _, end) in enumerate(begun)
    }
    over: dict[str, float] = {}
    moved = dict.fromkeys("abcd", 0.0)
    now = 0.0
    while left:
        for name in [name for name in left if given_up[name] <= now]:
            del left[name]
        here = {name: begun[int(name)][1] for name in left if begun[int(name)][0] <= now}
        rates = shares(here, {link: capacity(link, now) for link in "abcd"})  # of all its bytes, per second
        ends = {name: now + left[name] / rates[name] for name in here if rates[name] > 0.0}
        gone = min((end for end in given_up.values() if end > now), default=math.inf)
        following = min(min(ends.values(), default=math.inf), math.floor(now) + 1.0, gone)
        for name, loads in here.items():
            done = min(left[name], rates[name] * (following - now))
            left[name] -= done
            for link, load in loads.items():
                moved[link] += done * load
            if ends.get(name, math.inf) <= following + 1e-12:
                over[name] = following
                del left[name]
        now = following
    return over, moved


def shares(flows: dict[str, dict[str, float]], capacity: dict[str, float]) -> dict[str, float]:
    """Return each flow's max–min fair share, as a share of its bytes per second: the most filled link first."""
    found: dict[str, float] = {}
    left = dict(capacity)
    sizes = {name: max(loads.values()) for name, loads in flows.items()}
    while len(found) < len(flows):
        rest = [name for name in flows if name not in found]
        full = {
            link: max(0.0, left[link]) / sum(flows[name].get(link, 0.0) / sizes[name] for name in rest)
            for link in left
            if any(link in flows[name] for name in rest)
        }
        narrowest = min(full, key=lambda link: full[link])
        for name in rest:
            if narrowest in flows[name]:
                found[name] = full[narrowest] / sizes[name]
                for link, load in flows[name].items():
                    left[link] -= found[name] * load
    return found
