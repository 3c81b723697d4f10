"""Train every job in this process, one after another, when its result is due."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Optional, cast

import torch

from halos.data import Corpus, DataSource, memory
from halos.data.batch import Batch
from halos.data.feed import Feed
from halos.errors import ConfigError, UserError, require, under
from halos.hooks import Register, hookimpl
from halos.models.building import BEYOND, built, named, refuse_other_shapes, shapes_of
from halos.seeds import generator
from halos.training import Job, Outcome, Prediction, Task
from halos.training.metrics import derived
from halos.training.optimizers import numbers_kept
from halos.training.trainer import Trainer
from halos.values.params import Layout, Params


@dataclass
class Inline:
    """Trains in this process, one job after another; a job nobody waits for any more is never computed."""

    device: str = "auto"  # `auto`: the first GPU if there is one; or `cpu`, `cuda`, `cuda:1`, …
    threads: int = 1  # of torch; results are equal bit for bit only with the same number

    def __post_init__(self) -> None:
        require(self.threads >= 1, "threads", self.threads, "a positive number of threads")

    def open(self, task: Task) -> Params:
        with under("data"):  # first: for most mistakes, torch needs not be loaded
            corpus = task.data.open(task.split_seed(task.data))
            self._feed = Feed(corpus, task.data, task.cluster, task.seed)
        torch.set_num_threads(self.threads)
        device = self._device()
        with under("model"):
            shapes = shapes_of(task.model, corpus.vocab_size)
        with under("train.optimizer"):
            kept = numbers_kept(task.train.optimizer, Layout(shapes))
        with under("model"):
            check_memory(len(task.cluster.workers), Layout(shapes).size, kept, device)
            module = built(task.model, corpus.vocab_size, task.model_seed)
            with named(task.model):
                refuse_other_shapes(shapes, module)
                self._trainer = Trainer(module, task.train, device, task.model_seed)
        self._task = task
        self._corpus = corpus
        self._wanted: Optional[Callable[[int], bool]] = None
        self._begun: dict[int, dict[str, Any]] = {}  # by job, the inner state that it began with, until it is recalled
        self._sets = {"validation": self._feed}
        for name, source in task.evaluation_sets.items():
            with under(f"evaluate.sets.{name}"):
                extra = source.open(task.split_seed(source))
                refuse_other_tokens((source, extra), (task.data, corpus))
                self._sets[name] = Feed(extra, source, task.cluster, task.seed, f"evaluate.sets.{name}")
        self._opened()
        self._look()
        return self._trainer.initial()

    def _opened(self) -> None:
        """Called when everything is open, and before anything is computed."""

    def _look(self) -> None:
        """Try the module on a batch or more (and compile it, if asked for): see Trainer.look."""
        with self._indexing("data"):
            self._trainer.look(self._task.model, tensors(self._first_batches()))

    def submit(self, job: Job) -> None:
        pass  # computed when its result is due: nothing else runs meanwhile

    def result(self, job: Job) -> Outcome:
        if self._wanted is not None and self._wanted(job.id):
            self._begun[job.id] = self._trainer.states.copied(job.worker)
        return self._computed(job)

    def _computed(self, job: Job) -> Outcome:
        """What comes of a submitted job."""
        return self._trained(job)

    def _trained(self, job: Job, into: Optional[torch.Tensor] = None) -> Outcome:
        """What comes of a job, trained here; its parameters, or the gradient, in the vector `into` if there is one."""
        batches, at = self._batches(job), (job.time, job.id, into)
        with self._indexing("data"):
            if job.gradient:
                return Outcome(*self._trainer.gradient(job.worker, job.start, job.steps, batches, *at))
            return Outcome(*self._trainer.train(job.worker, job.start, job.steps, job.lr_step, batches, *at))

    def step(self, params: Params, gradient: Params, lr_step: int) -> Params:
        return self._trainer.step(params, gradient, lr_step)

    def evaluate(self, params: Params, name: str) -> Optional[dict[str, float]]:
        feed, model = self._sets[name], self._task.model
        if feed.options.validation_samples == 0:
            return None
        own = getattr(model, "metrics", None)
        with self._indexing(feed.section):
            means = self._trainer.evaluate(params, tensors(feed.validation(self._task.train.micro)), own)
        return derived(means, model, getattr(feed.corpus, "bytes_per_token", None))

    def shard_sizes(self) -> list[int]:
        """Return the number of training samples in every shard, in an epoch."""
        return self._feed.sizes

    def describe(self) -> dict[str, Any]:
        samples = len(self._corpus)
        hashes = {name: feed.corpus.hash for name, feed in self._sets.items() if feed is not self._feed}
        return {
            "hash": self._corpus.hash,
            "samples": samples,
            "train_samples": sum(self._feed.sizes),
            "tokens": samples * self._task.data.sequence_length,
            "bytes_per_token": getattr(self._corpus, "bytes_per_token", None),
            **({"sets": hashes} if hashes else {}),
        }

    def whole(self, params: Params) -> dict[str, torch.Tensor]:
        """Return the model's state dict at `params`, on the CPU, with buffers (their mean over workers)."""
        return self._trainer.whole(params)

    def skipped_steps(self) -> Optional[int]:
        """Return how many local steps fp16's loss scaling has left out so far; None in another precision."""
        return self._trainer.states.skipped if self._task.train.precision == "fp16" else None

    def remember(self, wanted: Callable[[int], bool]) -> None:
        """Keep the inner state that every `wanted` job (by id) begins with, until `recall`."""
        self._wanted = wanted

    def recall(self, job: int) -> Optional[dict[str, Any]]:
        """Return what is kept of a job, and keep it no longer."""
        return self._begun.pop(job, None)

    def probe(self, job: Job, inner: dict[str, Any]) -> Outcome:
        """Return what would have come of `job`, begun with that inner state; no trace is left."""
        with self._trainer.states.standing_in(job.worker, inner):
            return self._trained(job)

    def inner_state(self, worker: int) -> dict[str, Any]:
        """Return a worker's inner state, plain values and tensors (not copied: its next job changes them).

        Before its first job, it is a new one.
        """
        return self._trainer.states.saved(worker)

    def give(self, worker: int, inner: dict[str, Any]) -> None:
        """Let that be a worker's inner state (not copied: its next job here changes the tensors).

        Raises ValueError if it is not of this model and optimizer.
        """
        self._trainer.states.load(worker, inner)

    def predictions(self, several: Sequence[Params], samples: int, seed: int) -> Iterator[list[Prediction]]:
        """Yield what several models make of the same samples, batch by batch; see ExecutorMay."""
        logits = getattr(self._task.model, "logits", None)
        for batch in tensors(self._probed(samples, seed)):
            with self._indexing(self._feed.section):
                yield [self._trainer.predict(params, batch, logits) for params in several]

    def probe_gradient(self, params: Params, samples: int, seed: int) -> Params:
        """Return the gradient of the mean loss over the samples that `predictions` is of; see ExecutorMay."""
        with self._indexing(self._feed.section):
            return self._trainer.slope(params, tensors(self._probed(samples, seed)))

    def second_moments(self, worker: int) -> Optional[Params]:
        """Return the mean squared gradients that a worker's optimizer keeps, copied; None where there are none."""
        return self._trainer.second_moments(worker)

    def state(self) -> dict[str, Any]:
        """Return all workers' inner state (optimizers, buffers): plain values and tensors (not copied)."""
        return self._trainer.states.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned. Raises ValueError if it is not of this model and optimizer."""
        self._trainer.states.restore(state)

    def forget(self, worker: int) -> None:
        """Forget a worker's inner state; its next job begins with a new one."""
        self._trainer.states.forget(worker)

    def close(self) -> None:
        pass

    def _batches(self, job: Job) -> Iterator[torch.Tensor]:
        micro = self._task.train.micro
        firsts = range(job.first_sample, job.end_sample, micro)
        return tensors(self._feed.train(job.shard, first, micro) for first in firsts)

    @contextmanager
    def _indexing(self, section: str) -> Iterator[None]:
        """Say whose tokens a model has no row for: torch's own complaint, at the end of a traceback, names nobody."""
        try:
            yield
        except IndexError as error:
            if not str(error).startswith(BEYOND):
                raise
            raise UserError(
                f"model: {type(self._task.model).__name__} cannot index what {section} holds ({error}): it needs a row"
                f" for each of {self._corpus.vocab_size} tokens, and for each position if it numbers these"
            ) from error

    def _probed(self, samples: int, seed: int) -> Iterator[torch.Tensor | Batch]:
        """Micro-batches of the first validation samples, or one by one of training samples drawn by `seed`."""
        if self._feed.validation_samples:
            yield from self._feed.validation(self._task.train.micro, samples)
            return
        shards = [(shard, size) for shard, size in enumerate(self._feed.sizes) if size]
        for index in range(samples):
            draw = generator(seed, "probed sample", index)
            shard, size = shards[draw.integers(len(shards))]
            yield self._feed.train(shard, int(draw.integers(size)), 1)

    def _first_batches(self) -> Iterator[torch.Tensor | Batch]:
        """Micro-batches of somebody's first samples, as training reads them; as many as there are."""
        shard, size = next((shard, size) for shard, size in enumerate(self._feed.sizes) if size)
        micro = min(self._task.train.micro, size)
        for first in range(0, size - micro + 1, micro):
            yield self._feed.train(shard, first, micro)

    def _device(self) -> torch.device:
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            device = torch.device(self.device)
            float(torch.zeros(1, device=device))  # `meta` can be allocated, but holds no numbers
        except (RuntimeError, AssertionError) as error:
            said = str(error).splitlines()[0]
            raise ConfigError(
                "executor.device",
                f"{self.device!r} cannot be used here ({said if len(said) < 80 else said[:80] + '…'});"
                " give auto, cpu, cuda, or cuda:1 and so on",
            ) from None
        return device


