"""Executors: where the training of a simulated worker really happens."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Optional, Protocol, Union

import torch

from halos.data import DataSource
from halos.models import Model
from halos.seeds import own_seed
from halos.training.options import TrainOptions
from halos.values.params import Params
from halos.world.cluster import Cluster


@dataclass(frozen=True)
class Task:
    """A run as an executor must know it before it starts."""

    model: Model  # to be built, unless nothing is trained
    data: DataSource  # to be opened, likewise
    train: TrainOptions  # `train:`
    cluster: Cluster  # who there is
    seed: int  # of the run; a Feed is given this one
    evaluation_sets: dict[str, DataSource]  # beside the data's own `validation`

    @property
    def model_seed(self) -> int:
        """What the model is to be built with."""
        return own_seed(self.model, self.seed)

    def split_seed(self, source: DataSource) -> int:
        """Return what the data, or an evaluation set, is to be opened with."""
        return own_seed(source, self.seed, "split_seed")


class Job(NamedTuple):
    """One worker's local training: `steps` steps from `start` on samples [first, end) of its shard.

    With `gradient` nothing is stepped: its outcome's `params` are the loss's mean gradient at `start`.
    """

    id: int  # in order of dispatch
    worker: int  # whose
    start: Params  # parameters it begins from
    steps: int  # local steps; or batches of a gradient
    shard: int  # of the data order
    first_sample: int  # position in the order of its shard
    end_sample: int  # the same, exclusive
    lr_step: int  # learning-rate steps before the first local step
    time: float  # virtual, of its start: for messages
    gradient: bool = False  # only the gradient at `start` is asked for
    due: float = math.inf  # virtual, when its result will be asked for; infinite: that is not known


class Outcome(NamedTuple):
    """The result of a job: parameters (or the gradient), and losses averaged over `chunks` steps each, and over all."""

    params: Params  # where it ended, or the gradient
    losses: tuple[float, ...]  # training losses, each a mean; none if nothing is trained
    chunks: tuple[int, ...]  # over how many steps each of them is
    loss: Optional[float] = None  # mean over all its steps; None: as the chunks have it


class Prediction(NamedTuple):
    """What a model makes of a batch of `samples`: its mean `loss`, and logits [predictions, classes] if it has any."""

    samples: int
    loss: float
    logits: Optional[torch.Tensor]


Measured = Union[float, dict[str, float], None]


class Executor(Protocol):
    """Trains jobs for real (or pretends to); the virtual clock is none of its business.

    A worker has one job at a time; its inner state (optimizer, the module's buffers) lives here, for the whole run.
    What the module draws follows from (seed, worker, job id), as `inline` does it. Jobs that ask for a
    `gradient` come only to executors that also have `step(params, gradient, lr_step) → params`: one step
    of the inner optimizer along a gradient, with a state that is no worker's. Runs are checkpointed only if
    it has `state() → dict` (plain values and tensors) and `restore(state)`; `faults.inner_state: gone` needs
    `forget(worker)`, called before that worker's next job is submitted. `result` makes one `Params`.
    """

    def open(self, task: Task) -> Params:
        """Open data and model; return the initial parameters. Raises UserError for what is missing or too large."""
        ...

    def submit(self, job: Job) -> None:
        """Take a job, at the virtual time of its start; the work may begin now or at `result`."""
        ...

    def result(self, job: Job) -> Outcome:
        """Return a job's outcome, at the virtual time of its end. Raises Diverged for a loss that is not finite."""
        ...

    def evaluate(self, params: Params, name: str) -> Measured:
        """Return the mean loss of `params` on evaluation set `name` (`validation`, or a task's); None: cannot say.

        Or several means, by name, among them `loss`.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Return what the summary notes under `data`, for the whole run; empty if nothing is known.

        `hash`, `samples`, `train_samples` (all of them but those that are held out), `tokens`, `bytes_per_token`;
        `sets`, the hash of each evaluation set, if there are any.
        """
        ...

    def close(self) -> None:
        """Free what was opened; also called when `open` failed half-way."""
        ...
