"""The optional methods and attributes of components, by kind: found by name, when there is something to ask.

Nobody inherits from these: a component has the method or attribute, exactly so called, or has not. Beside them, a
policy, step allocation, compute model, network model, codec or weights (and what is inside one) may have methods
marked `@hookimpl` and named after an event hook of hookspecs.py: then it is told of what happens.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, Optional, Protocol

import torch

from halos.rules.aggregate import Exchange
from halos.sim.simulation import Simulation
from halos.training import Job, Outcome, Prediction
from halos.training.optimizers import Moments
from halos.values.params import Layout, Params
from halos.world.cluster import Cluster, Worker
from halos.world.phases import Phase


class PolicyMay(Protocol):
    """A sync policy (halos.SyncPolicy)."""

    def check(self, cluster: Cluster) -> None:
        """Called once, before the data is opened; raises ConfigError if the policy does not fit the cluster."""

    def prepare(self, sim: Simulation) -> None:
        """Called once, before anything is written, with all there is; raises ConfigError if something does not fit."""

    weighs: bool  # false: what `weights:` says has no part in it, and is refused

    def report(self) -> Any:
        """Return its own numbers for the summary (`policy_report`), however the run ended; plain values."""


class StepsMay(Protocol):
    """A step allocation (halos.StepAllocation)."""

    def connect(self, cluster: Cluster) -> None:
        """Called once, first; an allocation that learns starts anew here. Raises ConfigError if it does not fit."""

    def prepare(self, sim: Simulation) -> None:
        """As a policy's."""


class WeightsMay(Protocol):
    """Contribution weights (halos.ContributionWeights)."""

    def connect(self, cluster: Cluster) -> None:
        """Called once, first. Raises ConfigError if the weights do not fit the cluster."""

    def prepare(self, sim: Simulation) -> None:
        """As a policy's."""

    def weight(self, worker: Worker) -> float:
        """Return what the worker's contributions count, positive, against those of others they are averaged with.

        The factor is then also times this, over its mean among these.
        """


class AggregatorMay(Protocol):
    """An aggregator (halos.Aggregator)."""

    def exchanges(self, nbytes: int, layout: Layout, members: int) -> Sequence[Exchange]:
        """Return what `members` exchange, one after the other, to aggregate payloads of `nbytes` each, of `layout`.

        Without it one all-reduce of `nbytes`. Bytes may depend on these arguments, and on nothing else; where
        `model.wire_bytes` says what the model weighs, all are scaled alike. Not asked under a codec with `gathered`
        payloads: then all get all of them, whoever aggregates.
        """

    weighs: bool  # false: what `weights:` says has no part in it, and is refused
    # Each member aggregates its own part of everybody's payloads: whoever lies about that, is believed. A run in which
    # faults have workers send what is not so is warned of it.
    sharded: bool

    def connect(self, cluster: Cluster) -> None:
        """Called once, first. Raises ConfigError if there are too few workers for it, say."""

    def prepare(self, sim: Simulation) -> None:
        """As a policy's."""


class CodecMay(Protocol):
    """A codec (halos.Codec)."""

    error_feedback: bool  # senders add to a payload what their earlier ones of the same part of the model have lost
    decay: float  # what they add of it, at every payload; without it all
    gathered: bool  # payloads cannot be summed under way: a collective brings each of them to everybody

    def prepare(self, sim: Simulation) -> None:
        """As a policy's."""


class MergeRuleMay(Protocol):
    """A merge rule (halos.MergeRule)."""

    def momentum_of(self, state: Any) -> Optional[Params]:
        """Return the outer momentum in a state, for those who measure; what the next step adds to, or its like."""

    def start(self, params: Params, state: Any) -> Params:
        """Return what workers that train on `params` begin from, in the state after the step that made `params`.

        Without it `params`. Policies ask by `start_of`. Neither argument is modified.
        """

    def refuses(self, staleness: int) -> bool:
        """Return whether an arrival so many versions old is not merged, but dropped; of age 0 none may be.

        Policies that merge arrivals one by one ask by `refused_by`.
        """

    def prepare(self, sim: Simulation) -> None:
        """As a policy's, of the rules in its fields; a rule passes it on to one that it holds."""


