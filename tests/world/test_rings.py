"""Rings, against all orders tried one by one."""

from __future__ import annotations

import logging
from itertools import permutations

import numpy as np
import pytest

from halos.world.rings import best_ring
from tests.world.example import EXAMPLE


def test_one_region_uses_its_own_link_and_two_the_slower_direction() -> None:
    assert best_ring(np.array([[7.0]])) == 7.0
    assert best_ring(np.array([[9.0, 3.0], [2.0, 9.0]])) == 2.0


def test_the_best_ring_of_the_example_environment_is_its_slowest_but_one_link() -> None:
    assert best_ring(np.array(EXAMPLE)) == 0.127


@pytest.mark.parametrize("seed", range(30))
def test_the_best_ring_equals_trying_all_orders(seed: int) -> None:
    rng = np.random.default_rng(seed)
    regions = int(rng.integers(3, 8))
    matrix = (
        rng.choice([0.1, 0.2, 0.5, 1.0, 2.0, 5.0], (regions, regions)) if seed % 2 else rng.random((regions, regions))
    )
    tried = max(
        min(matrix[order[i], order[(i + 1) % regions]] for i in range(regions))
        for order in permutations(range(regions))
    )
    assert best_ring(matrix) == tried


def test_a_directed_ring_hidden_among_slow_links_is_found_at_twenty_regions_and_above() -> None:
    for regions in (20, 30):
        rng = np.random.default_rng(regions)
        matrix = rng.random((regions, regions)) * 0.1
        order = rng.permutation(regions)
        for i in range(regions):
            matrix[order[i], order[(i + 1) % regions]] = 5.0
        assert best_ring(matrix) == 5.0


def test_above_twenty_regions_it_is_said_that_the_ring_is_only_searched_for(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert best_ring(np.ones((20, 20))) == 1.0
        assert caplog.records == []
        assert best_ring(np.ones((21, 21))) == 1.0
    assert [each.message for each in caplog.records] == [
        "21 regions: the best all-reduce ring is only searched for, not proven"
    ]
