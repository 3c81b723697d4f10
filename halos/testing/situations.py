"""Situations to try plugins in: clusters with free or slow links and jitter, a quadratic whose answer is known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Optional

import torch

from halos.config.yaml_text import Section
from halos.hooks import Register, hookimpl
from halos.seeds import generator
from halos.testing.recording import tiny
from halos.values.params import Params
from halos.world.cluster import Cluster, Worker

MODEL_BYTES = 1_000_000
PATIENCE = 20  # what a run may take, times the length that rounds one after the other would have


@dataclass(frozen=True)
class Situation:
    """A cluster of 1, 2 or 8 workers, in one, two or four regions, whose steps take a second."""

    workers: int
    links: str  # free | slow: a model takes five of a round's times | jitter: half of one, and workers are unequal

    def __str__(self) -> str:
        return f"{self.workers} worker{'s' if self.workers > 1 else ''}, {self.links}"

    def sections(self, steps: int, rounds: int) -> Section:
        """A run of so many rounds of `steps` local steps, on noisy gradients, so that it matters who trains on what."""
        speeds = [1.0, 0.7, 0.4, 0.9] if self.links == "jitter" else [1.0]
        count = {1: 1, 2: 2}.get(self.workers, 4)  # of regions
        several = [speeds[worker % len(speeds)] for worker in range(self.workers // count)]
        transfer = {"free": 0.0, "slow": 5.0, "jitter": 0.5}[self.links] * steps  # seconds
        gbps = MODEL_BYTES * 8 / transfer / 1e9 if transfer else math.inf
        longest = rounds * (steps / min(speeds) + 2 * transfer)
        return tiny(
            cluster={"regions": [{"workers": several}] * count, "step_time_ms": 1000.0},
            network={"bandwidth_gbps": gbps},
            compute={"name": "testing_jitter" if self.links == "jitter" else "constant"},
            model={"size": 3, "noise": 0.3, "dtype": "float64", "wire_bytes": MODEL_BYTES},
            data={"samples": 4096, "validation_samples": 1},
            steps={"base": steps},
            budget={"local_steps": rounds * steps * self.workers, "simulated_hours": PATIENCE * longest / 3600},
        )


SITUATIONS = [Situation(workers, links) for workers in (1, 2, 8) for links in ("free", "slow", "jitter")]


@dataclass
class TestingJitter:
    """`steps · step time / speed`, times a factor in [½, 1½) drawn for each job by the run's seed."""

    __test__ = False  # for pytest: not a class of tests

    seed: Optional[int] = None  # null: the run's

    def connect(self, cluster: Cluster, seed: int) -> None:
        self._step_time = cluster.step_time
        self._seed = seed

    def seconds(self, worker: Worker, steps: int, time: float, job: int) -> float:
        factor = 0.5 + float(generator(self._seed, "testing jitter", job).random())
        return factor * self._step_time * steps / worker.speed


@dataclass(frozen=True)
class QuadraticProblem:
    """½ Σ cᵢ (θᵢ − 1)² from θ = 0, by inner SGD of rate `lr`: a local step leaves 1 − lr c of each 1 − θᵢ.

    Several curvatures, so that nothing that merely swings through the optimum is at it in all of them at once.
    """

    curvature: tuple[float, ...] = (1.0, 0.9, 0.8)
    lr: float = 0.1

    def sections(self, **changes: Any) -> Section:
        """The smallest run of it (see `tiny`), with some sections changed."""
        size = len(self.curvature)
        model = {"name": "quadratic", "size": size, "curvature": list(self.curvature), "dtype": "float64"}
        inner = {"optimizer": {"name": "sgd", "lr": self.lr, "weight_decay": 0.0}}
        return tiny(**{"model": model, "train": inner, **changes})

    def after(self, steps: int) -> list[float]:
        """θ after so many local steps in a row."""
        return [1.0 - (1.0 - self.lr * c) ** steps for c in self.curvature]

    def loss(self, distance: float) -> float:
        """The least loss at which θ can be `distance` away from the optimum, in units of the start's distance."""
        return 0.5 * min(self.curvature) * len(self.curvature) * distance**2

    def distance(self, params: Params) -> float:
        """‖θ − θ*‖ / ‖θ₀ − θ*‖: 1 at the start, 0 at the optimum."""
        assert params.flat is not None, "hollow parameters are nowhere"
        return float(torch.linalg.vector_norm(params.flat - 1.0)) / math.sqrt(len(self.curvature))


@dataclass(frozen=True)
class TestingKeeping:
    """A batch norm and dropout between two layers: what a module keeps to itself, and draws."""

    __test__ = False  # for pytest: not a class of tests

    def build(self, vocab_size: Optional[int], seed: int) -> torch.nn.Module:
        class Net(torch.nn.Sequential):
            def forward(self, batch: torch.Tensor) -> torch.Tensor:
                out: torch.Tensor = super().forward(batch[:, :-1] / 64)  # type: ignore[no-untyped-call]
                return (out - batch[:, -1:] / 64).square().mean()

        return Net(torch.nn.Linear(8, 4), torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 1))


@hookimpl
def register_models(register: Register) -> None:
    register("testing_keeping", TestingKeeping)


@hookimpl
def register_compute_models(register: Register) -> None:
    register("testing_jitter", TestingJitter)
