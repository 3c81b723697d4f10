"""Jobs: what a worker is given to do, and the update that comes of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Optional

from halos.errors import UserError
from halos.rules.weights import Uniform, factor
from halos.sim.clock import Clock, Event
from halos.sim.course import Course, plan
from halos.sim.faults.losses import Losses
from halos.sim.ledger import Ledger
from halos.sim.limits import Limits
from halos.sim.listeners import Listeners
from halos.sim.lr_clock import LrClock
from halos.sim.origins import Origins
from halos.sim.parts import Parts
from halos.sim.rounds import Round
from halos.sim.transit.trips import Trip, Trips
from halos.sim.transit.wire import Wire
from halos.training import Job
from halos.values.params import Params
from halos.values.records import LostJob, Transfer, Update
from halos.values.rounding import earliest
from halos.world.cluster import Worker

MOST_STEPS = 1 << 50  # that a job is looked for among
Versions = tuple[Optional[int], Optional[int]]  # at the server that had it, and of the global model


class Jobs:
    """Dispatches jobs, one per worker at a time, and records what comes of them.

    Samples and learning-rate step are those of the dispatch; the learning-rate clock counts the samples
    of all jobs so far but those known to be lost.
    """

    def __init__(
        self,
        parts: Parts,
        clock: Clock,
        wire: Wire,
        ledger: Ledger,
        limits: Limits,
        tell: Listeners,
        losses: Losses,
        lr_clock: LrClock,
        origins: Origins,
        version_at: Callable[[float], int],
        trips: Optional[Trips],
    ) -> None:
        self.running: dict[int, Course] = {}  # by worker
        self.count = 0
        self.dispatched = 0  # local steps
        self._parts = parts
        self._clock = clock
        self._wire = wire
        self._ledger = ledger
        self._limits = limits
        self._tell = tell
        self._losses = losses
        self._origins = origins
        self._version_at = version_at  # the global model's, by virtual time
        self._lr_clock = lr_clock
        self._trips = trips  # None: how long a round trip takes is known when it begins
        self._uniform = type(parts.weights) is Uniform
        self._latest: dict[int, int] = {}  # steps of each worker's latest job, unless that was lost
        self._latest_sum = 0
        self._places: Optional[dict[int, Params]] = None  # by worker

    def keep_places(self, wanted: bool) -> None:
        """Keep the parameters where each worker last was, for `places`; called before the first job."""
        self._places = {} if wanted else None

    def places(self, initial: Params) -> list[Params]:
        """Return where each worker last was: where its job began, or ended if it has none now; `initial` before."""
        assert self._places is not None, "kept, as somebody has asked for"
        return [self._places.get(worker.id, initial) for worker in self._parts.cluster.workers]

    def steps_until(self, worker: Worker, moment: float) -> int:
        """See Simulation.steps_until."""
        now, compute, due = self._clock.now, self._parts.compute, earliest(moment)

        def early(steps: int) -> bool:
            return now + compute.seconds(worker, steps, now, self.count) < due

        too_few, enough = 0, 1
        while early(enough):
            too_few, enough = enough, 2 * enough
            if enough > MOST_STEPS:
                raise UserError(f"compute: {enough} local steps of worker {worker.id} end before {moment:g} s")
        while enough - too_few > 1:
            middle = (too_few + enough) // 2
            too_few, enough = (middle, enough) if early(middle) else (too_few, middle)
        return enough

    def start(
        self,
        worker: Worker,
        start: Params,
        steps: int,
        version: Optional[int],
        global_version: Optional[int],
        *,
        region: Optional[int],
        lr_step: Optional[int],
        round: Optional[Round],
        gradient: bool,
    ) -> Event[Update]:
        """Start a job of `worker` from `start`, version `version` of its server and `global_version` of the global one;
        see Simulation.train. None: it is none; then that counts which the global model has at the end of this moment.

        Its update is weighed among all of its `round`, or without one among the workers' latest jobs. Raises
        RuntimeError if the worker is busy, ValueError for no steps.
        """
        if worker.id in self.running:
            raise RuntimeError(f"worker {worker.id} already has a job (one at a time)")
        if steps < 1:
            raise ValueError(f"worker {worker.id} is to take {steps} local steps; a job has at least one")
        parts, wire, now, id = self._parts, self._wire, self._clock.now, self.count
        counted = parts.order.taken - self._ledger.lost * parts.batch_size
        lr_step = self._lr_clock.job(worker.id, counted, lr_step)
        dealt = parts.order.take(worker, steps * parts.batch_size)
        self.count += 1
        if self._places is not None:
            self._places[worker.id] = start
        self.dispatched += steps
        self._latest_sum += steps - self._latest.get(worker.id, 0)
        self._latest[worker.id] = steps
        pull = push = tie = 0.0
        if region is not None:
            pull, push = parts.network.round_trip(wire.model_bytes, wire.delta_bytes, region, worker.region, now)
            if pull + push == math.inf and self._trips is not None:  # a link is down, and nobody says until when
                pull = push = 0.0
            tie = worker.id * parts.cluster.tie_break
        course = plan(parts.compute, worker, steps, id, now, pull, push, tie)
        due = course.ends
        job = Job(id, worker.id, start, steps, dealt.shard, dealt.first, dealt.end, lr_step, now, gradient, due)
        ends = partial(self._end, worker, job, region, (version, global_version), round)
        if self._trips is not None and region is not None:
            return self._travel(self._trips, course, worker, job, region, ends)
        course = self.running[worker.id] = self._losses.meet(course, worker, job, region, pull)
        if course.trained:
            parts.executor.submit(job if course.ends == due else job._replace(due=course.ends))
        return self._clock.at(course.ends, ends)

    def _travel(
        self, trips: Trips, course: Course, worker: Worker, job: Job, region: int, ends: Callable[[], Update]
    ) -> Event[Update]:
        """Start a round trip whose course shows as it goes on.

        A job that may be lost before its worker has done it goes to the executor when it is over, and only if it was
        done; otherwise at once, due when it would be if nobody else used its links.
        """
        submit, event = self._parts.executor.submit, Event(self._clock, ends)
        self._losses.begins(worker, course.began)
        certain = not self._losses.possible

        def told(course: Course) -> None:
            self.running[worker.id] = course

        def over() -> None:
            if not certain and self.running[worker.id].trained:
                submit(job)
            event.happen()

        if certain:
            submit(job)
        seconds = partial(self._computes, worker, job)
        Trip(trips, course, worker, region, seconds, told, over).begin()
        return event

    def _computes(self, worker: Worker, job: Job, start: float) -> float:
        """Seconds that the job computes, if it does so from `start` on."""
        return self._parts.compute.seconds(worker, job.steps, start, job.id)

    def _end(
        self, worker: Worker, job: Job, region: Optional[int], versions: Versions, round: Optional[Round]
    ) -> Update:
        """Return the update, which arrives at this moment; raises Lost if it does not."""
        course = self.running.pop(worker.id)
        if course.loss is not None:
            self._latest_sum -= self._latest.pop(worker.id)  # nobody is weighed against who is not heard
            error = self._losses.settle(course, worker, job)
            began, _, _, lost = course.moments
            self._tell.lost(LostJob(self._clock.now, worker.id, worker.region, job.steps, began, lost, course.loss.why))
            raise error
        params, losses, chunks, loss = self._parts.executor.result(job)
        if self._places is not None and not job.gradient:
            self._places[worker.id] = params
        if region is not None:
            params = self._carried(worker, job, params, region, course)
        average = self._latest_sum / len(self._latest)
        version, global_version = versions
        if global_version is None:  # who else began at that moment, before or after a commit, began from the same
            global_version = self._version_at(course.began)
        update = Update(  # by position: this is the most frequent record
            job.id,
            worker.id,
            worker.region,
            job.start,
            job.start if job.gradient else params,
            job.steps,
            course.began,
            self._clock.now,
            global_version if version is None else version,
            (job.first_sample, job.end_sample),
            job.lr_step,
            losses,
            chunks,
            (course.computes, course.until),
            region,
            1.0 if self._uniform else self._factor(worker, job.steps, round),  # without asking who else there is
            params if job.gradient else None,
            global_version,
            self._norm(job, params) if self._parts.real else math.nan,
            course.compute,
            loss,
        )
        self._ledger.add(update)
        if self._parts.real:
            self._origins.add(update)
        self._tell.update(update)
        if region is not None and self._limits.spent(0, self._ledger.trained):
            self._clock.end()
        if self._ledger.trained > self._limits.patience:
            self._limits.look(self.count, average, self._clock.now)
        return update

    def weigh(self, brought: Iterable[Sequence[Update]]) -> list[Update]:
        """Return the last of the updates that each one brings, weighed among each other; see Simulation.weigh."""
        workers = self._parts.cluster.workers
        several = [(each[-1], sum([update.steps for update in each])) for each in brought]
        among = [(workers[last.worker], steps) for last, steps in several]
        weights = self._parts.weights
        return [
            last._replace(factor=factor(weights, worker, steps, among))
            for (last, _), (worker, steps) in zip(several, among)
        ]

    def _factor(self, worker: Worker, steps: int, round: Optional[Round]) -> float:
        workers = self._parts.cluster.workers
        if round is None:
            among = [(workers[id], count) for id, count in self._latest.items()]
        else:
            among = [(workers[id], round.steps[id]) for id in round.members]
        return factor(self._parts.weights, worker, steps, among)

    def _norm(self, job: Job, params: Params) -> float:
        """The norm of what the job brings."""
        return params.norm() if job.gradient else job.start.distance(params)

    def _carried(self, worker: Worker, job: Job, params: Params, region: int, course: Course) -> Params:
        """Return the result as its server decodes it; report the pull, and the push that ends now, to observers."""
        wire, now, here = self._wire, self._clock.now, worker.region
        if not wire.lossless:
            brought = job.start - params
            arrived = wire.arriving(worker.id, wire.sent(worker.id, brought), wire.codec)
            params = params if arrived is brought else job.start - arrived
        began, pulled = course.began, course.computes
        self._tell.transfer(Transfer(began, pulled, region, here, wire.model_bytes, "pull", worker.id, region))
        self._tell.transfer(Transfer(now - course.push, now, here, region, wire.delta_bytes, "push", worker.id, region))
        return params
