"""Jobs: what a worker is given to do, how long it takes, and the update that comes of it."""

from __future__ import annotations

import logging
import math
from functools import partial
from typing import NamedTuple, Optional

from halos.data.order import DataOrder, Range
from halos.errors import Lost
from halos.rules.weights import ContributionWeights
from halos.sim.clock import Clock, Event
from halos.sim.faults.hazards import Hazards, Loss
from halos.sim.ledger import Ledger
from halos.sim.limits import Hopeless
from halos.sim.listeners import Listeners
from halos.sim.transit.wire import Wire
from halos.training import Executor, Job
from halos.values.params import Params
from halos.values.records import Transfer, Update
from halos.world.cluster import Cluster, Worker
from halos.world.compute import ComputeModel
from halos.world.network import NetworkModel

logger = logging.getLogger(__name__)

HOPELESS = 100_000  # jobs lost one after another, and none done


class Times(NamedTuple):
    """Of a job under way, in virtual seconds."""

    began: float
    computes: float  # from then
    until: float
    lost: float = math.inf  # when; infinite: it is not


class Jobs:
    """Dispatches jobs, one per worker at a time, and records what comes of them.

    Samples and learning-rate step are those of the dispatch; the learning-rate clock counts the samples
    of all jobs so far but those known to be lost.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        cluster: Cluster,
        network: NetworkModel,
        compute: ComputeModel,
        weights: ContributionWeights,
        executor: Executor,
        order: DataOrder,
        wire: Wire,
        ledger: Ledger,
        tell: Listeners,
        batch_size: int,
        global_batch_size: int,
        patience: float,
        hazards: Optional[Hazards],
    ) -> None:
        self.running: dict[int, Times] = {}  # by worker
        self.spent: list[tuple[int, Times]] = []  # by workers, on jobs that were lost
        self.count = 0
        self.dispatched = 0  # local steps
        self.lost = 0  # jobs
        self._clock = clock
        self._tie_break = cluster.tie_break
        self._network = network
        self._compute = compute
        self._weights = weights
        self._executor = executor
        self._order = order
        self._wire = wire
        self._ledger = ledger
        self._tell = tell
        self._batch_size = batch_size
        self._global_batch_size = global_batch_size
        self._hazards = hazards
        self._limit = self._patience = patience  # trained local steps after which something should be committed
        self._first_round = 64 * len(cluster.workers)  # jobs, generously
        self._begun: dict[int, float] = {}  # by worker: when its latest job began, where crashes cost its inner state
        self._lost_at, self._lost_now = 0.0, 0  # when the latest job was lost, and how many at that moment
        self._lost_since = 0  # how many since the last that was done
        self._looked = self._committed = 0  # local steps trained and committed when this was last looked at
        self._latest: dict[int, int] = {}  # steps of each worker's latest job
        self._latest_sum = 0

    def start(
        self,
        worker: Worker,
        start: Params,
        steps: int,
        version: int,
        *,
        region: Optional[int],
        lr_step: Optional[int],
        mean_steps: Optional[float],
        gradient: bool,
    ) -> Event[Update]:
        """A job of `worker` from `start`, version `version` of its server; see Simulation.train.

        `mean_steps` is what the workers take on average, their latest jobs' steps unless given.
        """
        if worker.id in self.running:
            raise RuntimeError(f"worker {worker.id} already has a job (one at a time)")
        if steps < 1:
            raise ValueError(f"worker {worker.id} is to take {steps} local steps; a job has at least one")
        now = self._clock.now
        if lr_step is None:
            counted = self._order.taken - self._ledger.lost * self._batch_size
            lr_step = counted // self._global_batch_size
        dealt = self._order.take(worker, steps * self._batch_size)
        job = Job(self.count, worker.id, start, steps, dealt.shard, dealt.first, dealt.end, lr_step, now, gradient)
        self.count += 1
        self.dispatched += steps
        self._latest_sum += steps - self._latest.get(worker.id, 0)
        self._latest[worker.id] = steps
        pull = push = tie = 0.0
        if region is not None:
            tie = worker.id * self._tie_break
            pull, push = self._network.round_trip(
                self._wire.model_bytes, self._wire.delta_bytes, region, worker.region, now
            )
        if self._hazards is None:
            compute = self._compute.seconds(worker, steps, now + pull, job.id)
        else:
            pull, compute, push, lost = self._under(self._hazards, worker, job, region, pull, push)
            if lost is not None:
                return lost
        self.running[worker.id] = Times(now, now + pull, now + pull + compute)
        self._executor.submit(job)
        return self._clock.timeout(
            pull + push + compute + tie, partial(self._arrive, worker, job, region, version, push, mean_steps)
        )

    def _under(
        self, hazards: Hazards, worker: Worker, job: Job, region: Optional[int], pull: float, push: float
    ) -> tuple[float, float, float, Optional[Event[Update]]]:
        """What pull, compute and push take; of a job that will be lost, also the event of that."""
        start, pulled, pushed = job.time, None, None
        if hazards.model.inner_state == "gone":
            if hazards.crash(worker, self._begun.get(worker.id, 0.0), start) is not None:
                self._forget(worker)
            self._begun[worker.id] = start
        if region is not None:
            pull, pulled = hazards.message(region, worker.region, start, pull)
        compute = self._compute.seconds(worker, job.steps, start + pull, job.id)
        end = start + pull + compute
        if region is not None:
            push, pushed = hazards.message(worker.region, region, end, push)
        losses = (hazards.crash(worker, start, end + push), pulled, pushed)  # at one moment, the crash is what counts
        loss = min((each for each in losses if each is not None), key=lambda each: each.at, default=None)
        if loss is None:
            return pull, compute, push, None
        self.running[worker.id] = Times(start, start + pull, end, max(start, loss.at))
        if loss is pushed:  # it was trained, and only lost on its way back
            self._executor.submit(job)
        detected = max(0.0, loss.at + hazards.model.detection_seconds - start)
        lose = partial(self._lose, hazards, worker, job, loss, loss is pushed, loss in (pulled, pushed))
        return pull, compute, push, self._clock.timeout(detected, lose)

    def _lose(self, hazards: Hazards, worker: Worker, job: Job, loss: Loss, trained: bool, message: bool) -> Update:
        """The end of a job that is lost: what was trained has changed the worker's inner state."""
        self.spent.append((worker.id, self.running.pop(worker.id)))
        self.lost += 1
        self._ledger.lost += job.steps
        hazards.lost_messages += message
        if trained:
            self._executor.result(job)
        if hazards.model.samples == "again":
            self._order.give_back(Range(job.shard, job.first_sample, job.end_sample))
        now = self._clock.now
        self._lost_at, self._lost_now = now, self._lost_now + 1 if now == self._lost_at else 1
        if self._lost_now > self._first_round:
            raise RuntimeError(
                f"{self._lost_now} jobs lost at {now:.6g} s, the last because {loss.why}: before it is"
                " given another job, await sim.returned(worker) of a worker whose job was lost"
            )
        self._lost_since += 1
        if self._lost_since > HOPELESS + self._first_round:
            raise Hopeless(
                f"{self._lost_since:,} jobs lost one after another at {now:.6g} s, the last because {loss.why}"
            )
        raise Lost(f"job {job.id} of worker {worker.id}", loss.at, loss.why)

    def _forget(self, worker: Worker) -> None:
        """A worker's inner state is gone, if its executor can say so, and what its codec has kept."""
        forget = getattr(self._executor, "forget", None)
        if forget is not None:
            forget(worker.id)
        self._wire.forget(worker.id)

    def _arrive(
        self,
        worker: Worker,
        job: Job,
        region: Optional[int],
        version: int,
        push: float,
        mean_steps: Optional[float],
    ) -> Update:
        now, wire = self._clock.now, self._wire
        began, computes, until, _ = self.running.pop(worker.id)
        self._lost_since = 0
        params, losses, chunks = self._executor.result(job)
        if region is not None:
            if not wire.lossless:
                params = job.start - wire.arriving(worker.id, job.start - params, wire.codec)
            self._tell.transfer(
                Transfer(began, computes, region, worker.region, wire.model_bytes, "pull", worker.id, region)
            )
            self._tell.transfer(
                Transfer(now - push, now, worker.region, region, wire.delta_bytes, "push", worker.id, region)
            )
        factor = self._weights.factor(job.steps, mean_steps or self._latest_sum / len(self._latest))
        update = Update(  # by position: this is the most frequent record
            job.id,
            worker.id,
            worker.region,
            job.start,
            job.start if job.gradient else params,
            job.steps,
            began,
            now,
            version,
            (job.first_sample, job.end_sample),
            job.lr_step,
            losses,
            chunks,
            (computes, until),
            region,
            factor,
            params if job.gradient else None,
        )
        self._ledger.add(update)
        self._tell.update(update)
        if self._ledger.trained > self._patience and self.count > self._first_round:
            self._look()
        return update

    def _look(self) -> None:
        """Whether so much is trained for nothing: a warning, once, if nothing was ever committed.

        Under faults the global server may be out of reach for ever, and then the run would never end.
        """
        if self._hazards is not None:
            if self._ledger.committed == self._committed:
                raise Hopeless(
                    f"{self._ledger.trained - self._looked} local steps trained, several times the budget, and none"
                    f" committed until {self._clock.now:.6g} s; faults keep it from going on"
                )
            self._looked, self._committed = self._ledger.trained, self._ledger.committed
            self._patience = self._looked + self._limit + self._first_round * self._latest_sum / len(self._latest)
            return
        self._patience = math.inf
        if not self._ledger.committed:
            logger.warning(
                "%d local steps trained, several times the budget, and none committed: has the policy forgotten"
                " sim.commit?",
                self._ledger.trained,
            )
