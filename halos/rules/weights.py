"""Contribution weights: how much a worker's pseudo-gradient counts when workers take unequal steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from halos.hooks import Register, hookimpl


class ContributionWeights(Protocol):
    """A factor on every pseudo-gradient; over equal steps it is 1."""

    def factor(self, steps: int, mean_steps: float) -> float:
        """Return the factor for a job of `steps` local steps when workers take `mean_steps` on average."""
        ...


@dataclass
class Uniform:
    """Every pseudo-gradient counts as it is."""

    def factor(self, steps: int, mean_steps: float) -> float:
        return 1.0


@hookimpl
def register_contribution_weights(register: Register) -> None:
    register("uniform", Uniform)
