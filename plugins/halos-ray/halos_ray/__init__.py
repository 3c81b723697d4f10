"""Train the jobs in flight on a Ray cluster: in actors on one machine or many, each with a core or a GPU of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Optional, Union

import torch

from halos import (
    ConfigError,
    Elsewhere,
    Inline,
    Job,
    Outcome,
    Params,
    Prediction,
    Register,
    Task,
    UserError,
    hookimpl,
    positive,
    require,
    under,
)
from halos_ray.cluster import Cluster, library
from halos_ray.crew import Crew, Inner
from halos_ray.packing import packed, unpacked

FILE = "halos_plugin_"  # what the names of modules begin with that are plugins' files
RESTORED = -1  # the job at whose end a worker has the inner state that a checkpoint held


@dataclass
class Ray(Inline):
    """Trains in actors of a Ray cluster; results are those of `inline` on such a device, to the last bit.

    Each actor opens data and model on its own node, and keeps the inner states of the workers that it trained last.
    Copies of these come here with every result, where checkpoints are made of them, and other actors go on from them.
    Evaluations, probes and steps along gradients are computed here.
    """

    alike: ClassVar[str] = "inline"

    device: str = "auto"  # of each actor, and here: `auto`, a GPU if `gpus_per_actor` says so; or `cpu`, `cuda`
    threads: int = 1  # of torch, in each actor
    address: Optional[str] = None  # host:port; `auto`: there must be a cluster; `local`: a new one; null: one of these
    actors: Union[int, Literal["auto"]] = "auto"  # `auto`: as many as find room, at most one per worker
    cpus_per_actor: float = 1.0  # cores that the cluster counts for each
    gpus_per_actor: float = 0.0  # GPUs, likewise; a fraction: several share one

    def __post_init__(self) -> None:
        self._cluster: Optional[Cluster] = None
        self._crew: Optional[Crew] = None
        require(self.threads == 1, "threads", self.threads, "1, the threads of each actor")
        require(
            self.actors == "auto" or self.actors >= 1, "actors", self.actors, "a positive number of actors, or auto"
        )
        require(positive(self.cpus_per_actor), "cpus_per_actor", self.cpus_per_actor, "a positive number of cores")
        gpus = self.gpus_per_actor
        require(gpus == 0 or positive(gpus), "gpus_per_actor", gpus, "a number of GPUs, or 0")
        if self.device == "auto":
            self.device = "cuda" if gpus else "cpu"
        if self.device != ("cuda" if gpus else "cpu"):
            right = "cuda, or gpus_per_actor=0" if gpus else "cpu, or gpus_per_actor=1"
            raise ConfigError("device", f"{self.device!r}, with gpus_per_actor={gpus:g}; give auto, {right}")
        if self.address is not None and self.address.startswith("ray://"):
            raise ConfigError("address", f"{self.address!r} is a Ray client's; run on a machine of the cluster itself")

    def open(self, task: Task) -> Params:
        library()  # before anything that takes long
        start = super().open(task)
        self._layout = start.layout
        self._left_out = 0  # local steps, by fp16's loss scaling, in actors
        self._buffers: dict[int, int] = {}  # by worker, the job at whose end it had the buffers that are known here
        self._wished: Optional[Callable[[int], bool]] = None
        self._kept: dict[int, dict[str, Any]] = {}  # by job, the inner state that it began with, until it is recalled
        count = None if self.actors == "auto" else self.actors
        with under("executor"):
            self._cluster = Cluster(self.address, count, self.cpus_per_actor, self.gpus_per_actor)
            count = min(self._cluster.slots(count), count or len(task.cluster.workers))
            self._crew = Crew(self._cluster, count, self.cpus_per_actor, self.gpus_per_actor)
        assert start.flat is not None, "it is to be trained"
        self._crew.open(sendable(task), self.device, self.describe(), start.flat)
        return start

    def submit(self, job: Job) -> None:
        self._crew.add(job)

    def result(self, job: Job) -> Outcome:
        if self._wished is not None and self._wished(job.id):
            inner = self._crew.inner.get(job.worker)
            self._kept[job.id] = self.inner_state(job.worker) if inner is None else unpacked(inner.values)
        reply = self._crew.answer(job)
        self._left_out += reply.skipped
        if reply.error is not None:
            raise reply.error from (Elsewhere(reply.trace) if reply.trace else None)
        assert job.start.flat is not None, "it was trained"
        flat = unpacked(reply.params).to(job.start.flat.device)
        return Outcome(Params(self._layout, flat), reply.losses, reply.chunks, reply.loss)

    def evaluate(self, params: Params, name: str) -> Optional[dict[str, float]]:
        self._settle()
        return super().evaluate(params, name)

    def whole(self, params: Params) -> dict[str, torch.Tensor]:
        self._settle()
        return super().whole(params)

    def predictions(self, several: Sequence[Params], samples: int, seed: int) -> Iterator[list[Prediction]]:
        self._settle()
        yield from super().predictions(several, samples, seed)

    def probe_gradient(self, params: Params, samples: int, seed: int) -> Params:
        self._settle()
        return super().probe_gradient(params, samples, seed)

    def second_moments(self, worker: int) -> Optional[Params]:
        inner = self._crew.inner.get(worker)
        if inner is None:
            return None
        self.give(worker, unpacked(inner.values))
        found = super().second_moments(worker)
        super().forget(worker)  # moments are kept once, and not on this device
        self._buffers.pop(worker, None)
        return found

    def skipped_steps(self) -> Optional[int]:
        here = super().skipped_steps()
        return None if here is None else here + self._left_out

    def remember(self, wanted: Callable[[int], bool]) -> None:
        self._wished = wanted

    def recall(self, job: int) -> Optional[dict[str, Any]]:
        return self._kept.pop(job, None)

    def state(self) -> dict[str, Any]:
        here = super().state()
        workers = {str(worker): unpacked(inner.values) for worker, inner in self._crew.inner.items()}
        others = {worker: state for worker, state in here["workers"].items() if worker not in workers}
        return {"workers": workers | others, "skipped": here["skipped"] + self._left_out}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)  # which says what is wrong with it
        for worker, saved in state["workers"].items():
            if int(worker) >= 0:  # else it is nobody's, and stays here
                super().forget(int(worker))
                self._crew.inner[int(worker)] = Inner(RESTORED, packed(saved), None)

    def forget(self, worker: int) -> None:
        super().forget(worker)
        self._crew.inner.pop(worker, None)
        self._buffers.pop(worker, None)

    def close(self) -> None:
        if self._crew is not None:
            self._crew.close()
        if self._cluster is not None:
            self._cluster.close()
        super().close()

    def _settle(self) -> None:
        """Let workers have their buffers here as well, of which evaluations have the mean; not their moments."""
        inners = self._crew.inner
        if not self._buffers and not any(inner.values["kept"] for inner in inners.values()):
            return
        for worker, inner in inners.items():
            if self._buffers.get(worker) != inner.job:
                self.give(worker, unpacked({**inner.values, "optimizer": None}))
                self._buffers[worker] = inner.job


def sendable(task: Task) -> bytes:
    """Return the task for another process, with the code of plugins that are files, which are not there by name.

    Raises UserError for what cannot be sent.
    """
    from ray import cloudpickle

    files = [module for name, module in list(sys.modules.items()) if name.startswith(FILE) and module.__name__ == name]
    for module in files:
        cloudpickle.register_pickle_by_value(module)
    try:
        return cloudpickle.dumps(task)
    except Exception as error:  # whatever a component may hold
        raise UserError(f"executor ray: model or data cannot be sent to other processes: {error}") from error
    finally:
        for module in files:
            cloudpickle.unregister_pickle_by_value(module)


@hookimpl
def register_executors(register: Register) -> None:
    register("ray", Ray)
