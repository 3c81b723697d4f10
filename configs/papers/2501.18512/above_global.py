"""An observer that says by how much other models' losses are above the global model's, of the same moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from halos import Evaluation, Experiment, Register, hookimpl


@dataclass
class AboveGlobal:
    """At the end of the run, the validation loss of each other model of `evaluate.of` minus the global one's."""

    @hookimpl
    def on_start(self, experiment: Experiment) -> None:
        self.losses: dict[str, float] = {}  # the latest, by model

    @hookimpl
    def on_evaluate(self, evaluation: Evaluation) -> None:
        if evaluation.set == "validation":
            self.losses[evaluation.of] = evaluation.loss

    def summary(self) -> dict[str, Optional[float]]:
        base = self.losses.get("global")
        others = {of: loss for of, loss in self.losses.items() if of != "global"}
        return {of: None if base is None else loss - base for of, loss in others.items()}


@hookimpl
def register_observers(register: Register) -> None:
    register("above_global", AboveGlobal)
