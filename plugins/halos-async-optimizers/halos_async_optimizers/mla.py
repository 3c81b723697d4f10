"""MLA, momentum look-ahead: a slow momentum acts beside each pseudo-gradient, and workers may begin where it leads."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Optional

import torch

from halos import Params, Simulation, require

logger = logging.getLogger(f"halos.{__name__}")  # among those that a run shows


@dataclass(frozen=True)
class MLA:
    """m ← γ m + (1−γ) Δ; θ ← θ − lr (γ m + Δ), a look-ahead momentum (MLA, as in the code of arXiv 2606.00271).

    With `ahead`, workers begin at θ − lr γ m instead of θ. After the momentum look-ahead of asynchronous DiLoCo (MCDC
    workshop at ICLR 2025), as it is among the baselines of HeLoCo's code. What workers begin from is disputed: the
    abstract extrapolates along the negative momentum, that baseline begins at θ. On a constant Δ it moves by
    lr (1+γ) Δ a step, Nesterov by lr Δ / (1−γ).
    """

    lr: float = 0.7  # η
    momentum: float = 0.9  # γ, below 1
    ahead: bool = False  # whether workers begin at θ − lr γ m

    def __post_init__(self) -> None:
        require(0.0 <= self.lr <= 1e30, "lr", self.lr, "zero or a positive, finite number")
        require(0.0 <= self.momentum < 1.0, "momentum", self.momentum, "in [0, 1)")

    def prepare(self, sim: Simulation) -> None:
        """Say which of the two it is."""
        logger.info("mla: workers begin at %s", "θ − lr γ m (ahead: true)" if self.ahead else "θ (ahead: false)")

    def init(self, params: Params) -> Params:
        return params.zeros()

    def start(self, params: Params, state: Params) -> Params:
        if not self.ahead:
            return params
        return Params.combine(lambda p, m: torch.add(p, m, alpha=-self.lr * self.momentum), params, state)

    def step(
        self, params: Params, delta: Params, state: Params, *, base: Optional[Params] = None, staleness: int = 0
    ) -> tuple[Params, Params]:
        decay = self.momentum
        momentum = Params.combine(lambda m, d: torch.add(decay * m, d, alpha=1 - decay), state, delta)
        moved = Params.combine(
            lambda p, d, m: torch.add(p, torch.add(d, m, alpha=decay), alpha=-self.lr), params, delta, momentum
        )
        return moved, momentum

    def momentum_of(self, state: Params) -> Params:
        return state
