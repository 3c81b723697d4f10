"""Numbers as a column shows them."""

from __future__ import annotations

import math

import pytest

from halos.compare.scale import Scale, amount
from halos.compare.statistics import Spread


def test_a_column_has_one_unit_and_as_many_decimals_as_its_middle_needs() -> None:
    scale = Scale.of([2099.2, 371.8, 221.4], "seconds")
    assert [scale.show(each) for each in (2099.2, 371.8, 221.4, math.nan)] == ["2,099", "372", "221", "–"]
    gigabytes = Scale.of([270e9, 36e9, 4327e9], "bytes")
    assert (gigabytes.unit, [gigabytes.show(each) for each in (270e9, 36e9, 4327e9)]) == ("GB", ["270", "36", "4,327"])
    staleness = Scale.of([0.0, 0.97, 14.75, 2.82])
    assert [staleness.show(each) for each in (0.0, 0.97, 14.75)] == ["0.00", "0.97", "14.75"]


def test_what_is_counted_has_no_decimals() -> None:
    assert Scale.of([32.0, 522.0], "steps").show(522.0) == "522"
    assert Scale.of([2.5, 522.0, 3.0], "steps").show(522.0) == "522.00"


def test_losses_have_three_decimals_or_as_many_as_it_takes() -> None:
    assert Scale.of([2.231, 2.5], least=3).show(2.2314) == "2.231"
    assert Scale.of([0.0078, 0.089], least=3).show(0.0078125) == "0.0078"
    assert Scale.of([1e-5], least=3).show(1.234e-5) == "0.0000123"


def test_a_spread_has_its_deviation_if_there_is_one() -> None:
    scale = Scale.of([2.0], least=3)
    assert scale.spread(Spread(2.5, 0.25, 3)) == "2.500 ± 0.250"
    assert scale.spread(Spread(-0.25, 0.125, 3), "+") == "-0.250 ± 0.125"
    assert scale.spread(Spread(2.5, math.nan, 1)) == "2.500"
    assert scale.spread(Spread(math.nan, math.nan, 0)) == "–"


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        (524_288, "tokens", "524k tokens"),
        (2_097_152, "tokens", "2,097k tokens"),
        (320, "tokens", "320 tokens"),
        (8192, "steps", "8,192 steps"),
        (1064.3, "seconds", "1,064 s"),
        (36_000, "seconds", "10.0 h"),
        (12.34e9, "bytes", "12.3 GB"),
        (64, "bytes", "64 bytes"),
    ],
)
def test_an_amount_has_its_unit(value: float, kind: str, said: str) -> None:
    assert amount(value, kind) == said
