"""Rounding errors: what is meant by a number that is next to another."""

from __future__ import annotations

import math

from halos.values.rounding import earliest, latest, rounded, rounded_down, rounded_up


def test_a_ratio_that_is_whole_on_paper_is_whole() -> None:
    third = 0.2 / 0.6
    assert 30 * third > 10  # 30 · 0.2 / 0.6 in doubles
    assert (rounded_up(30 * third), rounded_down(30 * third), rounded(30 * third)) == (10, 10, 10)
    assert 100 * 0.29 < 29
    assert (rounded_up(100 * 0.29), rounded_down(100 * 0.29)) == (29, 29)


def test_what_is_not_is_rounded_as_ever() -> None:
    assert (rounded_up(10.001), rounded_down(9.999), rounded(9.4)) == (11, 9, 9)
    assert (rounded_up(1e-9), rounded_down(1.0 - 1e-9)) == (1, 0)


def test_the_middle_of_two_is_the_middle_however_it_was_computed() -> None:
    for half in (2.5, math.nextafter(2.5, 0), math.nextafter(2.5, 9)):
        assert rounded(half) == 2  # as Python's round: the even one
    for half in (3.5, math.nextafter(3.5, 0), math.nextafter(3.5, 9)):
        assert rounded(half) == 4


def test_a_difference_is_as_uncertain_as_what_it_is_a_difference_of() -> None:
    left = 1e6 - 999_999.7  # 0.3, and 6e-11
    assert left * 10 > 3
    assert rounded_up(left * 10) == 4
    assert rounded_up(left * 10, of=1e7) == 3


def test_moments_are_told_apart_unless_they_differ_by_rounding() -> None:
    assert sum([0.1] * 10_000) != 1000.0
    assert earliest(1000.0) < sum([0.1] * 10_000) < latest(1000.0)
    assert latest(1000.0) < 1000.0 + 1e-6
    assert earliest(1000.0) > 1000.0 - 1e-6
    assert (earliest(0.0), latest(0.0), latest(math.inf)) == (0.0, 0.0, math.inf)
