"""Statistics over seeds, against published quantiles and numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from halos.compare.statistics import Paired, Spread, ratio, t_quantile

# Student's t, 97.5 %, as any table of it has them.
PUBLISHED = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 10: 2.228,
             15: 2.131, 20: 2.086, 25: 2.060, 30: 2.042, 40: 2.021, 60: 2.000, 120: 1.980}  # fmt: skip


@pytest.mark.parametrize("freedom", PUBLISHED)
def test_quantiles_are_the_published_ones(freedom: int) -> None:
    assert round(t_quantile(freedom), 3) == PUBLISHED[freedom]


def test_quantiles_that_have_a_closed_form_are_that_to_the_last_digits() -> None:
    assert t_quantile(1) == pytest.approx(math.tan(0.475 * math.pi), rel=1e-11)
    assert t_quantile(2) == pytest.approx(0.95 * math.sqrt(2 / (1 - 0.95**2)), rel=1e-11)
    assert t_quantile(100_000) == pytest.approx(1.959988, abs=1e-6)  # 1.959964 of a normal, and (x + x³) / 4ν


def test_the_spread_is_the_sample_standard_deviation() -> None:
    assert Spread.of([1.0, 2.0, 3.0]) == Spread(2.0, 1.0, 3)
    one = Spread.of([2.0, math.nan])
    assert (one.mean, one.count, math.isnan(one.deviation)) == (2.0, 1, True)
    assert Spread.of([]).count == 0 and math.isnan(Spread.of([]).mean)


def test_differences_are_of_the_seeds_that_both_have() -> None:
    """1, 0.5 and 1.5: mean 1, deviation 0.5; 4.30265 · 0.5 / √3 = 1.24207."""
    pair = Paired.of({1: 2.0, 2: 3.0, 3: 2.5, 4: 9.0}, {3: 1.0, 2: 2.5, 1: 1.0, 5: 9.0})
    assert (pair.mean, pair.deviation, pair.count) == (1.0, 0.5, 3)
    assert (pair.low, pair.high) == pytest.approx((-0.24207, 2.24207), abs=1e-5)


def test_two_pairs_have_a_wide_interval_and_one_has_none() -> None:
    """0.1 and 0.3: mean 0.2, deviation 0.1414; 12.7062 · 0.1414 / √2 = 1.27062."""
    two = Paired.of({1: 1.1, 2: 2.3}, {1: 1.0, 2: 2.0})
    assert (two.mean, two.low, two.high) == pytest.approx((0.2, -1.07062, 1.47062), abs=1e-5)
    one = Paired.of({1: 1.5, 2: 2.5}, {1: 1.0})
    assert (one.mean, one.count) == (0.5, 1)
    assert math.isnan(one.low) and math.isnan(one.high) and math.isnan(one.deviation)
    assert Paired.of({1: 1.0}, {2: 1.0}).count == 0


def test_ratios_are_geometric_so_that_they_turn_round() -> None:
    """Twice and eight times as long: four times in the mean; logarithms are log 4 ± log 2, so t · log 2 wide."""
    pair = ratio({1: 20.0, 2: 80.0}, {1: 10.0, 2: 10.0})
    assert (pair.mean, pair.count) == (pytest.approx(4.0), 2)
    assert (pair.low, pair.high) == pytest.approx((4.0 / 2**12.7062, 4.0 * 2**12.7062), rel=1e-4)
    assert ratio({1: 10.0, 2: 10.0}, {1: 20.0, 2: 80.0}).mean == pytest.approx(0.25)
    assert ratio({1: 5.0}, {1: 0.0}).count == 0  # reached before anything happened
