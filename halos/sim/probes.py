"""Probes: what an observer may ask beside the run, of its executor, and what leaves no trace in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Optional

from halos.data.order import DataOrder
from halos.errors import Diverged
from halos.seeds import generator
from halos.sim.ledger import Ledger
from halos.training import Executor, Job, Prediction
from halos.values.params import Params
from halos.values.records import Update
from halos.world.cluster import Cluster

Inner = dict[str, Any]  # an inner state, as the executor gives it
Recall = Callable[[Update], Optional[Inner]]


class Probes:
    """Questions to the executor's optional methods; None, or nothing, where it has not the one that is needed.

    To be asked by observers while they are told of something, and never before a resumed run goes on. They take no
    virtual time, no budget and no samples.
    """

    def __init__(self, executor: Executor, order: DataOrder, cluster: Cluster, ledger: Ledger, lossless: bool) -> None:
        self._ledger = ledger
        self.lossless = lossless  # whether an asynchronous job's update is what its worker ended at, to the last bit
        self._executor: Any = executor
        self._shards = [order.shard(worker) for worker in cluster.workers]
        self._askers: list[Callable[[int], bool]] = []  # which jobs each of them wants
        self._owed: dict[int, tuple[Inner, set[int]]] = {}  # by job: recalled by some askers, but not yet by these

    def remember(self, wanted: Callable[[int], bool]) -> Optional[Recall]:
        """Keep the inner state with which every `wanted` job (by id, each time alike) begins, for whoever asks so.

        Returns what recalls it, to be called when one is told of the job's update: it gives the state (to be looked at,
        not changed) once, and None of jobs that were not wanted. Returns None if the executor cannot, or trains no job
        again. To be called before the first job.
        """
        if any(getattr(self._executor, name, None) is None for name in ("remember", "recall", "probe")):
            return None
        self._askers.append(wanted)
        self._executor.remember(lambda job: any(wanted(job) for wanted in self._askers))
        return partial(self._recall, len(self._askers) - 1)

    def _recall(self, asker: int, update: Update) -> Optional[Inner]:
        """Return a state to one of those who want it; the last of them takes it away."""
        job = update.id
        if not self._askers[asker](job):
            return None
        if job not in self._owed:
            inner: Optional[Inner] = self._executor.recall(job)
            if inner is None:
                return None
            self._owed[job] = inner, {index for index, wanted in enumerate(self._askers) if wanted(job)}
        inner, owed = self._owed[job]
        if asker not in owed:
            return None
        owed.remove(asker)
        if not owed:
            del self._owed[job]
        return inner

    def outstanding(self, update: int) -> bool:
        """Return whether an update (by id) that has arrived is neither in the global model nor dropped."""
        return self._ledger.outstanding(update)

    def job(self, update: Update) -> Job:
        """Return the job that an update came of, to be done again, perhaps from another `start` or on other samples."""
        first, end = update.samples
        shard, began = self._shards[update.worker], update.start_time
        return Job(update.id, update.worker, update.start, update.steps, shard, first, end, update.lr_step, began)

    def again(self, job: Job, inner: Inner) -> Optional[Params]:
        """Return where `job` ends, begun with an inner state; None if it diverges.

        With the start, samples and inner state that it had, it ends where it did, to the last bit.
        """
        try:
            ended: Params = self._executor.probe(job, inner).params
        except Diverged:
            return None
        return ended

    def elsewhere(self, job: Job, seed: int) -> Optional[Job]:
        """Return `job` on as many other samples of its shard and epoch, drawn by (seed, job); None: too few."""
        sizes = getattr(self._executor, "shard_sizes", None)
        if sizes is None:
            return None
        size, count = sizes()[job.shard], job.end_sample - job.first_sample
        epoch, begins = divmod(job.first_sample, size)
        ends = begins + count
        before, after = max(0, begins - count + 1), max(0, size - ends - count + 1)  # places for the first of them
        if ends > size or before + after == 0:
            return None
        place = int(generator(seed, "other samples", job.id).integers(before + after))
        first = epoch * size + (place if place < before else ends + place - before)
        return job._replace(first_sample=first, end_sample=first + count)

    def predictions(self, several: Sequence[Params], samples: int, seed: int) -> Iterator[list[Prediction]]:
        """Yield, batch by batch, what several models make of the same samples; nothing if the executor cannot say."""
        predictions = getattr(self._executor, "predictions", None)
        return iter(()) if predictions is None else predictions(several, samples, seed)

    @property
    def differentiates(self) -> bool:
        """Whether `gradient` says anything."""
        return getattr(self._executor, "probe_gradient", None) is not None

    def gradient(self, params: Params, samples: int, seed: int) -> Optional[Params]:
        """Return the gradient of the mean loss over the samples that `predictions` is of; None: it cannot say."""
        gradient = getattr(self._executor, "probe_gradient", None)
        return None if gradient is None else gradient(params, samples, seed)

    def second_moments(self, worker: int) -> Optional[Params]:
        """Return the mean squared gradients (v̂) that a worker's optimizer keeps, as they are after its latest job.

        None where there are none.
        """
        moments = getattr(self._executor, "second_moments", None)
        return None if moments is None else moments(worker)
