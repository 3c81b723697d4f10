"""Train the jobs in flight together, stacked along an axis of workers on one device."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, Literal, Optional, Union

import torch

from halos.errors import require
from halos.hooks import Register, hookimpl
from halos.training import Job, Outcome, Task
from halos.training.inline import Inline, free_on, tensors
from halos.training.optimizers import numbers_kept
from halos.training.stacked.network import CHANGED, Unlike, failed, network_of
from halos.training.stacked.reading import Unread, at_once, numbers_in
from halos.training.stacked.stack import Done, Stack
from halos.values.params import Params

logger = logging.getLogger(__name__)

SMALL = 50_000_000  # parameters times numbers in a micro-batch, up to which a CPU is faster with stacks than without


@dataclass
class Stacked(Inline):
    """Trains jobs of different workers together; results are those of `inline` but for rounding.

    When a result is asked for that is not there, the jobs that were submitted and not computed are trained, those due
    first, each a row of matrices [rows, P]. What came of the others waits until it is asked for, and so do their
    workers' states. Modules that draw random numbers or change their buffers, and fp16, are trained as `inline` does.
    """

    alike: ClassVar[str] = "inline"

    device: str = "auto"  # `auto`: the first GPU if there is one; or `cpu`, `cuda`, `cuda:1`, …
    threads: int = 1  # of torch; results are equal bit for bit only with the same number
    # Jobs that are trained together; `auto`: all there are, or 1 (as `inline` does) where a CPU is faster that way.
    most: Union[int, Literal["auto"]] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        few = self.most == "auto" or self.most >= 1
        require(few, "most", self.most, "a positive number of jobs, or auto")

    def open(self, task: Task) -> Params:
        start = super().open(task)
        self._waiting: dict[int, Job] = {}  # by id, submitted and not computed
        self._done: dict[int, Done] = {}  # by id, computed and not asked for
        self._alone: set[int] = set()  # jobs whose samples cannot be read, which they will say themselves
        self._stack: Optional[Stack] = None
        self._limit = self._largest(start)  # jobs in a stack; 1: there are no stacks
        if self._limit > 1:
            try:
                self._stack = self._stacking()
            except Unlike as error:
                self._give_up(str(error))
        return start

    def submit(self, job: Job) -> None:
        if self._limit > 1:
            self._waiting[job.id] = job

    def restore(self, state: dict[str, Any]) -> None:
        self._done.clear()
        super().restore(state)

    def _computed(self, job: Job) -> Outcome:
        while self._limit > 1 and job.id not in self._done and job.id not in self._alone:
            self._train(self._chosen(job))
        self._waiting.pop(job.id, None)
        self._alone.discard(job.id)
        done = self._done.pop(job.id, None)
        if done is None or self._stack is None:
            return super()._trained(job)
        return self._stack.taken(job, done)

    def _trained(self, job: Job, into: Optional[torch.Tensor] = None) -> Outcome:
        """What comes of a job that nobody submitted: a stack of one, so that it is what it would be in another."""
        if self._stack is not None and self._limit > 1:
            try:
                return self._stack.taken(job, self._stack.trained([job])[job.id])
            except Unread:
                pass
        return super()._trained(job, into)

    def _chosen(self, job: Job) -> list[Job]:
        """Return the job and those that are trained with it: of those that wait, the ones due first."""
        others = [other for other in self._waiting.values() if other.id != job.id and other.gradient == job.gradient]
        others.sort(key=lambda other: (other.due, other.id))
        return [job, *others[: self._limit - 1]]

    def _train(self, jobs: list[Job]) -> None:
        """Train jobs together, as far as that can be done."""
        assert self._stack is not None, "that there are stacks"
        try:
            done = self._stack.trained(jobs)
        except Unread as error:
            self._alone.add(error.job.id)
            self._waiting.pop(error.job.id, None)
            return
        except torch.OutOfMemoryError:
            if len(jobs) == 1:
                raise
            self._limit = len(jobs) // 2
            self._stack.make_room()
            logger.warning("executor stacked: no memory for %d jobs at once; %d from now on", len(jobs), self._limit)
            return
        except Exception as error:
            if hasattr(self._task.model, "stacked"):
                raise
            self._give_up(failed(error))
            return
        if self._trainer.kept.take():
            self._trainer.kept.put({})
            self._give_up(CHANGED)
            return
        self._done |= done
        for job in jobs:
            self._waiting.pop(job.id, None)

    def _stacking(self) -> Stack:
        """What trains several jobs at once. Raises Unlike if there can be no such."""
        trainer, model, options = self._trainer, self._task.model, self._task.train
        if options.precision == "fp16":
            raise Unlike("in fp16 every worker has a loss scale of its own")
        if trainer.layout.dtype not in (torch.float32, torch.float64):
            raise Unlike(f"the model's parameters are {trainer.layout.dtype}")
        batches = list(islice(tensors(self._first_batches()), 2))
        network = network_of(model, trainer, batches)
        return Stack(trainer, network, self._feed.train, at_once(numbers_in(batches[0]), options.batch_size))

    def _largest(self, start: Params) -> int:
        """How many jobs are trained together, as far as there is memory for their rows."""
        workers = len(self._task.cluster.workers)
        wanted = workers if self.most == "auto" else min(self.most, workers)
        if self.most == "auto" and self._trainer.device.type == "cpu":
            sample = numbers_in(next(tensors(self._first_batches())))
            if start.size * sample * self._task.train.micro > SMALL:
                return 1
        free = free_on(self._trainer.device)
        if wanted == 1 or free is None:
            return wanted
        kept = numbers_kept(self._task.train.optimizer, start.layout)
        numbers = free // start.layout.dtype.itemsize - kept * workers  # these every executor needs
        # A row's parameters, gradient and moments; what came of it, and of its moments.
        room = numbers // (3 * start.size + 2 * kept)
        if room < wanted:
            logger.warning("executor stacked: there is memory for stacks of %d jobs, not %d", max(1, room), wanted)
        return max(1, min(wanted, room))

    def _give_up(self, why: str) -> None:
        """Train one job after another from now on."""
        self._limit = 1
        self._waiting.clear()
        logger.warning("executor stacked: %s; jobs are trained one after another, as by inline", why)


@hookimpl
def register_executors(register: Register) -> None:
    register("stacked", Stacked)
