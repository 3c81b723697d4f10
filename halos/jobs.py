"""Jobs: what a worker is given to do, how long it takes, and the update that comes of it."""

from __future__ import annotations

import logging
import math
from functools import partial
from typing import Optional

from halos.clock import Clock, Event
from halos.cluster import Cluster, Worker
from halos.compute import ComputeModel
from halos.data.order import DataOrder
from halos.executors import Executor, Job
from halos.ledger import Ledger
from halos.listeners import Listeners
from halos.network import NetworkModel
from halos.params import Params
from halos.records import Transfer, Update
from halos.weights import ContributionWeights
from halos.wire import Wire

logger = logging.getLogger(__name__)


class Jobs:
    """Dispatches jobs, one per worker at a time, and records what comes of them.

    Samples and learning-rate step are those of the dispatch. `running` holds, by worker, when its job
    began, when it computes from, and until when.
    """

    def __init__(
        self,
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
    ) -> None:
        self.running: dict[int, tuple[float, float, float]] = {}
        self.count = 0
        self.dispatched = 0  # local steps
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
        self._patience = patience  # trained local steps after which something should be committed
        self._first_round = 64 * len(cluster.workers)  # jobs, generously
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
            lr_step = self._order.taken // self._global_batch_size
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
        compute = self._compute.seconds(worker, steps, now + pull, job.id)
        self.running[worker.id] = (now, now + pull, now + pull + compute)
        self._executor.submit(job)
        return self._clock.timeout(
            pull + push + compute + tie, partial(self._arrive, worker, job, region, version, push, mean_steps)
        )

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
        began, computes, until = self.running.pop(worker.id)
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
        if self._ledger.trained > self._patience and self.count > self._first_round:
            self._warn()
        self._tell.update(update)
        return update

    def _warn(self) -> None:
        """Once, if nothing was committed so far."""
        self._patience = math.inf
        if not self._ledger.committed:
            logger.warning(
                "%d local steps trained, several times the budget, and none committed: has the policy forgotten"
                " sim.commit?",
                self._ledger.trained,
            )
