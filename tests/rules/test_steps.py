"""Step allocations, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from halos.errors import ConfigError
from halos.rules.steps import BySpeed, Fixed
from halos.testing import record, tiny
from halos.world.cluster import Worker

SPEEDS = (1.0, 0.75, 0.3, 0.01)


def steps(allocation: Any) -> list[int]:
    return [allocation.steps(Worker(id, 0, speed), None) for id, speed in enumerate(SPEEDS)]


def test_fixed_steps_are_the_same_for_all() -> None:
    assert steps(Fixed(base=8)) == [8, 8, 8, 8]


def test_by_speed_the_fastest_takes_all_and_nobody_none() -> None:
    # 8, 6, 2.4 and 0.08
    assert steps(BySpeed(base=8)) == [8, 6, 3, 1]
    assert steps(BySpeed(base=8, round="floor")) == [8, 6, 2, 1]


def test_workers_that_take_steps_by_their_speed_are_done_together() -> None:
    cluster = {"regions": [{"workers": [1.0, 0.5, 0.25]}], "step_time_ms": 1000.0}
    run = record(tiny(cluster=cluster, steps={"name": "by_speed", "base": 4}, budget={"local_steps": 7}))
    assert [(update.steps, update.time) for update in run.updates] == [(4, 4.0), (2, 4.0), (1, 4.0)]


@pytest.mark.parametrize(
    ("speeds", "base", "expected"),
    [
        ([0.6, 0.2], 30, [30, 10]),
        ([0.7, 0.1], 7, [7, 1]),
        ([0.9, 0.3, 0.1], 9, [9, 3, 1]),
        ([1.0, 0.29], 100, [100, 29]),
        ([3.3, 1.1], 3000, [3000, 1000]),
    ],
)
def test_steps_that_are_whole_on_paper_are_these_whichever_way_they_are_rounded(
    speeds: list[float], base: int, expected: list[int]
) -> None:
    cluster = {"regions": [{"workers": speeds}], "step_time_ms": 1000.0}
    for way in ("ceil", "floor"):
        run = record(tiny(cluster=cluster, steps={"name": "by_speed", "base": base, "round": way}))
        assert [run.simulation.steps(worker) for worker in run.simulation.workers] == expected
        assert run.commits[0].time == pytest.approx(base, rel=1e-12)


def test_as_the_original_has_them_they_are_what_double_precision_makes_of_them() -> None:
    third = Worker(1, 0, 0.2 / 0.6)
    assert BySpeed(base=30, exact=False).steps(third, None) == 11  # type: ignore[arg-type]
    assert BySpeed(base=30).steps(third, None) == 10  # type: ignore[arg-type]
    assert BySpeed(base=100, round="floor", exact=False).steps(Worker(1, 0, 0.29), None) == 28  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Fixed(base=0), "base: 0 is not a positive number of steps"),
        (lambda: BySpeed(base=-1), "base: -1 is not a positive number of steps"),
        (lambda: BySpeed(round="up"), "round: 'up' is not one of ceil, floor"),
    ],
)
def test_what_cannot_be_is_refused_by_its_key(make: Any, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        make()
    assert str(refused.value) == said
