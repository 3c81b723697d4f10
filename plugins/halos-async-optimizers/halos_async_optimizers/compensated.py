"""Delay compensation: a late pseudo-gradient, taken to where the model is now by a guess at its curvature."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Optional

import torch
from msgspec import Struct

from halos import Params, require

from .around import Around

DECAY = 0.95  # of the mean square of pseudo-gradients
EPS = 1e-7  # added to it
STRENGTH = {False: 0.04, True: 2.0}  # where none is given: constant, adaptive


class CompensatedState(Struct, frozen=True):
    """The inner rule's state, and the mean square of pseudo-gradients, if λ follows it."""

    inner: Any
    square: Optional[Params] = None


@dataclass(frozen=True)
class Compensated(Around):
    """Δ ← Δ + λ Δ⊙Δ⊙(θ − θ_b), then the inner rule (DC-ASGD, as arXiv 2401.09135 compares with it; θ_b: where Δ began).

    Δ⊙Δ stands in for the curvature. For gradients, that is: a pseudo-gradient is about (local steps · inner learning
    rate) times a gradient, so that λ must be as many times larger to mean the same. Adaptive, elementwise:
    λ = strength / √(MS + 1e-7), MS ← .95 MS + .05 Δ².
    """

    adaptive: bool = False  # whether λ is divided by the root mean square of the pseudo-gradients so far
    strength: Optional[float] = None  # λ; null: 0.04, adaptive 2

    def __post_init__(self) -> None:
        fits = self.strength is None or 0.0 <= self.strength < math.inf
        require(fits, "strength", self.strength, "zero or a positive, finite number, or null")

    def init(self, params: Params) -> CompensatedState:
        return CompensatedState(self.outer.init(params), params.zeros() if self.adaptive else None)

    def inner(self, state: CompensatedState) -> Any:
        return state.inner

    def step(
        self,
        params: Params,
        delta: Params,
        state: CompensatedState,
        *,
        base: Optional[Params] = None,
        staleness: int = 0,
    ) -> tuple[Params, CompensatedState]:
        strength = STRENGTH[self.adaptive] if self.strength is None else self.strength
        square, compensated = state.square, delta
        if square is not None:
            square = Params.combine(lambda e, d: torch.lerp(e, d.square(), 1 - DECAY), square, delta)
        if base is not None:
            gap = self.moved_on(params, state, base)  # θ − θ_b
            if square is None:
                compensated = Params.combine(lambda d, g: d + strength * d * d * g, delta, gap)
            else:
                compensated = Params.combine(
                    lambda d, g, e: d + strength / (e + EPS).sqrt() * d * d * g, delta, gap, square
                )
        moved, inner = self.outer.step(params, compensated, state.inner, base=base, staleness=staleness)
        return moved, CompensatedState(inner, square)
