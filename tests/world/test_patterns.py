"""Patterns of collectives: who sends how much to whom."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halos.world.patterns import PATTERNS, Stage, hierarchical, ring, tree

REGIONS = st.lists(st.integers(0, 3), min_size=1, max_size=17).map(sorted)


def test_a_ring_of_three_sends_two_thirds_twice_from_each_to_the_next() -> None:
    third = pytest.approx(4 / 3)  # 2 (M-1) steps of 1/M
    assert ring([0, 0, 1]) == [Stage([(0, 1, third), (1, 2, third), (2, 0, third)], 4)]
    assert ring([0, 0, 1], gathered=True) == [Stage([(0, 1, 2.0), (1, 2, 2.0), (2, 0, 2.0)], 2)]


def test_a_tree_of_five_takes_three_stages_up_and_three_down() -> None:
    up = [Stage([(1, 0, 1.0), (3, 2, 1.0)], 1), Stage([(2, 0, 1.0)], 1), Stage([(4, 0, 1.0)], 1)]
    down = [Stage([(0, 4, 1.0)], 1), Stage([(0, 2, 1.0)], 1), Stage([(0, 1, 1.0), (2, 3, 1.0)], 1)]
    assert tree([0] * 5) == up + down


def test_regions_of_three_and_one_reduce_inside_first() -> None:
    inside = Stage([(1, 0, 1.0), (2, 1, 1.0)], 2)
    among = Stage([(0, 3, 1.0), (3, 0, 1.0)], 2)  # of two leaders: 2 steps of a half
    assert hierarchical([0, 0, 0, 1]) == [inside, among, Stage([(0, 1, 1.0), (1, 2, 1.0)], 2)]


@pytest.mark.parametrize("name", PATTERNS)
def test_one_member_sends_nothing(name: str) -> None:
    assert PATTERNS[name]([0], False) == PATTERNS[name]([0], True) == []


@pytest.mark.parametrize("name", PATTERNS)
@given(regions=REGIONS)
def test_an_all_reduce_sends_two_payloads_less_than_twice_the_members(name: str, regions: list[int]) -> None:
    sent = sum(payloads for stage in PATTERNS[name](regions, False) for _, _, payloads in stage.sends)
    assert sent == pytest.approx(2 * (len(regions) - 1))


@pytest.mark.parametrize("name", PATTERNS)
@given(regions=REGIONS)
def test_in_an_all_gather_everybody_receives_what_it_does_not_have_and_no_more(name: str, regions: list[int]) -> None:
    received = [Fraction(0)] * len(regions)
    for stage in PATTERNS[name](regions, True):
        for _, target, payloads in stage.sends:
            received[target] += Fraction(payloads)
    assert received == [len(regions) - 1] * len(regions)
