"""An observer that says by how much the loss of one evaluated model is above that of another."""

from __future__ import annotations

from dataclasses import dataclass

from halos import Evaluation, Experiment, Register, hookimpl


@dataclass
class Above:
    """The last validation loss of each model of `evaluate.of` minus that of each other one, in nats: `A.B` is A − B."""

    @hookimpl
    def on_start(self, experiment: Experiment) -> None:
        self.losses: dict[str, float] = {}  # the latest, by model

    @hookimpl
    def on_evaluate(self, evaluation: Evaluation) -> None:
        if evaluation.set == "validation":
            self.losses[evaluation.of] = evaluation.loss

    def summary(self) -> dict[str, dict[str, float]]:
        losses = self.losses
        return {of: {other: losses[of] - losses[other] for other in losses if other != of} for of in losses}


@hookimpl
def register_observers(register: Register) -> None:
    register("above", Above)
