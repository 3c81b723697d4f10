"""A job's course: its moments, by hand."""

from __future__ import annotations

import math

from halos.sim.course import Loss, plan
from halos.world.cluster import Worker

HALF_AS_FAST = Worker(1, 0, 0.5)


class SlowAfterTwelve:
    """A step takes a second, or two if the job begins to compute at 12 s or later."""

    def connect(self, cluster: object, seed: int) -> None:
        pass

    def seconds(self, worker: Worker, steps: int, time: float, job: int) -> float:
        return steps * (2.0 if time >= 12.0 else 1.0) / worker.speed


def test_a_course_is_pull_compute_push_and_the_tie_break() -> None:
    course = plan(SlowAfterTwelve(), HALF_AS_FAST, 2, 0, 10.0, 1.0, 2.0, 0.25)
    assert course.moments == (10.0, 11.0, 15.0, math.inf)
    assert (course.ends, course.compute, course.push) == (17.25, 4.0, 2.0)


def test_how_long_it_computes_is_asked_for_the_moment_at_which_it_has_pulled() -> None:
    early = plan(SlowAfterTwelve(), HALF_AS_FAST, 3, 0, 10.0, 1.0, 2.0, 0.0)
    late = plan(SlowAfterTwelve(), HALF_AS_FAST, 3, 0, 10.0, 2.0, 2.0, 0.0)
    assert (early.compute, late.compute) == (6.0, 12.0)
    assert (early.ends, late.ends) == (19.0, 26.0)


def test_a_pull_and_a_push_that_last_longer_move_what_comes_after_them() -> None:
    course = plan(SlowAfterTwelve(), HALF_AS_FAST, 2, 0, 10.0, 1.0, 2.0, 0.25)
    pulled = course.pulling_until(12.0, 8.0)
    assert (pulled.moments, pulled.ends) == ((10.0, 12.0, 20.0, math.inf), 22.25)
    pushed = pulled.pushing_until(24.0)
    assert (pushed.moments, pushed.ends, pushed.push) == ((10.0, 12.0, 20.0, math.inf), 24.25, 4.0)


def test_a_course_is_lost_at_a_moment_but_not_before_it_began() -> None:
    course = plan(SlowAfterTwelve(), HALF_AS_FAST, 2, 0, 10.0, 1.0, 2.0, 0.0)
    lost = course._replace(loss=Loss(12.0, "it rained"), ends=12.5)
    assert lost.moments == (10.0, 11.0, 15.0, 12.0)
    down_already = course._replace(loss=Loss(3.0, "worker 0 was down"), ends=10.0)
    assert down_already.moments == (10.0, 11.0, 15.0, 10.0)
