"""The inner loop's options: schedules by hand, and what is refused."""

from __future__ import annotations

import math

import pytest

from halos.errors import ConfigError
from halos.training.optimizers import AdamW
from halos.training.options import ScheduleOptions, TrainOptions


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (1, 0.25),  # of four warm-up steps
        (4, 1.0),
        (8, 0.1 + 0.9 * 0.5),  # half way down the cosine from 4 to 12
        (10, 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 0.75))),
        (12, 0.1),
        (1000, 0.1),
    ],
)
def test_the_learning_rate_warms_up_linearly_and_falls_by_half_a_cosine(step: int, expected: float) -> None:
    assert ScheduleOptions(warmup=4, total=12, min_ratio=0.1).at(1.0, step) == pytest.approx(expected)


def test_without_warm_up_the_first_step_is_on_the_cosine_already() -> None:
    schedule = ScheduleOptions(warmup=0, total=4, min_ratio=0.0)
    assert [schedule.at(1.0, step) for step in (1, 2, 4)] == pytest.approx([0.5 * (1 + math.sqrt(0.5)), 0.5, 0.0])
    short = ScheduleOptions(warmup=4, total=4)
    assert (short.at(1.0, 4), short.at(1.0, 5)) == (1.0, 0.1)  # no cosine between


def test_a_straight_line_leads_down_from_the_end_of_the_warm_up() -> None:
    """From 1 after two steps to 0.2 after ten: a tenth per step."""
    schedule = ScheduleOptions("linear", warmup=2, total=10, min_ratio=0.2)
    rates = [schedule.at(1.0, step) for step in range(1, 13)]
    assert rates == pytest.approx([0.5, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.2, 0.2])
    assert ScheduleOptions("linear", warmup=0, total=1, min_ratio=0.0).at(1.0, 1) == 0.0


def test_a_rate_that_is_stable_falls_at_the_end_alone() -> None:
    """Up in two steps, 3 until six of ten are over, and then a quarter of the way to 1 in each."""
    schedule = ScheduleOptions("warmup_stable_decay", warmup=2, total=10, min_ratio=1 / 3, decay=4)
    rates = [schedule.at(3.0, step) for step in range(1, 12)]
    assert rates == pytest.approx([1.5, 3.0, 3.0, 3.0, 3.0, 3.0, 2.5, 2.0, 1.5, 1.0, 1.0])
    tenth = ScheduleOptions("warmup_stable_decay", warmup=0, total=20, min_ratio=0.0)
    assert [tenth.at(1.0, step) for step in (1, 18, 19, 20, 21)] == [1.0, 1.0, 0.5, 0.0, 0.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrainOptions(batch_size=8, micro_batch_size=3), "micro_batch_size: 3 does not divide batch_size 8"),
        (lambda: TrainOptions(batch_size=0), "batch_size: 0"),
        (lambda: TrainOptions(precision="fp8"), "precision: 'fp8' is not one of fp32, bf16, fp16"),
        (lambda: TrainOptions(clip=-1.0), "clip: -1.0"),
        (lambda: AdamW(lr=math.nan), "lr: nan"),
        (lambda: ScheduleOptions(warmup=10, total=5), r"warmup: 10 is not at most total \(5\)"),
        (lambda: ScheduleOptions(total=0, warmup=0), "total: 0"),
        (lambda: ScheduleOptions("linear", warmup=10, total=5), r"warmup: 10 is not at most total \(5\)"),
        (lambda: ScheduleOptions("warmup_stable_decay", warmup=5, total=9, decay=5), "decay: 5 is not at most total w"),
        (lambda: ScheduleOptions(decay=0), "decay: 0 is not a positive number of steps, or null"),
    ],
)
def test_bad_options_are_refused(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()  # type: ignore[operator]
