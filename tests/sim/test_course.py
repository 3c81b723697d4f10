"""A job's course: its moments, by hand."""

from __future__ import annotations

import math

from halos.sim.course import Course, Loss, plan
from halos.world.cluster import Worker

HALF_AS_FAST = Worker(1, 0, 0.5)


class SlowAfterTwelve:
    """A step takes a second, or two if the job begins to compute at 12 s or later."""

    def connect(self, cluster: object, seed: int) -> None:
        pass

    def seconds(self, worker: Worker, steps: int, time: float, job: int) -> float:
        return steps * (2.0 if time >= 12.0 else 1.0) / worker.speed


def test_a_course_is_pull_compute_push_and_the_tie_break() -> None:
    course = Course(10.0, 1.0, 4.0, 2.0, 0.25)
    assert (course.computes, course.until, course.seconds) == (11.0, 15.0, 7.25)
    assert course.moments == (10.0, 11.0, 15.0, math.inf)


def test_how_long_it_computes_is_asked_for_the_moment_at_which_it_has_pulled() -> None:
    early = plan(SlowAfterTwelve(), HALF_AS_FAST, 3, 0, 10.0, 1.0, 2.0, 0.0)
    late = plan(SlowAfterTwelve(), HALF_AS_FAST, 3, 0, 10.0, 2.0, 2.0, 0.0)
    assert (early.compute, late.compute) == (6.0, 12.0)
    assert (early.seconds, late.seconds) == (9.0, 16.0)


def test_a_lost_course_ends_when_that_is_told() -> None:
    lost = Course(10.0, 1.0, 4.0, 2.0, loss=Loss(12.0, "it rained"), told=2.5)
    assert lost.seconds == 2.5
    assert lost.moments == (10.0, 11.0, 15.0, 12.0)


def test_a_loss_from_before_it_began_counts_from_its_beginning() -> None:
    down_already = Course(10.0, 1.0, 4.0, 2.0, loss=Loss(3.0, "worker 0 was down"))
    assert down_already.moments == (10.0, 11.0, 15.0, 10.0)
