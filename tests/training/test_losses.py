"""Training losses, by hand: of five steps ½, ⅛, …, means over two of them and what is left."""

from __future__ import annotations

import math

import pytest
import torch

from halos.errors import Diverged
from halos.training.losses import AT_FIRST, Losses


def losses(*values: float, steps: int = 5) -> Losses:
    made = Losses(steps, torch.device("cpu"))
    for value in values:
        made.add(torch.tensor(value))
    return made


def test_means_are_over_chunks_and_the_remainder_and_over_all_steps() -> None:
    means, chunks, mean = losses(0.5, 0.125, 0.25, 0.25, 1.0).averaged(2, str)
    assert (means, chunks) == ((0.3125, 0.25, 1.0), (2, 2, 1))
    assert mean == 2.125 / 5


def test_a_chunk_whose_sum_is_beyond_fp32_is_infinite_and_the_mean_over_all_steps_is_not() -> None:
    means, chunks, mean = losses(3e38, 3e38, steps=2).averaged(2, str)
    assert (means, chunks) == ((math.inf,), (2,))
    assert mean == pytest.approx(3e38)


def test_the_first_that_is_not_finite_is_named_by_its_step_from_one_on() -> None:
    with pytest.raises(Diverged, match=r"^training loss became nan: step 2$"):
        losses(1.0, math.nan, math.inf).check(lambda step: f"step {step}")


def test_only_those_added_so_far_are_looked_at() -> None:
    assert losses(1.0, 0.5).check(str).tolist() == [1.0, 0.5]


def test_a_job_may_have_more_steps_than_there_is_room_for_at_first() -> None:
    values = [float(step) for step in range(2 * AT_FIRST + 1)]
    assert losses(*values, steps=10**12).check(str).tolist() == values
