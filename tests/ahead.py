"""A plugin: a merge rule whose workers begin where its momentum is about to carry the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from halos import Params, Register, hookimpl


@dataclass(frozen=True)
class Ahead:
    """Heavy ball: v ← μ v + Δ; θ ← θ − lr v; workers begin from θ − lr μ v. That point moves as Nesterov's θ does."""

    lr: float = 0.4
    momentum: float = 0.8  # μ

    def init(self, params: Params) -> Params:
        return params.zeros()

    def start(self, params: Params, state: Params) -> Params:
        return params - self.lr * self.momentum * state

    def step(
        self, params: Params, delta: Params, state: Params, *, base: Optional[Params] = None, staleness: int = 0
    ) -> tuple[Params, Params]:
        velocity = self.momentum * state + delta
        return params - self.lr * velocity, velocity


@hookimpl
def register_merge_rules(register: Register) -> None:
    register("ahead", Ahead)
