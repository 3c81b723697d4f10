"""Targets as they are written, and what they are called."""

from __future__ import annotations

import math

import numpy as np
import pytest

from halos.compare.curve import Curve
from halos.compare.targets import Reached, Target
from halos.errors import UserError

BASELINE = Curve({}, np.array([5.0, 2.0]))


@pytest.mark.parametrize(
    ("text", "loss", "said"),
    [
        ("2.3", 2.3, "loss 2.3"),
        ("0", 0.0, "loss 0"),
        ("-1.5", -1.5, "loss -1.5"),
        ("+0.1", 2.1, "DiLoCo's final loss + 0.1"),
        ("+0", 2.0, "DiLoCo's final loss"),
    ],
)
def test_a_target_is_a_loss_or_so_much_above_the_baselines_final_one(text: str, loss: float, said: str) -> None:
    target = Target.parse(text)
    assert target.of(BASELINE) == pytest.approx(loss)
    assert (target.said("DiLoCo"), target.key) == (said, text)


def test_without_a_baseline_a_margin_is_of_nothing() -> None:
    assert math.isnan(Target.parse("+0.1").of(None))
    assert Target.parse("0.1").of(None) == 0.1


@pytest.mark.parametrize("text", ["low", "", "nan", "inf", "+", "2,3"])
def test_what_is_no_loss_is_a_mistake(text: str) -> None:
    with pytest.raises(UserError, match=r"^--target-loss: .* is not a loss such as 2.3"):
        Target.parse(text)


def test_those_that_missed_count_among_those_that_were_to_reach() -> None:
    reached = Reached({1: {"seconds": 10.0}}, missed=(2, 3), running=(3,))
    assert (reached.count, reached.of("seconds")) == (3, {1: 10.0})
