"""The recorded runs' analytic training (tests/golden/README.md) as a plugin: float64, 17 parameters, no data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

import torch

from halos import Layout, Params, Register, hookimpl
from halos.training import Job, Outcome, Task

SHAPES = {"a": (3, 4), "b": (5,)}


@dataclass
class Analytic:
    """A closed form instead of training: each job moves towards a point that depends on worker and data."""

    def open(self, task: Task) -> Params:
        self._chunk = task.train.loss_average_steps
        a = torch.sin(0.3 * torch.arange(12, dtype=torch.float64))
        b = torch.cos(0.7 * torch.arange(5, dtype=torch.float64))
        return Params(Layout(SHAPES, torch.float64), torch.cat([a, b]))

    def submit(self, job: Job) -> None:
        pass

    def result(self, job: Job) -> Outcome:
        theta = job.start.flat
        assert theta is not None
        k = torch.arange(17, dtype=torch.float64)
        centre = torch.sin(0.001 * job.first_sample + 0.1 * k + job.worker)
        delta = (1 - 0.95**job.steps) * (theta - centre) / (1 + 0.01 * job.lr_step)
        loss = 0.5 * float(((theta - centre) ** 2).mean())
        chunks = [min(self._chunk, job.steps - done) for done in range(0, job.steps, self._chunk)]
        losses = [loss / (1 + j) for j in range(len(chunks))]
        return Outcome(Params(job.start.layout, theta - delta), tuple(losses), tuple(chunks))

    def evaluate(self, params: Params, name: str) -> Optional[float]:
        assert params.flat is not None
        return 0.5 * float((params.flat**2).mean())

    def describe(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        pass


@hookimpl
def register_executors(register: Register) -> None:
    register("analytic", Analytic)
