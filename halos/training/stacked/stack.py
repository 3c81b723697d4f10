"""The inner loops of several jobs at once: a row each, the longest first, so that those that are over drop off."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Optional

import torch

from halos.data.batch import moved
from halos.training import Job, Outcome
from halos.training.losses import Losses
from halos.training.optimizers import Moments
from halos.training.stacked.network import Network
from halos.training.stacked.reading import Read, read
from halos.training.stacked.rows import Rows
from halos.training.stacked.stepping import stepping
from halos.training.trainer import Trainer
from halos.values.params import Params


@dataclass
class Done:
    """What came of a job."""

    flat: torch.Tensor  # where it ended, or the gradient, [P]
    losses: torch.Tensor  # of each step
    moments: Optional[Moments]  # None: they are what they were


class Views:
    """The first rows by the names of tensors, as leaves of a computation, and their gradients."""

    def __init__(self, rows: Rows, count: int) -> None:
        self.params = {name: view.detach().requires_grad_() for name, view in rows.named(rows.params, count).items()}
        self._grads = list(rows.named(rows.grad, count).values())

    def add(self, losses: torch.Tensor, anew: bool) -> None:
        """Add the gradients of losses [rows] to what there is, or let them be all that there is."""
        found = torch.autograd.grad(losses.sum(), list(self.params.values()), allow_unused=True)
        new = [torch.zeros_like(grad) if one is None else one for one, grad in zip(found, self._grads)]
        (torch._foreach_copy_ if anew else torch._foreach_add_)(self._grads, new)


class Stack:
    """Trains jobs of different workers together, each as `Trainer` would alone, but for rounding.

    A row is computed in the same way whatever else is in the stack. Workers' states are read, and not changed, until
    what came of a job is `taken`.
    """

    def __init__(self, trainer: Trainer, network: Network, source: Read, at_once: int) -> None:
        """Samples are read from `source`; `at_once` steps of one row at a time, fewer of several."""
        self._trainer = trainer
        self._network = network
        self._source = source
        self._at_once = at_once
        self._kept = trainer.options.optimizer.init(trainer.layout, torch.device("meta"))
        self._rows: Optional[Rows] = None
        self._rate = lru_cache(maxsize=1 << 14)(
            lambda step: trainer.options.schedule.at(trainer.options.optimizer.lr, step)
        )

    def trained(self, jobs: Sequence[Job]) -> dict[int, Done]:
        """Return what comes of jobs, by id; all of them ask for gradients, or none. Raises Unread."""
        trainer, options = self._trainer, self._trainer.options
        jobs = sorted(jobs, key=lambda job: -job.steps)
        rows = self._room(len(jobs))
        for row, job in enumerate(jobs):
            begun = {} if job.gradient else trainer.states.moments(trainer.states.known(job.worker))
            rows.put(row, _flat(job.start), begun)
            if not job.gradient and (begin := getattr(options.optimizer, "begin", None)):
                begin(rows.params[row], rows.of(row))
        losses = torch.zeros(jobs[0].steps, len(jobs), dtype=torch.float32, device=trainer.device)
        done: dict[int, Done] = {}
        first, count = 0, len(jobs)  # steps that are over, rows that are not
        while count:
            views, ends = Views(rows, count), jobs[count - 1].steps
            while first < ends:
                steps = min(ends - first, max(1, self._at_once // count))
                batches = (
                    moved(batch, trainer.device)
                    for batch in read(jobs[:count], first, steps, options.batch_size, options.micro, self._source)
                )
                descend = None if jobs[0].gradient else self._stepping(jobs[:count], first, steps, rows)
                for step in range(steps):
                    losses[first + step, :count] = self._backward(
                        views, batches, more=jobs[0].gradient and first + step > 0
                    )
                    if descend is not None:
                        descend(step)
                first += steps
            while count and jobs[count - 1].steps == first:
                count -= 1
                job, moments = jobs[count], None
                if job.gradient:
                    flat = rows.grad[count] / job.steps
                else:
                    flat, moments = rows.params[count].clone(), rows.take(count)
                done[job.id] = Done(flat, losses[:first, count], moments)
        return done

    def taken(self, job: Job, done: Done) -> Outcome:
        """Return a job's outcome; its worker's state is what it ended with. Raises Diverged."""
        trainer = self._trainer
        state = trainer.states.of(job.worker)
        if done.moments is not None:
            state.moments = done.moments
        if job.gradient:
            where = trainer.of_batch(job.worker, job.steps, job.time)
        else:
            where = trainer.of_step(job.worker, job.steps, job.lr_step, job.time)
        averaged = Losses.of(done.losses).averaged(trainer.options.loss_average_steps, where)
        return Outcome(Params(trainer.layout, done.flat), *averaged)

    def make_room(self) -> None:
        """Let go of the memory that stacks are trained in."""
        self._rows = None

    def _room(self, count: int) -> Rows:
        """Rows for so many; the same as before if they do."""
        if self._rows is None or self._rows.room < count:
            self._rows = None  # first of all: both at once would take twice the memory
            self._rows = Rows(count, self._trainer.layout, self._kept, self._trainer.device)
        return self._rows

    def _stepping(self, jobs: Sequence[Job], first: int, steps: int, rows: Rows) -> Callable[[int], None]:
        rates = [[self._rate(job.lr_step + step) for job in jobs] for step in range(first + 1, first + steps + 1)]
        table = torch.tensor(rates, dtype=torch.float64)
        return stepping(rows, len(jobs), table, self._trainer.layout, self._trainer.options)

    def _backward(self, views: Views, batches: Iterator[Any], more: bool) -> torch.Tensor:
        """Let `grad` be each row's gradient of a batch, or that be added if there is `more`; return losses [rows]."""
        trainer = self._trainer
        accumulation, precision = trainer.options.batch_size // trainer.options.micro, trainer.precision()
        total = torch.zeros((), dtype=torch.float32, device=trainer.device)
        for micro in range(accumulation):
            with precision():
                losses = self._network(views.params, next(batches)) / accumulation
            views.add(losses, anew=micro == 0 and not more)
            total = total + losses.detach()
        return total


def _flat(params: Params) -> torch.Tensor:
    if params.flat is None:
        raise ValueError("hollow parameters cannot be trained")
    return params.flat