class NetworkMay(Protocol):
    """A network model (halos.NetworkModel)."""

    def all_gather(self, nbytes: int, workers: int, time: float) -> float:
        """Return the seconds until all have all payloads; without it, an all-reduce of as many bytes on every link."""

    seed: Optional[int]  # what `seeded` is told; without it, or None: the run's

    def seeded(self, seed: int) -> None:
        """Called once, before `connect`: the seed of all that is drawn."""

    def capacity(self, link: Hashable, time: float) -> tuple[float, float]:
        """Return the bits per second that a link carries at `time`, and until when (infinite: for ever).

        A model with this method answers *in flows*, and has the two below as well: then what is on a link at the same
        time shares it, max–min fair, and no transfer's end is known before it is there. The model's seconds remain: of
        what has all links to itself, for those who ask how long something would take.
        """

    def message_phases(
        self, nbytes: int, src: int, dst: int, number: int, sender: Optional[int], receiver: Optional[int]
    ) -> Sequence[Phase]:
        """Return the phases, one after the other, of a message from region `src` to region `dst`.

        `number` counts all messages and collectives of the run; `sender` and `receiver` are workers, by id, where it is
        known that one is at that end. Links may be called anything hashable.
        """

    def collective_phases(self, nbytes: int, members: Sequence[Worker], gathered: bool, number: int) -> Sequence[Phase]:
        """Return the phases of a collective of `nbytes` per member; `gathered`: all get all payloads, not their sum."""


class FaultsMay(Protocol):
    """A fault model (halos.FaultModel)."""

    def sends(self, payloads: Sequence[tuple[Hashable, Params]], number: int) -> Sequence[Params]:
        """Return what is really sent in place of `payloads`: itself, each that its (sender, payload) sends honestly.

        Asked for all payloads of a collective at once, for each that an asynchronous job pushes, and for what
        `sim.send` is told to be a worker's; before the codec. Senders are workers' ids. `number` counts the questions
        of the run. Hollow payloads stay hollow, and sizes what they are.
        """


class ModelMay(Protocol):
    """A model (halos.Model)."""

    def shapes(self, vocab_size: Optional[int]) -> dict[str, tuple[int, ...]]:
        """Return name and shape of every tensor that is trained, in the module's order, for runs that only time it.

        Without it the model is built to know them, on the meta device if it can be. Raises UserError for what cannot
        be built; what differs from the module is refused.
        """

    wire_bytes: Optional[int]  # of the whole model in fp32; without it, or None: four per parameter
    seed: Optional[int]  # what it is built with; without it, or None: the run's
    language_model: bool  # whether its loss is in nats per token; then perplexity and bits per byte follow from it

    def metrics(self, module: torch.nn.Module, batch: Any) -> dict[str, Any]:
        """Return more than a loss of a batch in evaluation: scalars by name, each a mean over the batch's samples.

        Numbers or tensors. If `loss` is among them, the module is not asked for it as well.
        """

    def logits(self, module: torch.nn.Module, batch: Any) -> torch.Tensor:
        """Return the logits of a batch, [predictions, classes] or […, classes], for those who measure."""

    def stacked(self, module: torch.nn.Module) -> Callable[[dict[str, torch.Tensor], Any], torch.Tensor]:
        """Return what `module` computes in training as a function of several workers' parameters and batches.

        Parameters by name, [workers, *shape], and a batch whose tensors are [workers, samples, …] → losses [workers],
        each of its own worker alone. `executor: stacked` takes it, if it agrees with the module; else torch.vmap.
        """

    def hugging_face(
        self, tensors: dict[str, torch.Tensor], sequence_length: int
    ) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Return the `config.json` by which transformers builds the model, and `tensors` by their names there.

        `tensors` are those of a run's `model.pt`. `python -m halos.export RUN --to hf FOLDER` needs it.
        """


class ComputeMay(Protocol):
    """A compute model (halos.ComputeModel)."""

    seed: Optional[int]  # what it is connected with; without it, or None: the run's


class DataMay(Protocol):
    """A data source (halos.DataSource)."""

    def tokenizer_json(self) -> Optional[str]:
        """Return the tokenizer that made its tokens, as a Hugging Face `tokenizer.json`; None if there is none."""


class ExecutorMay(Protocol):
    """An executor (halos.Executor)."""

    def step(self, params: Params, gradient: Params, lr_step: int) -> Params:
        """Return `params` after one inner optimizer step along a gradient, with a state that is no worker's.

        Jobs that ask for a `gradient` come only to executors that have it.
        """

    def shard_sizes(self) -> list[int]:
        """Return the number of training samples in every shard of the data order; without it, they are not known."""

    def forget(self, worker: int) -> None:
        """Forget a worker's inner state (optimizer, buffers); `faults.inner_state: gone` needs it."""

    def whole(self, params: Params) -> dict[str, torch.Tensor]:
        """Return the model's state dict at `params`, on the CPU, for `model.pt`; without it: `params.tensors()`.

        What workers keep to themselves is in it as in evaluations: of buffers, the mean over workers.
        """

    def skipped_steps(self) -> Optional[int]:
        """Return how many local steps fp16's loss scaling has left out so far, for the summary; None: not fp16."""

    def remember(self, wanted: Callable[[int], bool]) -> None:
        """From now on, keep the inner state with which every `wanted` job (by id) begins, until `recall`."""

    def recall(self, job: int) -> Optional[dict[str, Any]]:
        """Return what `remember` has kept of a job, and keep it no longer: plain values and tensors, for `probe`.

        None: nothing is kept of it.
        """

    def probe(self, job: Job, inner: dict[str, Any]) -> Outcome:
        """Return what would have come of `job`, begun with the inner state `inner`, and leave no trace of that.

        It is any job, as it was but for its start, say, or its samples: what it draws follows from worker and id, as
        ever. Afterwards workers' inner states, counts and generators are what they were. Raises as `result` does.
        """

    def predictions(self, several: Sequence[Params], samples: int, seed: int) -> Iterator[list[Prediction]]:
        """Yield, batch by batch, what each of `several` parameters makes of the same samples, so many in all.

        They are the first validation samples, or training samples drawn by `seed` where nothing is held out. The
        module is in evaluation mode, as in `evaluate`, and no trace is left.
        """

    def probe_gradient(self, params: Params, samples: int, seed: int) -> Params:
        """Return the gradient of the mean loss over the samples that `predictions` is of, at any parameters.

        As there, the module is in evaluation mode, and no trace is left.
        """

    def second_moments(self, worker: int) -> Optional[Params]:
        """Return the mean squared gradients that the worker's optimizer keeps, without their bias (Adam's v̂), copied.

        None if it keeps none.
        """

    # The name of another whose results and states are its own: a resumed run may change to that and back, and its keys.
    alike: str

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold of it: plain values and tensors. Runs are checkpointed only with it."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""


