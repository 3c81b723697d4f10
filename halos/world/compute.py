"""Compute models: how long a worker's local steps take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Protocol

from halos.hooks import Register, hookimpl
from halos.world.cluster import Cluster, Worker


class ComputeModel(Protocol):
    """Time of local steps, in seconds. It may differ from job to job, but must be a function of its arguments."""

    def connect(self, cluster: Cluster, seed: int) -> None:
        """Called once, before anything else, with the run's seed, or its own if it has a field `seed`.

        Raises ConfigError if the model does not fit.
        """
        ...

    def seconds(self, worker: Worker, steps: int, time: float, job: int) -> float:
        """Return the seconds of `steps` local steps that `worker` starts at `time`; `job` numbers the run's jobs."""
        ...


@dataclass
class Constant:
    """`steps · step time / speed`, always."""

    seed: Optional[int] = None  # nothing is drawn

    def connect(self, cluster: Cluster, seed: int) -> None:
        self._step_time = cluster.step_time

    def seconds(self, worker: Worker, steps: int, time: float, job: int) -> float:
        return self._step_time * steps / worker.speed


@hookimpl
def register_compute_models(register: Register) -> None:
    register("constant", Constant)
