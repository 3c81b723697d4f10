"""A problem whose answer is known: a quadratic in float64, where all data is the same."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from halos.config.yaml_text import Section
from halos.testing.recording import tiny
from halos.values.params import Params


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
