"""Losses: what faults make of a job's course, and what is left of a job that is lost.

Whether a message is lost at all is decided in hazards.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

from halos.data.order import Range
from halos.errors import Lost
from halos.sim.clock import Clock
from halos.sim.course import Course
from halos.sim.faults.hazards import Hazards
from halos.sim.ledger import Ledger
from halos.sim.limits import FIRST_ROUND, Hopeless
from halos.sim.parts import Parts
from halos.training import Job
from halos.world.cluster import Worker

MOST_IN_A_ROW = 100_000  # jobs lost one after another, and none done


class Losses:
    """The lost jobs of a run; `forget` is told whose inner state is gone."""

    def __init__(
        self, parts: Parts, clock: Clock, hazards: Hazards, ledger: Ledger, forget: Callable[[int], None]
    ) -> None:
        self.jobs = 0
        self.spent: list[tuple[int, Course]] = []  # by workers, on jobs that were lost
        self._compute = parts.compute
        self._executor = parts.executor
        self._order = parts.order
        self._clock = clock
        self._hazards = hazards
        self._ledger = ledger
        self._forget = forget
        self._first_round = FIRST_ROUND * len(parts.cluster.workers)
        self._costs_inner_state = parts.faults.inner_state == "gone"
        self._gives_samples_back = parts.faults.samples == "again"
        self._begun: dict[int, float] = {}  # by worker: when its latest job began, where crashes cost its inner state
        self._lost_at, self._lost_now = 0.0, 0  # when the latest job was lost, and how many at that moment
        self._in_a_row = self._trained = 0  # jobs lost since the last that was done; local steps trained by then

    @property
    def possible(self) -> bool:
        """Whether anything can be lost at all."""
        return self._hazards.unreliable

    def begins(self, worker: Worker, start: float) -> None:
        """A job of `worker` begins at `start`: if it crashed since its latest one did, that may have cost its state."""
        if self._costs_inner_state:
            if self._hazards.crash(worker, self._begun.get(worker.id, 0.0), start) is not None:
                self._forget(worker.id)
            self._begun[worker.id] = start

    def meet(self, course: Course, worker: Worker, job: Job, region: Optional[int], pull: float) -> Course:
        """Return `course` as it is under faults: slowed down, and ending in a loss if the job or its update is lost.

        `region` is its server's, and `pull` what the pull from there takes without faults, in seconds; None: a job
        without one.
        """
        hazards = self._hazards
        if not hazards.unreliable:
            return course
        start, pulled, pushed = course.began, None, None
        self.begins(worker, start)
        if region is not None:
            computes, pulled = hazards.message(region, worker.region, start, pull)
            if computes != course.computes:
                compute = self._compute.seconds(worker, job.steps, computes, job.id)
                course = course.pulling_until(computes, compute)
            arrives, pushed = hazards.message(worker.region, region, course.until, course.push)
            if arrives != course.until + course.push:
                course = course.pushing_until(arrives)
        # At one moment, the crash is what counts.
        losses = (hazards.crash(worker, start, course.ends), pulled, pushed)
        loss = min((loss for loss in losses if loss is not None), key=lambda loss: loss.at, default=None)
        if loss is None:
            return course
        told = max(start, loss.at + hazards.detection)
        return course._replace(loss=loss, ends=told, trained=loss is pushed)  # the work was done, its message was lost

    def settle(self, course: Course, worker: Worker, job: Job) -> Lost:
        """Account for a job that is lost, and return the error for whoever awaits it.

        What was trained has changed the worker's inner state. Raises RuntimeError or Hopeless if jobs are lost and lost
        again, and none is done.
        """
        loss, now = course.loss, self._clock.now
        assert loss is not None, "its course said so"
        self.jobs += 1
        self.spent.append((worker.id, course))
        self._ledger.lost += job.steps
        self._hazards.lost_messages += loss.message
        if course.trained:
            self._executor.result(job)
        if self._gives_samples_back:
            self._order.give_back(Range(job.shard, job.first_sample, job.end_sample))
        self._refuse_endless(loss.why, now)
        return Lost(f"job {job.id} of worker {worker.id}", loss.at, loss.why)

    def _refuse_endless(self, why: str, now: float) -> None:
        """Raise RuntimeError if too many jobs are lost at one moment, Hopeless if too many in a row and none done."""
        self._lost_at, self._lost_now = now, self._lost_now + 1 if now == self._lost_at else 1
        if self._lost_now > self._first_round:
            raise RuntimeError(
                f"{self._lost_now} jobs lost at {now:.6g} s, the last because {why}: before it is given another job,"
                " await sim.faults.returned(worker) of a worker whose job was lost"
            )
        if self._trained != self._ledger.trained:
            self._trained, self._in_a_row = self._ledger.trained, 0
        self._in_a_row += 1
        if self._in_a_row > MOST_IN_A_ROW + self._first_round:
            raise Hopeless(f"{self._in_a_row:,} jobs lost one after another at {now:.6g} s, the last because {why}")
