"""How much of a head is rotated."""

from __future__ import annotations

import pytest

from halos.models.neox_size import rotary_pairs


@pytest.mark.parametrize(
    ("head_size", "fraction", "pairs"),
    [(64, 0.25, 8), (64, 1.0, 32), (10, 0.25, 1), (6, 0.5, 2), (8, 0.0, 0)],  # of 16, 64, 2, 3 and 0 dimensions
)
def test_of_a_heads_rotated_dimensions_two_are_a_pair_and_an_odd_one_is_too(
    head_size: int, fraction: float, pairs: int
) -> None:
    assert rotary_pairs(head_size, fraction) == pairs
