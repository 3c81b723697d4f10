"""A plugin that the suites load: compute times that differ from job to job, and are the same in every run."""

from __future__ import annotations

from dataclasses import dataclass

from halos.hooks import Register, hookimpl
from halos.seeds import generator
from halos.world.cluster import Cluster, Worker


@dataclass
class TestingJitter:
    """`steps · step time / speed`, times a factor in [½, 1½) drawn for each job by the run's seed."""

    __test__ = False  # for pytest: not a class of tests

    def connect(self, cluster: Cluster, seed: int) -> None:
        self._step_time = cluster.step_time
        self._seed = seed

    def seconds(self, worker: Worker, steps: int, time: float, job: int) -> float:
        factor = 0.5 + float(generator(self._seed, "testing jitter", job).random())
        return factor * self._step_time * steps / worker.speed


@hookimpl
def register_compute_models(register: Register) -> None:
    register("testing_jitter", TestingJitter)