def tensors(batches: Iterator[torch.Tensor | Batch]) -> Iterator[torch.Tensor]:
    """Return the same: all that is asked of a batch, on its way to the module, is a length and `to`."""
    return cast(Iterator[torch.Tensor], batches)


def refuse_other_tokens(extra: tuple[DataSource, Corpus], data: tuple[DataSource, Corpus]) -> None:
    """Raise ConfigError if an evaluation set's samples cannot be of the data's kind: losses would not compare."""
    sizes = extra[1].vocab_size, data[1].vocab_size
    if sizes[0] is None or sizes[1] is None:
        if sizes[0] != sizes[1]:
            kinds = ["are no tokens" if size is None else "are tokens" for size in sizes]
            raise ConfigError("", f"its samples {kinds[0]}, those of the data {kinds[1]}")
        return
    theirs, ours = (getattr(corpus, "tokenizer", None) for _, corpus in (extra, data))
    if theirs is not None and ours is not None:
        if theirs != ours:
            raise ConfigError("", f"its tokens are those of another tokenizer ({theirs}) than the data's ({ours})")
        return
    there, here = (source.vocabulary() for source, _ in (extra, data))
    known = there is not None and here is not None
    if known and there != here:
        raise ConfigError("", f"its tokens are other ones than the data's: there are {there}, of the data's {here}")
    if sizes[0] > sizes[1]:
        raise ConfigError("", f"has {sizes[0]} different tokens, the data only {sizes[1]}")
    if theirs != ours and not known:
        raise ConfigError(
            "",
            f"it cannot be known whether its tokens are the data's (their tokenizer is {ours or theirs}); if they are,"
            f" say so by vocab_size: {sizes[1] if ours else sizes[0]}",
        )


def check_memory(workers: int, parameters: int, kept: int, device: torch.device) -> None:
    """Raise ConfigError if there is too little memory.

    Counted, in fp32: the numbers `kept` per worker by the optimizer, two training buffers, the server's model and its
    step.
    """
    needed = 4 * (kept * workers + 4 * parameters)
    free = free_on(device)
    if free is not None and needed > free:
        raise ConfigError(
            "",
            f"{parameters:,} parameters and {workers} workers' optimizer states need at least"
            f" {needed / 2**30:.1f} GiB of memory, {free / 2**30:.1f} GiB are free; take a smaller model or fewer"
            " workers, or only time it with executor.name=timing",
        )


def free_on(device: torch.device) -> Optional[int]:
    """Return how many bytes of a device's memory are free, if that is known."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else memory.available()


@hookimpl
def register_executors(register: Register) -> None:
    register("inline", Inline)
