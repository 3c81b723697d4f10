"""Bands of losses over seeds, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from halos.compare.bands import POINTS, above, band, common, curves, gaps, held
from halos.compare.curve import Curve
from halos.compare.groups import Group
from halos.reading.run import read
from tests.compare.made_runs import write_run


def curve(losses: dict[float, float], of: str = "tokens") -> Curve:
    spent = {name: np.array(list(losses), float) for name in ("tokens", "steps", "seconds", "bytes")}
    return Curve({**spent, of: np.array(list(losses), float)}, np.array(list(losses.values())))


def test_a_band_has_the_places_of_all_evaluations_that_all_seeds_have_come_to() -> None:
    """At 10 the second is half way from 6 to 2; the first ends at 20, so 30 is not in it."""
    found = band([curve({0: 5.0, 10: 3.0, 20: 1.0}), curve({0: 6.0, 20: 2.0, 30: 0.0})], "tokens")
    assert found is not None
    assert found.at.tolist() == [0, 10, 20]
    assert found.mean.tolist() == [5.5, 3.5, 1.5]
    assert (found.low.tolist(), found.high.tolist()) == ([5.0, 3.0, 1.0], [6.0, 4.0, 2.0])


def test_against_time_the_last_evaluation_counts() -> None:
    found = band([curve({0: 5.0, 10: 3.0, 20: 1.0}), curve({0: 6.0, 20: 2.0})], "seconds")
    assert found is not None and found.mean.tolist() == [5.5, 4.5, 1.5]
    assert held("seconds") and not held("tokens")


def test_a_logarithmic_axis_has_no_place_at_0() -> None:
    found = band([curve({0: 5.0, 10: 3.0})], "seconds", logarithmic=True)
    assert found is not None and (found.at.tolist(), found.mean.tolist()) == ([10], [3.0])
    assert band([curve({0: 5.0})], "seconds", logarithmic=True) is None


@pytest.mark.parametrize("logarithmic", [False, True])
def test_more_places_than_can_be_seen_are_spread_evenly(logarithmic: bool) -> None:
    """A straight line stays one at any place."""
    many = np.linspace(1.0, 3.0, 3 * POINTS)
    found = band([curve(dict(zip(many, 10.0 - many)))], "tokens", logarithmic)
    assert found is not None and len(found.at) == POINTS
    assert (found.at[0], found.at[-1]) == (1.0, 3.0)
    assert np.allclose(found.mean, 10.0 - found.at)
    ratios, steps = found.at[1:] / found.at[:-1], np.diff(found.at)
    assert np.ptp(ratios if logarithmic else steps) < 1e-9


def test_seeds_that_have_nothing_in_common_have_no_band() -> None:
    assert band([curve({0: 5.0, 10: 3.0}), curve({20: 5.0, 30: 3.0})], "tokens") is None
    assert band([], "tokens") is None
    assert band([curve({np.nan: 5.0})], "bytes") is None


def test_losses_above_the_baseline_are_by_seed() -> None:
    ours = {1: curve({0: 5.0, 10: 3.0}), 2: curve({0: 6.0, 10: 2.0}), 3: curve({0: 9.0})}
    found = above(ours, {1: curve({0: 9.0, 5: 2.5}), 2: curve({0: 1.0})})
    assert {seed: each.loss.tolist() for seed, each in found.items()} == {1: [2.5, 0.5], 2: [5.0, 1.0]}


def test_gaps_are_after_the_same_number_of_tokens() -> None:
    """After 10 the second is on its line from 6 to 2; where one has not come to them, nothing is known."""
    ours = {1: curve({0: 5.0, 10: 3.0}), 2: curve({20: 5.0, 30: 3.0}), 3: curve({0: 1.0, 10: 1.0})}
    theirs = {2: curve({0: 6.0, 10: 2.0}), 1: curve({0: 6.0, 20: 2.0})}
    assert gaps(ours, theirs, 10.0) == {1: 3.0 - 4.0}
    assert gaps(ours, {}, 10.0) == {}
    assert common([ours, theirs, {}]) == 10.0
    assert np.isnan(common([{}]))


def test_runs_without_a_loss_have_no_curve(tmp_path: Path) -> None:
    one = read(write_run(tmp_path / "one", [(0.0, 0, 5.0), (1.0, 2, 4.0)], seed=1))
    none = read(write_run(tmp_path / "two", [], seed=2, executor="timing"))
    found = curves(Group("a", {}, {1: one, 2: none}))
    assert {seed: each.loss.tolist() for seed, each in found.items()} == {1: [5.0, 4.0]}
    assert band(list(found.values()), "tokens").at.tolist() == [0, 20]  # type: ignore[union-attr]
