"""A plugin for tests: an executor for a linear loss, whose every local step of worker m adds `steps[m]` to θ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

import torch

from halos import Job, Layout, Outcome, Params, Register, Task, hookimpl


@dataclass
class Slopes:
    """Minus the learning rate times the gradient: one number per worker, the same for every parameter."""

    steps: list[float]

    def open(self, task: Task) -> Params:
        layout = Layout(task.model.shapes(None), torch.float64)
        return Params(layout, torch.zeros(layout.size, dtype=torch.float64))

    def submit(self, job: Job) -> None:
        pass

    def result(self, job: Job) -> Outcome:
        moved = job.start.map(lambda theta: theta + job.steps * self.steps[job.worker])
        return Outcome(moved, (), ())

    def evaluate(self, params: Params, name: str) -> Optional[float]:
        return None

    def describe(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        pass


@hookimpl
def register_executors(register: Register) -> None:
    register("slopes", Slopes)