class InnerOptimizerMay(Protocol):
    """An inner optimizer (halos.InnerOptimizer)."""

    def begin(self, params: torch.Tensor, state: Moments) -> None:
        """Called when a job begins: from `params` [P], not to be changed; `state` is changed in place, if at all.

        Not for jobs that ask for a gradient, nor for steps along one.
        """

    def step_rows(
        self, params: torch.Tensor, grad: torch.Tensor, state: Moments, rates: torch.Tensor, layout: Layout
    ) -> Callable[[int], None]:
        """Return what takes the next steps of several workers at once: called with 0, 1, … up to len(rates) − 1.

        As `step` does of each row of `params` and `grad`, [rows, P], but for rounding; in between, gradients become
        others, and whatever a step leaves there is lost. `state`: by name, [rows, n] of vectors, [rows] of numbers,
        as they are before these steps; and in place, as they are after all of them. `rates`: fp64 [steps, rows], on the
        CPU. What becomes of a row does not depend on the others. Without it, rows are stepped one by one.
        """

    def step_unless(
        self,
        params: torch.Tensor,
        grad: torch.Tensor,
        state: Moments,
        lr: float,
        layout: Layout,
        infinite: torch.Tensor,
    ) -> None:
        """As `step`, but nothing is changed if `infinite`, a number [] on the device, is 1, and not 0.

        So fp16's loss scaling leaves steps out. Without it, it waits for that number, and asks for no step if it is 1.
        """

    def second_moments(self, state: Moments) -> Optional[torch.Tensor]:
        """Return the mean squared gradients in `state`, without their bias (Adam's v̂), a new vector [P].

        None if there are none yet.
        """


class ObserverMay(Protocol):
    """An observer (halos.Observer)."""

    def prepare(self, sim: Simulation) -> None:
        """As a policy's; it may ask `sim.probes` from then on."""

    def summary(self) -> dict[str, Any]:
        """Return its numbers for the summary (`observers`, under its name), however the run ended; plain values.

        Asked before `on_finish`.
        """

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold of it: plain values and tensors. What it wrote so far is on the disk then.

        For what it counts from parameters, which a resumed run's beginning does not have.
        """

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned, whatever was counted since `on_start`; `on_resume` follows.

        Nothing is written yet. Not called where there was no such observer when the checkpoint was written.
        """


MAY: dict[str, type[Any]] = {
    "policy": PolicyMay,
    "step allocation": StepsMay,
    "contribution weights": WeightsMay,
    "aggregator": AggregatorMay,
    "codec": CodecMay,
    "merge rule": MergeRuleMay,
    "network model": NetworkMay,
    "fault model": FaultsMay,
    "model": ModelMay,
    "compute model": ComputeMay,
    "data source": DataMay,
    "executor": ExecutorMay,
    "inner optimizer": InnerOptimizerMay,
    "observer": ObserverMay,
}


def names(kind: str) -> set[str]:
    """Return the names of the optional methods and attributes of that kind."""
    return {name for name in (*vars(MAY[kind]), *MAY[kind].__annotations__) if not name.startswith("_")}


NAMES = frozenset().union(*map(names, MAY))


def has(component: Any, name: str) -> bool:
    """Whether `component` has the optional method or attribute `name` (and it is not None)."""
    assert name in NAMES, f"{name} is not declared here"
    return getattr(component, name, None) is not None


def call(component: Any, name: str, *arguments: Any) -> Any:
    """Call an optional method, and return what it returns; None if `component` has no such method."""
    return getattr(component, name)(*arguments) if has(component, name) else None
