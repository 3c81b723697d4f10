"""Fair shares: nobody can have more without somebody who has no more than that having less."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halos import fair_rates

LINKS = st.sampled_from("abcde")
WEIGHTS = st.dictionaries(LINKS, st.floats(0.01, 10.0), min_size=1)
FLOWS = st.lists(st.tuples(WEIGHTS, st.integers(1, 5)), min_size=1, max_size=8)
CAPACITY = st.fixed_dictionaries(dict.fromkeys("abcde", st.one_of(st.just(0.0), st.floats(0.1, 1e11))))


def test_a_lone_flow_has_its_narrowest_link() -> None:
    assert fair_rates([({"a": 1.0, "b": 1.0}, 1)], {"a": 10.0, "b": 4.0}) == [4.0]


def test_two_equal_flows_have_half_each() -> None:
    assert fair_rates([({"a": 1.0}, 2)], {"a": 10.0}) == [5.0]


def test_three_flows_on_two_links() -> None:
    # Link b (4) is full when both of its flows have 2; the one that is on a (10) alone has what is left there, 8.
    assert fair_rates([({"a": 1.0}, 1), ({"a": 1.0, "b": 1.0}, 1), ({"b": 1.0}, 1)], {"a": 10.0, "b": 4.0}) == [8, 2, 2]


def test_a_collective_that_takes_half_as_much_of_a_second_link_leaves_the_rest_of_it() -> None:
    # Both have r on a: r + r = 10; of b (9) the collective takes 5 / 2, the other flow there the rest.
    flows = [({"a": 1.0, "b": 0.5}, 1), ({"a": 1.0}, 1), ({"b": 1.0}, 1)]
    assert fair_rates(flows, {"a": 10.0, "b": 9.0}) == [5.0, 5.0, 6.5]


def test_a_link_without_capacity_stops_its_flows_and_no_others() -> None:
    flows = [({"a": 1.0, "b": 1.0}, 3), ({"b": 1.0}, 2)]
    assert fair_rates(flows, {"a": 0.0, "b": 10.0}) == [0.0, 5.0]


def test_nothing_limits_a_flow_without_finite_links() -> None:
    assert fair_rates([({}, 1), ({"a": 1.0}, 2)], {"a": math.inf}) == [math.inf, math.inf]


@given(FLOWS, CAPACITY)
def test_every_flow_has_a_full_link_on_which_nobody_has_more(
    flows: list[tuple[dict[str, float], int]], capacity: dict[str, float]
) -> None:
    """Which is the same as max–min fair (Bertsekas and Gallager, Data Networks, 6.5.2)."""
    rates = fair_rates(flows, capacity)
    used = {
        link: sum(rate * weights.get(link, 0.0) * count for rate, (weights, count) in zip(rates, flows))
        for link in capacity
    }
    for link, bits in capacity.items():
        assert used[link] <= bits * (1 + 1e-9)
    for rate, (weights, _) in zip(rates, flows):
        most = {link: max(r for r, (w, _) in zip(rates, flows) if link in w) for link in weights}
        full = [link for link in weights if used[link] >= capacity[link] * (1 - 1e-9)]
        assert any(rate == pytest.approx(most[link], rel=1e-9) for link in full)
