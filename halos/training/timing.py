"""No training at all: only the timeline, with hollow parameters of the model's size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from halos.data import check_vocabulary
from halos.errors import under
from halos.hooks import Register, hookimpl
from halos.models.building import refuse_unlike, shapes_of
from halos.training import Job, Outcome, Task
from halos.values.params import Layout, Params


@dataclass
class Timing:
    """Times without training: opens no data and builds no model beyond its shapes."""

    def open(self, task: Task) -> Params:
        with under("data"):
            vocab_size = task.data.vocabulary()
            check_vocabulary(vocab_size)
        with under("model"):
            shapes = shapes_of(task.model, vocab_size)
            refuse_unlike(task.model, shapes, vocab_size)
            self._layout = Layout(shapes)
        return Params(self._layout, None)

    def submit(self, job: Job) -> None:
        pass

    def result(self, job: Job) -> Outcome:
        return Outcome(Params(self._layout, None), (), ())

    def step(self, params: Params, gradient: Params, lr_step: int) -> Params:
        return Params(self._layout, None)

    def evaluate(self, params: Params, name: str) -> Optional[float]:
        return None

    def describe(self) -> dict[str, Any]:
        return {}

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        pass

    def close(self) -> None:
        pass


@hookimpl
def register_executors(register: Register) -> None:
    register("timing", Timing)
